//! The help of job commands: flags from clap, groups from the search path, keys
//! from the table, and the composed config.

use std::fmt::Write;

use clap::CommandFactory;

use crate::compose::{Request, compose, full_search_path, groups, to_yaml};
use crate::config::column_help;

/// Flags, groups and keys of a job, and the config that its overrides compose.
pub(super) fn job(command: &str, request: &Request, resolve: bool) -> String {
    let mut text = flags(command);
    text.push_str(&group_list(request));
    text.push_str("\nConfig keys [default], set with key=value:\n");
    text.push_str(&column_help());
    text.push_str("\nMore on each key: docs/configuration.md\n");
    text.push_str(&config(request, resolve));
    text
}

/// Flags and groups of any tree, and the config.
pub(super) fn tree(command: &str, request: &Request, resolve: bool) -> String {
    format!(
        "{}{}{}",
        flags(command),
        group_list(request),
        config(request, resolve)
    )
}

fn group_list(request: &Request) -> String {
    let sources = full_search_path(request).unwrap_or_else(|_| request.sources.clone());
    let mut groups = groups(&sources);
    // Hydra's own groups are of no use to a beginner.
    groups.retain(|(group, _)| group != "hydra" && !group.starts_with("hydra/"));
    let width = groups
        .iter()
        .map(|(group, _)| group.len())
        .max()
        .unwrap_or(0);
    let mut text = String::from("\nConfig groups, chosen with group=option:\n");
    for (group, options) in groups {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {group:width$}  {}", options.join(", "));
    }
    text
}

/// The config as composed. What is wrong with it is told, but it is no failure:
/// help was asked for.
fn config(request: &Request, resolve: bool) -> String {
    let composed = compose(request).and_then(|composed| {
        if resolve {
            composed.resolved_job()
        } else {
            Ok(composed.job)
        }
    });
    match composed {
        Ok(job) => format!(
            "\nThe config of this command line (--cfg job prints it alone):\n\n{}",
            to_yaml(&job)
        ),
        Err(error) => {
            let first = error.problems.first().map(ToString::to_string);
            format!(
                "\nThis command line makes no config:\n  {}\n",
                first.unwrap_or_default().replace('\n', "\n  ")
            )
        }
    }
}

fn flags(command: &str) -> String {
    let mut cli = super::Cli::command();
    cli.build();
    cli.find_subcommand_mut(command)
        .map(|sub| sub.render_help().to_string())
        .unwrap_or_default()
}
