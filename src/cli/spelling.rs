//! How flags may be written that clap would read otherwise.

use std::ffi::OsString;

/// Hydra has flags of one dash and two letters, which getopt-like parsers read as
/// two flags. They become their long forms here. `--info` does not take an
/// override for its value.
pub(super) fn spell_out(argv: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut flags = true;
    let mut argv = argv.into_iter().peekable();
    let mut spelt = Vec::new();
    while let Some(arg) = argv.next() {
        flags &= arg != "--";
        spelt.push(match arg.to_str() {
            Some("-cn") if flags => "--config-name".into(),
            Some("-cd") if flags => "--config-dir".into(),
            Some("-cp") if flags => "--config-path".into(),
            Some("-sc") if flags => "--shell-completion".into(),
            Some("-i" | "--info") if flags => {
                let next = argv.peek().map(|next| next.to_string_lossy());
                let has_value = next
                    .is_some_and(|next| !next.contains('=') && !next.starts_with(['-', '~', '+']));
                if has_value { "--info" } else { "--info=all" }.into()
            }
            _ => arg,
        });
    }
    spelt
}
