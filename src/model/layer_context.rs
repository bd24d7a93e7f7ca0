//! What all layers share in a pass.

use super::operands::Operands;
use super::pass::Pass;
use super::ragged::Ragged;
use crate::ops::{AttentionShape, RopeTable};

/// What all layers share.
#[derive(Clone, Copy)]
pub struct LayerContext<'a> {
    pub pass: Pass<'a>,
    pub batch: &'a Ragged,
    /// `None` where positions are not rotary.
    pub rope: Option<&'a RopeTable>,
    /// Without the window, which is a layer's own.
    pub attention: AttentionShape,
}

impl LayerContext<'_> {
    /// With what a layer has prepared.
    pub(super) fn with<'a>(&'a self, operands: &'a Operands) -> LayerContext<'a> {
        let operands = Some(operands);
        LayerContext {
            pass: Pass {
                operands,
                ..self.pass
            },
            ..*self
        }
    }
}
