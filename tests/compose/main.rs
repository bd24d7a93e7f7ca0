//! The composer and the table of keys, and frozen cases beside Hydra's answers.

mod config;
mod hydra_parity;
mod launchers;
mod library;
mod limits;
