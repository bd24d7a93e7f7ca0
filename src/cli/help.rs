//! The help of job commands: flags from clap, groups from the search path, keys
//! from the table.

use std::fmt::Write;

use clap::CommandFactory;

use crate::compose::{Source, groups};
use crate::config::column_help;

/// Flags, groups and keys.
pub(super) fn job(command: &str, sources: &[Source]) -> String {
    let mut text = groups_only(command, sources);
    text.push_str("\nConfig keys [default], set with key=value:\n");
    text.push_str(&column_help());
    text.push_str("\nMore on each key: docs/configuration.md\n");
    text
}

/// Flags and groups.
pub(super) fn groups_only(command: &str, sources: &[Source]) -> String {
    let mut text = flags(command);
    let mut groups = groups(sources);
    // Hydra's own groups are of no use to a beginner.
    groups.retain(|(group, _)| group != "hydra" && !group.starts_with("hydra/"));
    let width = groups
        .iter()
        .map(|(group, _)| group.len())
        .max()
        .unwrap_or(0);
    text.push_str("\nConfig groups, chosen with group=option:\n");
    for (group, options) in groups {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {group:width$}  {}", options.join(", "));
    }
    text
}

fn flags(command: &str) -> String {
    let mut cli = super::Cli::command();
    cli.build();
    cli.find_subcommand_mut(command)
        .map(|sub| sub.render_help().to_string())
        .unwrap_or_default()
}
