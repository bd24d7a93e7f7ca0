//! Composition as Hydra and OmegaConf do it: YAML, overrides, defaults lists,
//! packages, interpolation, sweeps. This module knows nothing of models.
//!
//! The way through: a [`Request`] names the sources, the primary config and the
//! overrides. [`compose`] parses the overrides, expands the defaults lists into
//! the list of configs to merge, merges them, and applies the overrides of
//! values. The [`Composed`] result is unresolved; every value knows its origin.

mod apply;
mod arithmetic;
mod big_int;
mod composed;
mod defaults;
mod error;
mod found;
mod grammar;
mod history;
mod hydra;
mod hydra_types;
mod interpolate;
mod library;
mod list_edit;
mod lost;
mod merge;
mod nearest;
mod node;
mod numbers;
mod opened;
mod outline;
mod python;
mod request;
mod resolvers;
mod saved;
mod scalar;
mod scope;
mod source;
mod strftime;
mod sweep;
mod unknown;
mod yaml_block;
mod yaml_indent;
mod yaml_read;
mod yaml_scalar;
mod yaml_write;

pub use big_int::BigInt;
pub use composed::{Composed, Part, compose, compose_partly};
pub use defaults::{DefaultsTree, Listed};
pub use error::{Error, Problem};
pub use grammar::overrides::override_value;
pub use history::{Change, History, compose_with_history, one_line};
pub use nearest::nearest;
pub use node::{Key, Map, Node, Origin, Value};
pub use outline::{Outline, full_search_path, groups, options, outline};
pub use python::to_str as printed;
pub use request::{Elsewhere, Request};
pub use saved::{Saved, read_file, saved_origin, saved_overrides};
pub use source::{Source, Tree};
pub use sweep::{Cell, Multirun, expand_sweep, is_multirun, sweep_cells};
pub use yaml_write::{to_yaml, to_yaml_literal, to_yaml_noted};
