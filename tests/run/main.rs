//! Whole runs as processes, each in a directory of its own.

#[path = "../common/mod.rs"]
mod common;
mod bad_input;
mod best;
mod chat;
mod chat_cli;
mod compare;
mod export;
mod hub;
mod infer;
mod plan;
mod preview;
mod rerun;
mod resume;
mod routes;
mod seeds;
mod sweep;
mod tiny_data;
mod train;
