//! Trials in processes of their own: this program started again, told by a variable
//! which kernels to try. It answers on its standard output, a line each: `begun` when
//! the device is open, `at WHAT` before each comparison, then `passed` or `failed: WHY`.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use burn::tensor::{Device, Tensor};

use super::{Family, trial};
use crate::device::runtime;
use crate::ops::gpu::tensors::buffer;

/// `FAMILY:DEVICE` in a process that is to try kernels.
const TASK: &str = "KILN_KERNEL_TRIAL";
/// Seconds that a comparison may take, compiling included, where 60 do not suit.
const LIMIT: &str = "KILN_KERNEL_TRIAL_SECONDS";

/// Set once this program has shown that it knows [`TASK`].
static ANSWERS: AtomicBool = AtomicBool::new(false);

/// What became of one family.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Passed,
    Failed(String),
    /// No process could be started, or it could not open the device.
    NotTried,
}

/// Where this process was started to try kernels, does so; the exit code to end
/// with. Else later trials may start this program again.
pub fn answer() -> Option<ExitCode> {
    ANSWERS.store(true, Ordering::Relaxed);
    let task = env::var(TASK).ok()?;
    let known = task.split_once(':').and_then(|(family, device)| {
        let family = Family::ALL.into_iter().find(|f| f.name() == family)?;
        Some((family, device.parse::<usize>().ok()?))
    });
    let Some((family, device)) = known else {
        let _ = writeln!(std::io::stderr(), "error: {TASK}={task}: not FAMILY:DEVICE");
        return Some(ExitCode::from(2));
    };
    // One line: it becomes part of the parent's warning.
    std::panic::set_hook(Box::new(|panic| {
        let why = panic.payload_as_str().unwrap_or("a panic");
        let _ = writeln!(std::io::stderr(), "{}", why.replace('\n', " "));
    }));
    die_without_parent();
    runtime::configure();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let like = buffer(&Tensor::<1>::zeros([1], &Device::cuda(device)));
        say("begun");
        trial::run(&like, family, &mut |what| {
            die_without_parent();
            say(&format!("at {what}"));
        })
    }));
    match outcome {
        Ok(Ok(())) => say("passed"),
        Ok(Err(why)) => say(&format!("failed: {}", why.replace('\n', " "))),
        // What the hook wrote is the last line on stderr.
        Err(_) => return Some(ExitCode::FAILURE),
    }
    Some(ExitCode::SUCCESS)
}

