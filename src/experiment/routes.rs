//! Which task each question of a file belongs to, with that task's prompt and adapter.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::infer::adapter_dir;
use super::setup::{QuestionFile, all_questions};
use crate::compose::Request;
use crate::config::Job;
use crate::config::types::{Command, Config, PromptConfig, TaskKind};
use crate::data::{Answers, Template, Want};
use crate::evaluate::Reader;

/// The questions of one task.
pub struct Route {
    /// The run's config with the prompt of this task.
    pub config: Config,
    pub adapter: PathBuf,
    pub file: QuestionFile,
    /// Where each question stands among all of them, from 0.
    pub places: Vec<usize>,
}

/// The questions at `path`, by task, tasks in the order in which they come up. With
/// `adapter` set all of them belong to the config's task.
///
/// # Errors
/// The file cannot be read, or a task that comes up has no adapter.
pub fn routes(job: &Job, path: &Path) -> Result<Vec<Route>, Error> {
    let config = &job.config;
    let want = Want::new(config.task.kind, Answers::Optional);
    if config.adapter.is_some() || shows_options(config) {
        let file = all_questions(path, config, want)?;
        return Ok(vec![Route {
            adapter: adapter_dir(config)?,
            places: (0..file.examples.len()).collect(),
            config: config.clone(),
            file,
        }]);
    }
    let want = Want {
        by_row: true,
        ..want
    };
    let mixed = all_questions(path, config, want)?;
    let mut skipped = Some(mixed.skipped);
    let mut routes: Vec<Route> = Vec::new();
    for (place, example) in mixed.examples.into_iter().enumerate() {
        let kind = example.kind.unwrap_or(config.task.kind);
        let route = match routes.iter().position(|r| r.config.task.kind == kind) {
            Some(at) => &mut routes[at],
            None => {
                let config = match kind == config.task.kind {
                    true => config.clone(),
                    false => with_task(job, kind)?,
                };
                routes.push(Route {
                    adapter: adapter_dir(&config)?,
                    config,
                    file: QuestionFile {
                        path: mixed.path.clone(),
                        examples: Vec::new(),
                        left_out: 0,
                        skipped: skipped.take().unwrap_or_default(),
                    },
                    places: Vec::new(),
                });
                let last = routes.len() - 1;
                &mut routes[last]
            }
        };
        route.file.examples.push(example);
        route.places.push(place);
    }
    Ok(routes)
}

/// A short-answer task whose own prompt shows options takes questions that have them.
fn shows_options(config: &Config) -> bool {
    config.task.kind == TaskKind::Saq
        && Template::parse("prompt.template", &config.prompt.template)
            .is_ok_and(|template| template.fields().any(|name| name == "options"))
}

/// The config for questions of another task than the run's: that task's name and
/// prompt, as its option of the group `task` has them, and all else as it is.
fn with_task(job: &Job, kind: TaskKind) -> Result<Config, Error> {
    let option = match kind {
        TaskKind::Mcq => "mcq",
        TaskKind::Saq | TaskKind::Text => "saq",
    };
    let sources = job.composed.sources.iter();
    let of_user = |provider: &str| ["main", "experiments", "command-line"].contains(&provider);
    let other = Job::load(
        Command::Infer,
        &Request {
            sources: sources.filter(|s| of_user(&s.provider)).cloned().collect(),
            config_name: Some("config".to_string()),
            overrides: vec![format!("task={option}")],
            job_name: "run".to_string(),
            closed: true,
            ..Request::default()
        },
    )?;
    let own = job.config.clone();
    Ok(Config {
        task: other.config.task,
        prompt: PromptConfig {
            // Of the model, not of the task.
            chat_template: own.prompt.chat_template,
            chat_template_file: own.prompt.chat_template_file,
            system: own.prompt.system,
            ..other.config.prompt
        },
        ..own
    })
}

/// Shows a reader the questions of a route by their places in the file.
pub struct Placed<'a> {
    pub reader: &'a mut dyn Reader,
    pub places: &'a [usize],
}

impl Reader for Placed<'_> {
    fn attempt(&mut self, questions: &[usize], attempt: usize) {
        let placed: Vec<usize> = questions.iter().map(|&i| self.places[i]).collect();
        self.reader.attempt(&placed, attempt);
    }

    fn answer(&mut self, question: usize, text: &str, done: bool) {
        self.reader.answer(self.places[question], text, done);
    }
}
