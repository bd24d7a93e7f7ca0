//! Composition as Hydra and OmegaConf do it: YAML, overrides, defaults lists,
//! packages, interpolation, sweeps. This module knows nothing of models.
//!
//! The way through: a [`Request`] names the sources, the primary config and the
//! overrides. [`compose`] parses the overrides, expands the defaults lists into
//! the list of configs to merge, merges them, and applies the overrides of
//! values. The [`Composed`] result is unresolved; every value knows its origin.

mod apply;
mod composed;
mod defaults;
mod error;
mod grammar;
mod hydra;
mod interpolate;
mod library;
mod merge;
mod nearest;
mod node;
mod python;
mod resolvers;
mod scalar;
mod scope;
mod source;
mod sweep;
mod yaml_read;
mod yaml_scalar;
mod yaml_write;

pub use composed::{Composed, Listed, Request, compose, groups};
pub use error::{Error, Problem};
pub use nearest::nearest;
pub use node::{Key, Map, Node, Origin, Value};
pub use source::{Source, Tree};
pub use sweep::{expand_sweep, sweep_cells};
pub use yaml_write::to_yaml;
