//! Whole runs as processes, each in a directory of its own.

mod bad_input;
mod best;
mod chat;
mod chat_cli;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod export;
mod hub;
mod infer;
mod limits;
mod outputs;
mod pissa;
mod plan;
mod preview;
mod rerun;
mod resume;
mod routes;
mod scores;
mod seeds;
mod sweep;
mod synth;
mod tiny_data;
mod train;
mod trained_on;
mod win_rate;
