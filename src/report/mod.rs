//! Figures as pictures and pages: SVG charts drawn by hand and self-contained HTML.
//! Knows nothing of files.

pub mod bars;
pub mod html;
pub mod lines;
pub mod svg;

pub use bars::{Bars, Group};
pub use html::Page;
pub use lines::{Chart, Series};