/// Where the parent dies, a kernel that hangs must not stay on the card.
fn die_without_parent() {
    #[cfg(unix)]
    // SAFETY: alarm only asks for a signal later on, in place of an earlier one.
    unsafe {
        libc::alarm(limit().as_secs() as u32 + 5);
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // A parent that is gone needs no answer.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The outcomes of the families, tried at the same time.
pub fn try_all(families: &[Family], device: usize) -> Vec<Outcome> {
    if !ANSWERS.load(Ordering::Relaxed) {
        return families.iter().map(|_| Outcome::NotTried).collect();
    }
    thread::scope(|scope| {
        let start = |family: &Family| {
            let family = *family;
            scope.spawn(move || try_one(family, device))
        };
        let running: Vec<_> = families.iter().map(start).collect();
        let outcomes = running.into_iter();
        outcomes
            .map(|one| one.join().unwrap_or(Outcome::NotTried))
            .collect()
    })
}

fn try_one(family: Family, device: usize) -> Outcome {
    let started = env::current_exe().and_then(|program| {
        Command::new(program)
            .env(TASK, format!("{}:{device}", family.name()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    });
    let Ok(mut child) = started else {
        return Outcome::NotTried;
    };
    let (Some(out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return Outcome::NotTried;
    };
    let (send, lines) = channel();
    thread::spawn(move || {
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        lines
            .map(|line| send.send(line))
            .take_while(Result::is_ok)
            .count()
    });
    let complaints = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error still counts.
        let _ = err.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let heard = listen(&lines, limit());
    let ended = end(&mut child, &heard);
    let complaints = complaints.join().unwrap_or_default();
    heard.outcome(&ended, &complaints)
}

fn limit() -> Duration {
    let seconds = env::var(LIMIT).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// How the process ended; one that hangs is ended.
fn end(child: &mut Child, heard: &Heard) -> String {
    if heard.hangs {
        let _ = child.kill();
    }
    match child.wait() {
        Ok(status) => status.to_string(),
        Err(why) => why.to_string(),
    }
}

/// What a process has said.
#[derive(Debug, Default)]
struct Heard {
    begun: bool,
    /// The comparison that it began last.
    at: String,
    verdict: Option<Outcome>,
    hangs: bool,
}

/// Listens until the process has its verdict, ends, or is silent for `limit`.
fn listen(lines: &Receiver<String>, limit: Duration) -> Heard {
    let mut heard = Heard::default();
    while heard.verdict.is_none() {
        match lines.recv_timeout(limit) {
            Ok(line) => heard.line(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                heard.hangs = true;
                break;
            }
        }
    }
    heard
}

impl Heard {
    fn line(&mut self, line: &str) {
        if line == "begun" {
            self.begun = true;
        } else if line == "passed" {
            self.verdict = Some(Outcome::Passed);
        } else if let Some(what) = line.strip_prefix("at ") {
            self.at = what.to_string();
        } else if let Some(why) = line.strip_prefix("failed: ") {
            self.verdict = Some(Outcome::Failed(why.to_string()));
        }
    }

    fn outcome(self, ended: &str, complaints: &str) -> Outcome {
        match self.verdict {
            // Also a program that knows nothing of trials.
            _ if !self.begun => Outcome::NotTried,
            Some(verdict) => verdict,
            None if self.hangs => {
                Outcome::Failed(format!("{}: no end in {} s", self.at, limit().as_secs()))
            }
            None => {
                let last = complaints.lines().rev().find(|l| !l.trim().is_empty());
                let last = last.map(|line| format!(": {line}")).unwrap_or_default();
                Outcome::Failed(format!("{}: {ended}{last}", self.at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a process that says these lines and then goes, or stays where it `hangs`.
    fn heard(said: &[&str], hangs: bool) -> Heard {
        let (send, lines) = channel();
        for line in said {
            send.send(line.to_string()).unwrap();
        }
        let send = hangs.then_some(send);
        let heard = listen(&lines, Duration::from_millis(20));
        drop(send);
        heard
    }

    #[test]
    fn answers_are_understood() {
        let failed = |why: &str| Outcome::Failed(why.into());
        let ok = "exit status: 0";
        let passed = heard(&["begun", "at a", "passed"], false);
        assert_eq!(passed.outcome(ok, ""), Outcome::Passed);
        // Passed is passed, though it hangs at its end.
        let passed = heard(&["begun", "at a", "passed"], true);
        assert_eq!(passed.outcome(ok, ""), Outcome::Passed);
        let wrong = heard(&["begun", "at a", "failed: a: wrong"], false);
        assert_eq!(wrong.outcome(ok, "noise"), failed("a: wrong"));
        let hangs = heard(&["begun", "at a", "at b"], true);
        assert!(hangs.hangs);
        assert_eq!(hangs.outcome(ok, ""), failed("b: no end in 60 s"));
        let faults = heard(&["begun", "at a"], false);
        let fault = faults.outcome("exit status: 1", "one\nillegal access\n\n");
        assert_eq!(fault, failed("a: exit status: 1: illegal access"));
        let killed = heard(&["begun", "at a"], false).outcome("signal: 11 (SIGSEGV)", "");
        assert_eq!(killed, failed("a: signal: 11 (SIGSEGV)"));
        let closed = heard(&[], false);
        assert_eq!(closed.outcome(ok, "no device"), Outcome::NotTried);
        // A program that knows nothing of trials answers with something else.
        let other = heard(&["usage: run"], false);
        assert_eq!(other.outcome(ok, ""), Outcome::NotTried);
    }
}
