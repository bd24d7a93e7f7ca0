//! How the kernels of attention cut the work: tiles that fit the device, and tables
//! of blocks.

use burn::tensor::{Device, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;

use super::tensors::{integers, upload_integers};
use crate::ops::{AttentionShape, Span, Spans};

/// How the kernels cut the work. A cube handles `rows` rows of a tile against
/// `cols` columns at a time; a unit owns `unit_rows x unit_cols` of its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiling {
    pub rows: usize,
    pub cols: usize,
    pub unit_rows: usize,
    pub unit_cols: usize,
}

impl Tiling {
    /// Units side by side along the columns.
    pub fn units_x(&self) -> usize {
        self.cols / self.unit_cols
    }

    pub fn units_y(&self) -> usize {
        self.rows / self.unit_rows
    }

    /// Bytes of shared memory: `row_tiles` tiles of row vectors, `col_tiles` of
    /// column vectors and `score_tiles` of scores, in f32 with a word of padding a row.
    fn shared_bytes(&self, head_dim: usize, tiles: Tiles) -> usize {
        let rows = tiles.row * self.rows + tiles.col * self.cols;
        let scores = tiles.score * self.rows * (self.cols + 1);
        4 * (rows * (head_dim + 1) + scores + self.rows * (self.units_x() + 2) + 2 * self.cols)
    }
}

/// Shared tiles of a kernel.
#[derive(Clone, Copy)]
struct Tiles {
    row: usize,
    col: usize,
    score: usize,
}

const FORWARD: Tiles = Tiles {
    row: 1,
    col: 2,
    score: 1,
};
/// The most that a backward kernel holds.
const BACKWARD: Tiles = Tiles {
    row: 2,
    col: 2,
    score: 2,
};

/// From the fastest to the smallest.
const TILINGS: [Tiling; 4] = [
    Tiling {
        rows: 64,
        cols: 32,
        unit_rows: 4,
        unit_cols: 2,
    },
    Tiling {
        rows: 32,
        cols: 32,
        unit_rows: 2,
        unit_cols: 2,
    },
    Tiling {
        rows: 16,
        cols: 16,
        unit_rows: 2,
        unit_cols: 2,
    },
    Tiling {
        rows: 8,
        cols: 8,
        unit_rows: 1,
        unit_cols: 1,
    },
];

/// The fastest tiling whose tiles fit the device, forward and backward alike, so
/// that one table of blocks serves both.
fn tiling(like: &CubeTensor, head_dim: usize) -> Tiling {
    let limit = like.client.properties().hardware.max_shared_memory_size;
    // Two cubes should share a multiprocessor.
    let budget = if limit > 100 << 10 { limit / 2 } else { limit };
    let fits = |t: &&Tiling| {
        t.shared_bytes(head_dim, FORWARD) <= budget && t.shared_bytes(head_dim, BACKWARD) <= budget
    };
    let fallback = TILINGS[TILINGS.len() - 1];
    let chosen = TILINGS.iter().find(fits).copied().unwrap_or(fallback);
    assert!(
        chosen.shared_bytes(head_dim, BACKWARD) <= limit,
        "heads of {head_dim} do not fit {limit} bytes of shared memory"
    );
    chosen
}

/// Words of one entry of a table.
pub const QUERY_BLOCK: usize = 4;
pub const KEY_BLOCK: usize = 6;

/// Blocks of query rows, each `[first row, rows, first key row, keys the first
/// row sees]`, and blocks of key rows, each `[first row, rows, its place in the
/// span, first query row, query rows, keys before the first query]`.
fn tables(spans: &[Span], tiling: Tiling, device: &Device) -> [Tensor<1, Int>; 2] {
    let (mut queries, mut keys) = (Vec::new(), Vec::new());
    for span in spans {
        let before = span.k_len - span.q_len;
        for from in (0..span.q_len).step_by(tiling.rows) {
            let rows = tiling.rows.min(span.q_len - from);
            let entry = [span.q_start + from, rows, span.k_start, before + from + 1];
            queries.extend(entry.map(|v| v as u32));
        }
        for from in (0..span.k_len).step_by(tiling.rows) {
            let rows = tiling.rows.min(span.k_len - from);
            let first = span.k_start + from;
            let entry = [first, rows, from, span.q_start, span.q_len, before];
            keys.extend(entry.map(|v| v as u32));
        }
    }
    [
        upload_integers(device, &queries),
        upload_integers(device, &keys),
    ]
}

/// What a launch needs besides its tensors.
pub struct Plan {
    pub tiling: Tiling,
    pub shape: AttentionShape,
    pub query_blocks: CubeTensor,
    pub key_blocks: CubeTensor,
}

/// A window that no sequence fills: kernels have no `None`.
const NO_WINDOW: usize = 1 << 30;

/// Keys that a query sees at most.
pub fn window(shape: AttentionShape) -> usize {
    shape.window.map_or(NO_WINDOW, |w| w.min(NO_WINDOW))
}

impl Plan {
    pub fn new(q: &CubeTensor, device: &Device, spans: &Spans, shape: AttentionShape) -> Self {
        let tiling = tiling(q, shape.head_dim);
        let [queries, keys] = spans.on_device(|spans| tables(spans, tiling, device));
        Self {
            tiling,
            shape,
            query_blocks: integers(queries),
            key_blocks: integers(keys),
        }
    }
}
