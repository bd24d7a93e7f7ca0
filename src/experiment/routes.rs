//! Which task each question of a file belongs to, with that task's prompt and adapter.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::adapter::adapter_or_base;
use super::error::Error;
use super::setup::{QuestionFile, all_questions};
use crate::compose::{Request, options};
use crate::config::types::{Command, Config, PromptConfig, TaskKind};
use crate::config::{Job, JobError, key_called};
use crate::data::{Answers, Example, Tasks, Template, Want};
use crate::evaluate::Reader;

/// The questions of one task.
pub struct Route {
    /// The run's config with the prompt of this task.
    pub config: Config,
    /// None: the base alone.
    pub adapter: Option<PathBuf>,
    pub file: QuestionFile,
    /// Where each question stands among all of them, from 0.
    pub places: Vec<usize>,
}

/// The questions at `path`, by task, tasks in the order in which they come up. With
/// `adapter` set it answers all of them, each by the prompt of its kind; a task of short
/// answers then takes questions with options too. With `base` none gets an adapter.
///
/// # Errors
/// The file cannot be read, or a task that comes up has no adapter.
pub fn routes(job: &Job, path: &Path, base: bool) -> Result<Vec<Route>, Error> {
    let config = &job.config;
    let want = Want::new(config.task.kind, Answers::Optional);
    let takes_all = config.task.kind == TaskKind::Saq;
    if config.adapter.is_some() && takes_all || shows_options(config) {
        let file = all_questions(path, config, want)?;
        return Ok(vec![Route {
            adapter: adapter_or_base(config, base)?,
            places: (0..file.examples.len()).collect(),
            config: config.clone(),
            file,
        }]);
    }
    let want = Want {
        by_row: true,
        // A task that is named asks for its adapter, of which there is one for all.
        tasks: match config.adapter {
            Some(_) => None,
            None => Some(Arc::new(tasks(job))),
        },
        ..want
    };
    let mixed = all_questions(path, config, want)?;
    let mut skipped = Some(mixed.skipped);
    let mut routes: Vec<Route> = Vec::new();
    // The task of each route, by its option of the group `task`.
    let mut known: Vec<Option<String>> = Vec::new();
    for (place, example) in mixed.examples.into_iter().enumerate() {
        let option = option_of(job, &example);
        let route = match known.iter().position(|other| *other == option) {
            Some(at) => &mut routes[at],
            None => {
                let config = match &option {
                    None => config.clone(),
                    Some(option) => with_task(job, option)?,
                };
                known.push(option);
                routes.push(Route {
                    adapter: adapter_or_base(&config, base)?,
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

/// The option of the group `task` that a question belongs to; `None`: the run's own task.
fn option_of(job: &Job, example: &Example) -> Option<String> {
    let own = job.config.task.kind;
    match (&example.task, example.kind.unwrap_or(own)) {
        (Some(name), _) if is_own(job, name) => None,
        (Some(name), _) => Some(name.to_string()),
        (None, kind) if kind == own => None,
        (None, TaskKind::Mcq) => Some("mcq".to_string()),
        (None, TaskKind::Saq | TaskKind::Text) => Some("saq".to_string()),
    }
}

/// Whether this is the run's task: by its name, or by the option that was chosen for it.
fn is_own(job: &Job, name: &str) -> bool {
    let chosen = job.composed.choices.get("task").and_then(Option::as_deref);
    name == job.config.task.name || chosen == Some(name)
}

/// The tasks that a row may name: the run's own and the options of the group `task`.
fn tasks(job: &Job) -> Tasks {
    let own = &job.config.task;
    let mut tasks = Tasks::from([(Arc::from(own.name.as_str()), Ok(own.kind))]);
    for option in options(&job.composed.sources, "task") {
        let kind = match is_own(job, &option) {
            true => Ok(own.kind),
            false => match load(job, &option) {
                Err(error) => Err(error.to_string()),
                Ok(other) => match other.config.task.kind {
                    TaskKind::Text => Err("its task.type is text, without questions".to_string()),
                    kind => Ok(kind),
                },
            },
        };
        tasks.entry(Arc::from(option)).or_insert(kind);
    }
    tasks
}

/// What the user's configs say with this option of the group `task`.
fn load(job: &Job, option: &str) -> Result<Job, JobError> {
    let sources = job.composed.sources.iter();
    let of_user = |provider: &str| ["main", "experiments", "command-line"].contains(&provider);
    Job::load(
        Command::Infer,
        &Request {
            sources: sources.filter(|s| of_user(&s.provider)).cloned().collect(),
            config_name: Some("config".to_string()),
            overrides: vec![format!("task={option}")],
            job_name: "run".to_string(),
            closed: Some(key_called),
            ..Request::default()
        },
    )
}

/// The config for questions of another task than the run's: that task's name and
/// prompt, as its option of the group `task` has them, and all else as it is.
fn with_task(job: &Job, option: &str) -> Result<Config, Error> {
    let other = load(job, option)?;
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
