//! `--info`: the search path, the defaults lists and the config, laid out as Hydra
//! lays them out.

use std::fmt::Write;

use clap::ValueEnum;

use crate::compose::{DefaultsTree, Listed, Request, compose, full_search_path, outline, to_yaml};

use super::error::Error;
use super::output;

/// What `--info` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Info {
    /// All of the below, and the version
    All,
    /// Search path, defaults and the composed config
    Config,
    /// The configs that are merged, in order
    Defaults,
    /// The same as the tree that they form
    DefaultsTree,
    /// Where configs are looked for
    Searchpath,
}

/// Prints what is known, part by part: a config that does not compose still shows
/// its search path and its defaults.
///
/// # Errors
/// The first part that fails.
pub(super) fn print(info: Info, request: &Request) -> Result<(), Error> {
    let whole = matches!(info, Info::All | Info::Config);
    if info == Info::All {
        output::print(&heading(
            &format!("Kiln {}, composes as Hydra 1.3", env!("CARGO_PKG_VERSION")),
            "=",
        ))?;
    }
    if whole || info == Info::Searchpath {
        output::print(&search_path(request)?)?;
    }
    if info == Info::Searchpath {
        return Ok(());
    }
    let outline = outline(request)?;
    for warning in &outline.warnings {
        output::print_error(&format!("warning: {warning}\n"));
    }
    if whole || info == Info::DefaultsTree {
        let mut text = format!("\n{}<root>:\n", heading("Defaults Tree", "*"));
        for root in &outline.tree {
            branch(root, 1, &mut text);
        }
        output::print(&text)?;
    }
    if whole || info == Info::Defaults {
        output::print(&defaults(&outline.list))?;
    }
    if whole {
        let composed = compose(request)?;
        let text = format!("\n{}{}", heading("Config", "*"), to_yaml(&composed.job));
        output::print(&text)?;
    }
    Ok(())
}

fn heading(title: &str, line: &str) -> String {
    format!("{title}\n{}\n", line.repeat(title.chars().count()))
}

fn search_path(request: &Request) -> Result<String, Error> {
    let mut rows = vec![["Provider".to_string(), "Search path".to_string()]];
    for source in full_search_path(request)? {
        let (scheme, path) = source.location();
        rows.push([source.provider, format!("{scheme}://{path}")]);
    }
    // The last entry of Hydra's own list: types declared in code.
    rows.push(["schema".to_string(), "structured://".to_string()]);
    Ok(format!(
        "\n{}{}",
        heading("Config search path", "*"),
        table(&rows)
    ))
}

fn defaults(list: &[Listed]) -> String {
    let titles = ["Config path", "Package", "_self_", "Parent"];
    let mut rows = vec![titles.map(str::to_string)];
    for one in list {
        rows.push([
            one.config_path.clone(),
            one.package.clone(),
            if one.own_body { "True" } else { "False" }.to_string(),
            one.parent.clone().unwrap_or_else(|| "<root>".to_string()),
        ]);
    }
    format!("\n{}{}", heading("Defaults List", "*"), table(&rows))
}

fn branch(tree: &DefaultsTree, depth: usize, text: &mut String) {
    let end = if tree.children.is_empty() { "" } else { ":" };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}{}{end}", "  ".repeat(depth), tree.name);
    for child in &tree.children {
        branch(child, depth + 1, text);
    }
}

/// Rows between lines; the first row is the head.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        // A formatted width is no longer than this.
        .map(|widest| widest.unwrap_or_default().min(u16::MAX.into()))
        .collect();
    // Each column has a space on both sides and a bar before it.
    let line = "-".repeat(widths.iter().map(|width| width + 3).sum::<usize>() + 1);
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if index == 0 {
            let _ = writeln!(text, "{line}");
        }
    }
    let _ = writeln!(text, "{line}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let row = |a: &str, b: &str| [a.to_string(), b.to_string()];
        assert_eq!(
            table(&[row("a", "path"), row("long", "é")]),
            "| a    | path |\n---------------\n| long | é    |\n---------------\n"
        );
    }
}
