//! How far a download is: a bar for a person, a line for a pipe.

use std::io::{self, IsTerminal, Write};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar of one file.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// `done` bytes of `total` are there already.
    pub fn start(model: &str, file: &str, done: u64, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{msg}  {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}",
        );
        bar.set_style(
            style
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        bar.set_message(file.to_string());
        bar.set_position(done);
        bar.reset_eta();
        if !io::stderr().is_terminal() {
            let size = total.map_or_else(String::new, |t| format!(", {}", HumanBytes(t)));
            let rest = match done {
                0 => String::new(),
                _ => format!(", {} of it are there", HumanBytes(done)),
            };
            // A reader that went away does not stop the download.
            let _ = writeln!(io::stderr(), "fetching   {model}: {file}{size}{rest}");
        }
        Self(bar)
    }

    pub fn add(&self, bytes: usize) {
        self.0.inc(bytes as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
