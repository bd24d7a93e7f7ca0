//! The console: lines for the terminal, the same lines for run.log.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;

use super::fsx::FsError;

/// Prints lines and keeps them in run.log, without escape codes. Cheap to
/// clone; clones share everything. Lines printed before [`Console::attach`]
/// are held and open the file.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Mutex<Shared>>,
    interactive: bool,
}

struct Shared {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    log: Log,
    /// The bar that printed lines must go above.
    bar: Option<ProgressBar>,
}

enum Log {
    /// No run directory yet.
    Held(String),
    Open(File),
    /// Writing failed, which was said once.
    Lost,
}

impl Console {
    /// The process's own stdout and stderr.
    pub fn stdio() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        Self::with_sinks(
            Box::new(io::stdout()),
            Box::new(io::stderr()),
            terminal && !dumb,
        )
    }

    /// Other places to print to; `interactive` says that a person watches, so
    /// that a progress bar makes sense.
    pub fn with_sinks(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        interactive: bool,
    ) -> Self {
        let shared = Shared {
            out,
            err,
            log: Log::Held(String::new()),
            bar: None,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            interactive,
        }
    }

    pub fn interactive(&self) -> bool {
        self.interactive
    }

    /// From here on lines go to the file at `path` too, after what was printed
    /// before. An existing file (a resumed run) is continued.
    pub fn attach(&self, path: &Path) -> Result<(), FsError> {
        let fail = |e| FsError::new("write", path, e);
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(fail)?;
        let mut shared = self.lock();
        if let Log::Held(text) = &shared.log {
            file.write_all(text.as_bytes()).map_err(fail)?;
        }
        shared.log = Log::Open(file);
        Ok(())
    }

    /// Prints to stdout and the log. `text` may hold several lines.
    pub fn line(&self, text: &str) {
        self.print(text, |shared| &mut shared.out);
    }

    /// Prints to stderr and the log.
    pub fn error(&self, text: &str) {
        self.print(text, |shared| &mut shared.err);
    }

    /// Writes to the log alone: what a terminal shows in a bar.
    pub fn log_only(&self, text: &str) {
        self.lock().record(text);
    }

    /// Prints a piece of a line to stdout; the log gets the line when it is whole, by
    /// [`Console::log_only`].
    pub fn piece(&self, text: &str) {
        let out = &mut self.lock().out;
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Sets or clears the bar that lines are printed above.
    pub fn set_bar(&self, bar: Option<ProgressBar>) {
        self.lock().bar = bar;
    }

    fn print(&self, text: &str, sink: impl Fn(&mut Shared) -> &mut Box<dyn Write + Send>) {
        let mut shared = self.lock();
        let bar = shared.bar.clone();
        let mut write = || {
            let sink = sink(&mut shared);
            // A reader that went away (`run train | head`) does not stop the run.
            let _ = sink
                .write_all(format!("{text}\n").as_bytes())
                .and_then(|()| sink.flush());
        };
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
        shared.record(text);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn record(&mut self, text: &str) {
        let plain = strip_escapes(text) + "\n";
        match &mut self.log {
            Log::Held(held) => held.push_str(&plain),
            Log::Lost => {}
            Log::Open(file) => {
                if let Err(e) = file.write_all(plain.as_bytes()) {
                    let _ = writeln!(self.err, "run.log: cannot write: {e}; the log ends here");
                    self.log = Log::Lost;
                }
            }
        }
    }
}

/// Text without terminal control: CSI and OSC sequences, two-character escapes
/// and carriage returns (ECMA-48, sections 5.3 to 5.6).
pub fn strip_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // CSI: parameters, then a final byte.
                Some('[') => {
                    chars.by_ref().find(|c| ('@'..='~').contains(c));
                }
                // OSC: up to BEL or ESC \.
                Some(']') => {
                    let mut before = ' ';
                    for c in chars.by_ref() {
                        if c == '\u{7}' || (before == '\u{1b}' && c == '\\') {
                            break;
                        }
                        before = c;
                    }
                }
                _ => {}
            },
            '\r' => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sink whose content a test can look at.
    #[derive(Clone, Default)]
    pub(crate) struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Shown {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Shown {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    pub(crate) fn console(interactive: bool) -> (Console, Shown, Shown) {
        let (out, err) = (Shown::default(), Shown::default());
        let console =
            Console::with_sinks(Box::new(out.clone()), Box::new(err.clone()), interactive);
        (console, out, err)
    }

    #[test]
    fn the_log_holds_what_the_terminal_showed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.log");
        let (console, out, err) = console(false);
        console.line("before the directory");
        console.attach(&path).unwrap();
        console.clone().line("\u{1b}[1;32mgreen\u{1b}[0m\nsecond");
        console.error("wrong");
        console.log_only("bar 3/9");
        assert_eq!(
            out.text(),
            "before the directory\n\u{1b}[1;32mgreen\u{1b}[0m\nsecond\n"
        );
        assert_eq!(err.text(), "wrong\n");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "before the directory\ngreen\nsecond\nwrong\nbar 3/9\n"
        );
    }

    #[test]
    fn a_resumed_log_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.log");
        for text in ["one", "two"] {
            let (console, _, _) = console(false);
            console.attach(&path).unwrap();
            console.line(text);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_closed_pipe_or_a_full_disk_does_not_stop_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.log");
        let console = Console::with_sinks(Box::new(Gone), Box::new(Gone), false);
        console.attach(&path).unwrap();
        console.line("still here");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "still here\n");

        let (console, out, err) = self::console(false);
        if console.attach(Path::new("/dev/full")).is_err() {
            println!("skipped: this system has no /dev/full");
            return;
        }
        console.line("one");
        console.line("two");
        assert_eq!(out.text(), "one\ntwo\n");
        assert_eq!(err.text().matches("the log ends here").count(), 1);
    }

    #[test]
    fn escapes_are_stripped() {
        assert_eq!(strip_escapes("a\u{1b}[2K\rb"), "ab");
        assert_eq!(
            strip_escapes("\u{1b}]8;;http://x\u{7}link\u{1b}]8;;\u{1b}\\!"),
            "link!"
        );
        assert_eq!(strip_escapes("\u{1b}7x\u{1b}["), "x");
        assert_eq!(strip_escapes("ü — 问"), "ü — 问");
    }
}
