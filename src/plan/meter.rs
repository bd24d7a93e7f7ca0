//! Counts bytes that come and go, and remembers the moment with the most.

use serde::Serialize;

/// What memory is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Program,
    Context,
    Nf4Codes,
    Nf4Scales,
    DenseLinears,
    Embedding,
    Head,
    Norms,
    RotaryTable,
    Trained,
    Start,
    Gradients,
    Moments,
    Kept,
    Layer,
    Dequantised,
    Logits,
    Packed,
    Attention,
    KvCache,
    Encoder,
    InTransit,
}

const PARTS: [Part; 22] = [
    Part::Program,
    Part::Context,
    Part::Nf4Codes,
    Part::Nf4Scales,
    Part::DenseLinears,
    Part::Embedding,
    Part::Head,
    Part::Norms,
    Part::RotaryTable,
    Part::Trained,
    Part::Start,
    Part::Gradients,
    Part::Moments,
    Part::Kept,
    Part::Layer,
    Part::Dequantised,
    Part::Logits,
    Part::Packed,
    Part::Attention,
    Part::KvCache,
    Part::Encoder,
    Part::InTransit,
];

impl Part {
    /// For the table.
    pub fn label(self) -> &'static str {
        match self {
            Part::Program => "program, tokenizer, data",
            Part::Context => "CUDA context (allowance)",
            Part::Nf4Codes => "base weights: NF4 codes",
            Part::Nf4Scales => "base weights: NF4 scales",
            Part::DenseLinears => "base weights: dense linears",
            Part::Embedding => "base weights: embedding",
            Part::Head => "base weights: head",
            Part::Norms => "base weights: norms",
            Part::RotaryTable => "rotary table",
            Part::Trained => "trained parameters",
            Part::Start => "the adapter as it began",
            Part::Gradients => "gradients",
            Part::Moments => "AdamW moments",
            Part::Kept => "activations kept",
            Part::Layer => "the layer at work",
            Part::Dequantised => "a weight, dequantised",
            Part::Logits => "logits of a chunk",
            Part::Packed => "operands, packed for a product",
            Part::Attention => "attention scores of a block",
            Part::KvCache => "KV cache",
            Part::Encoder => "sentence encoder",
            Part::InTransit => "tensors on their way to or from disk",
        }
    }
}

/// Stages of a run, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Loading,
    Step,
    Validation,
    Checkpoint,
    Test,
}

impl Phase {
    pub fn label(self) -> &'static str {
        match self {
            Phase::Loading => "loading the model",
            Phase::Step => "a training step",
            Phase::Validation => "validation",
            Phase::Checkpoint => "writing a checkpoint",
            Phase::Test => "the closing test",
        }
    }
}

/// The most memory of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// At the fullest moment of the run; sums up to `total`.
    pub parts: Vec<(Part, u64)>,
    pub total: u64,
    /// When that is.
    pub phase: Phase,
    /// The most of each phase.
    pub phases: Vec<(Phase, u64)>,
}

pub(super) struct Meter {
    now: [u64; PARTS.len()],
    sum: u64,
    phase: Phase,
    phases: Vec<(Phase, u64)>,
    peak: ([u64; PARTS.len()], u64, Phase),
}

impl Meter {
    pub(super) fn new() -> Meter {
        Meter {
            now: [0; PARTS.len()],
            sum: 0,
            phase: Phase::Loading,
            phases: Vec::new(),
            peak: ([0; PARTS.len()], 0, Phase::Loading),
        }
    }

    pub(super) fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.phases.push((phase, self.sum));
        self.look();
    }

    pub(super) fn hold(&mut self, part: Part, bytes: u64) {
        self.now[part as usize] += bytes;
        self.sum += bytes;
        self.look();
    }

    /// Lets go of what [`Meter::hold`] took.
    pub(super) fn release(&mut self, part: Part, bytes: u64) {
        debug_assert!(self.now[part as usize] >= bytes, "{part:?}");
        let bytes = bytes.min(self.now[part as usize]);
        self.now[part as usize] -= bytes;
        self.sum -= bytes;
    }

    /// Takes and lets go at once.
    pub(super) fn touch(&mut self, part: Part, bytes: u64) {
        self.hold(part, bytes);
        self.release(part, bytes);
    }

    /// What was held for one thing is held for another from now on.
    pub(super) fn turn(&mut self, from: Part, to: Part, bytes: u64) {
        debug_assert!(self.now[from as usize] >= bytes, "{from:?}");
        self.now[from as usize] -= bytes;
        self.now[to as usize] += bytes;
    }

    pub(super) fn held(&self, part: Part) -> u64 {
        self.now[part as usize]
    }

    fn look(&mut self) {
        if let Some((_, most)) = self.phases.last_mut() {
            *most = self.sum.max(*most);
        }
        if self.sum > self.peak.1 {
            self.peak = (self.now, self.sum, self.phase);
        }
    }

    pub(super) fn finish(self) -> Memory {
        let (parts, total, phase) = self.peak;
        let parts = PARTS.into_iter().zip(parts);
        Memory {
            parts: parts.filter(|(_, bytes)| *bytes > 0).collect(),
            total,
            phase,
            phases: self.phases,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_moment_is_kept_with_its_parts() {
        let mut meter = Meter::new();
        meter.begin(Phase::Loading);
        meter.hold(Part::Trained, 10);
        meter.touch(Part::InTransit, 5);
        meter.begin(Phase::Step);
        meter.hold(Part::Layer, 7);
        meter.turn(Part::Layer, Part::Kept, 4);
        meter.touch(Part::Logits, 1);
        meter.release(Part::Kept, 4);
        let memory = meter.finish();
        assert_eq!((memory.total, memory.phase), (18, Phase::Step));
        let want = [
            (Part::Trained, 10),
            (Part::Kept, 4),
            (Part::Layer, 3),
            (Part::Logits, 1),
        ];
        assert_eq!(memory.parts, want);
        assert_eq!(memory.phases, [(Phase::Loading, 15), (Phase::Step, 18)]);
    }

    #[test]
    fn every_part_has_its_place_and_its_label() {
        let labels: std::collections::HashSet<&str> = PARTS.iter().map(|p| p.label()).collect();
        assert_eq!(labels.len(), PARTS.len());
        for (at, part) in PARTS.iter().enumerate() {
            assert_eq!(*part as usize, at);
        }
    }
}
