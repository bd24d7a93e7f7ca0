//! Answers on the terminal while they are generated (`inference.stream`).

use std::collections::{HashMap, VecDeque};

use super::log::Console;
use crate::evaluate::Reader;

/// Shows one answer after another, in the order of the questions, though several
/// grow at once: the first that is not whole is printed piece by piece, what the
/// others have so far waits.
pub struct Live<'a> {
    console: &'a Console,
    attempt: usize,
    /// Questions whose answers are not yet shown whole.
    order: VecDeque<usize>,
    /// Their answers so far, and whether they are whole.
    answers: HashMap<usize, (String, bool)>,
    /// What is on the terminal of the first of them, its label included.
    shown: String,
}

impl<'a> Live<'a> {
    pub fn new(console: &'a Console) -> Self {
        Self {
            console,
            attempt: 0,
            order: VecDeque::new(),
            answers: HashMap::new(),
            shown: String::new(),
        }
    }

    fn label(&self, question: usize) -> String {
        match self.attempt {
            0 => format!("{}: ", question + 1),
            again => format!("{}, attempt {}: ", question + 1, again + 1),
        }
    }

    fn show(&mut self, line: &str) {
        match line.strip_prefix(&self.shown[..]) {
            Some(more) => self.console.piece(more),
            // A later token changed how an earlier one reads.
            None => self.console.piece(&format!("\n{line}")),
        }
        self.shown = line.to_string();
    }
}

impl Reader for Live<'_> {
    fn attempt(&mut self, questions: &[usize], attempt: usize) {
        self.attempt = attempt;
        self.order = questions.iter().copied().collect();
        self.answers.clear();
        self.shown.clear();
    }

    fn answer(&mut self, question: usize, text: &str, done: bool) {
        self.answers.insert(question, (text.to_string(), done));
        while let Some(&first) = self.order.front() {
            let Some((text, done)) = self.answers.get(&first) else {
                return;
            };
            let (line, done) = (self.label(first) + text, *done);
            self.show(&line);
            if !done {
                return;
            }
            self.console.piece("\n");
            self.console.log_only(&line);
            self.shown.clear();
            self.answers.remove(&first);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn answers_come_in_order_though_they_grow_together() {
        let sink = Sink::default();
        let console = Console::with_sinks(Box::new(sink.clone()), Box::new(std::io::sink()), false);
        let text = || String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let mut live = Live::new(&console);
        live.attempt(&[0, 1, 2], 0);
        live.answer(1, "Os", false);
        assert_eq!(text(), "");
        live.answer(0, "Ro", false);
        live.answer(1, "Oslo", true);
        live.answer(0, "Rome", false);
        assert_eq!(text(), "1: Rome");
        live.answer(0, "Rome", true);
        assert_eq!(text(), "1: Rome\n2: Oslo\n");
        live.answer(2, "", true);
        live.attempt(&[2], 1);
        live.answer(2, "Ky", false);
        live.answer(2, "Kiev", true);
        assert_eq!(
            text(),
            "1: Rome\n2: Oslo\n3: \n3, attempt 2: Ky\n3, attempt 2: Kiev\n"
        );
    }
}
