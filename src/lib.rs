//! Kiln fine-tunes language models for question answering from one command line.
//!
//! A command line comes in at the top and a run directory comes out at the
//! bottom. Modules call only downwards: [`cli`], [`experiment`], [`report`], [`synth`],
//! [`judge`], [`evaluate`], [`ask`], [`embed`], [`generate`], [`train`], [`plan`], [`data`],
//! [`hub`], [`model`], [`net`], [`ops`], [`device`]; below them all, [`config`] is the typed
//! experiment and [`compose`] is Hydra; [`clean`], [`digest`], [`rng`] and [`staging`] stand by themselves.

pub mod ask;
pub mod clean;
pub mod cli;
pub mod compose;
pub mod config;
pub mod data;
pub mod device;
pub mod digest;
pub mod embed;
pub mod evaluate;
pub mod experiment;
pub mod generate;
pub mod hub;
pub mod judge;
pub mod model;
pub mod net;
pub mod ops;
pub mod plan;
pub mod report;
pub mod rng;
pub mod staging;
pub mod synth;
pub mod train;

#[cfg(test)]
#[path = "../tests/common/server.rs"]
mod test_server;
