//! The table of keys as text: for `--help` and for docs/configuration.md.

use std::fmt::Write;

use super::keys::{SECTIONS, elsewhere};

/// The keys with their defaults in columns, for a terminal.
pub fn column_help() -> String {
    let width = SECTIONS
        .iter()
        .flat_map(|section| section.keys)
        .map(|key| key.name.len())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for section in SECTIONS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{}:", section.title);
        for key in section.keys {
            let _ = writeln!(out, "  {:width$}  {} [{}]", key.name, key.help, key.default);
        }
    }
    out
}

/// The reference part of docs/configuration.md.
pub fn markdown() -> String {
    let mut out = String::new();
    for section in SECTIONS {
        let _ = writeln!(out, "### {}\n\n{}", section.title, section.about);
        for key in section.keys {
            let _ = writeln!(
                out,
                "\n**`{}`**: {}. Default `{}`; {}.",
                key.name,
                key.help,
                key.default,
                key.type_text()
            );
            if !key.about.is_empty() {
                let _ = writeln!(out, "\n{}", key.about);
            }
            let names = elsewhere::names(key.name);
            if !names.is_empty() {
                let _ = writeln!(out, "\nElsewhere `{}`.", names.join("`, `"));
            }
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn both_texts_name_every_key() {
        let (columns, page) = (column_help(), markdown());
        for key in keys::all() {
            assert!(
                columns.contains(&format!("  {} ", key.name)),
                "{}",
                key.name
            );
            assert!(
                page.contains(&format!("**`{}`**", key.name)),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn a_line_of_help_fits_a_wide_terminal() {
        for line in column_help().lines() {
            assert!(line.len() <= 160, "{line}");
        }
    }
}
