//! Tokens in memory and in the cache.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use indexmap::IndexMap;

use super::*;
use crate::config::types::{PromptConfig, TaskKind};
use crate::data::store::Samples;
use crate::data::tokenizer::tests::write_words;
use crate::data::{Answers, Tokenizer, read_examples};

struct Fixture {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
    data: DataConfig,
}

/// Three good rows and a bad one.
const ROWS: &str = "question,answer\nq1 q2,a1\nq3,\nq4 q1,a2\nq2 q2 q2,a1\n";

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_words(folder.path(), true, &["q1", "q2", "q3", "q4", "a1", "a2"]);
        let config = folder.path().join("tokenizer_config.json");
        std::fs::write(config, r#"{"eos_token": "</s>"}"#).unwrap();
        std::fs::write(folder.path().join("d.csv"), ROWS).unwrap();
        Self {
            tokenizer: Tokenizer::load(folder.path()).unwrap(),
            folder,
            data: DataConfig {
                path: None,
                test_path: None,
                format: None,
                on_error: OnError::Skip,
                cache: "off".to_string(),
                columns: IndexMap::new(),
            },
        }
    }

    fn encoder(&self) -> Encoder<'_> {
        let prompt = PromptConfig {
            template: "{question} ".to_string(),
            answer: "{answer}".to_string(),
            ..PromptConfig::default()
        };
        Encoder::new(&prompt, TaskKind::Saq, Some(&self.tokenizer), 64).unwrap()
    }

    fn cache(&self, settings: &str) -> Cache {
        Cache {
            dir: self.folder.path().join("cache/tokens"),
            settings: settings.to_string(),
            optional: false,
        }
    }

    fn run(&self, cache: Option<&Cache>) -> Result<Tokenised, TokeniseError> {
        let encoder = self.encoder();
        let source = Source {
            path: &self.folder.path().join("d.csv"),
            data: &self.data,
            want: Want::new(TaskKind::Saq, Answers::Required),
            encoder: &encoder,
        };
        source.tokenise(cache)
    }

    fn kept(&self) -> Vec<PathBuf> {
        let dir = std::fs::read_dir(self.cache("").dir).unwrap();
        let mut kept: Vec<_> = dir.map(|e| e.unwrap().path()).collect();
        kept.sort();
        kept
    }
}

#[test]
fn the_samples_are_those_of_encoding_the_whole_file_at_once() {
    let f = Fixture::new();
    let path = f.folder.path().join("d.csv");
    let want = Want::new(TaskKind::Saq, Answers::Required);
    let read = read_examples(&path, &f.data, want).unwrap();
    let whole = f.encoder().encode(&read.examples, &path).unwrap();
    let cache = f.cache("");
    for (cache, cached) in [(None, false), (Some(&cache), false), (Some(&cache), true)] {
        let run = f.run(cache).unwrap();
        assert_eq!(run.cached, cached);
        let found: Vec<_> = (0..3).map(|i| run.store.get(i).into_owned()).collect();
        assert_eq!((run.store.len(), found), (3, whole.samples.clone()));
        assert_eq!(run.store.said.report, whole.report);
        assert_eq!(run.store.said.examples, 3);
        let skipped = ":3: answer is empty: fill it or remove the row";
        assert_eq!(run.store.said.skipped, [skipped]);
    }
    assert_eq!(f.kept().len(), 1);
}

#[test]
fn a_row_that_cannot_be_encoded_can_be_skipped() {
    let mut f = Fixture::new();
    let path = f.folder.path().join("d.jsonl");
    let row = |more: &str| format!("{{\"question\": \"q1\", \"answer\": \"a1\"{more}}}\n");
    let prompt = PromptConfig {
        template: "{topic} {question}".to_string(),
        answer: " {answer}".to_string(),
        ..PromptConfig::default()
    };
    let run = |f: &Fixture, rows: &[&str]| {
        std::fs::write(&path, rows.iter().map(|more| row(more)).collect::<String>()).unwrap();
        let encoder = Encoder::new(&prompt, TaskKind::Saq, Some(&f.tokenizer), 64).unwrap();
        let source = Source {
            path: &path,
            data: &f.data,
            want: Want::new(TaskKind::Saq, Answers::Required),
            encoder: &encoder,
        };
        source
            .tokenise(None)
            .map(|t| t.store)
            .map_err(|e| e.to_string())
    };
    let topic = ", \"topic\": \"q2\"";
    let store = run(&f, &[topic, "", topic]).unwrap();
    assert_eq!((store.len(), store.said.examples), (2, 2));
    let said = &store.said.skipped;
    assert!(
        said.len() == 1 && said[0].starts_with(":2: prompt.template: no field"),
        "{said:?}"
    );
    // With none left the first one's error says why.
    assert!(run(&f, &["", ""]).is_err_and(|e| e.contains("d.jsonl:1: prompt.template")));
    f.data.on_error = OnError::Fail;
    assert!(run(&f, &[topic, ""]).is_err_and(|e| e.contains("d.jsonl:2: prompt.template")));
}

#[test]
fn what_the_samples_depend_on_names_them() {
    let mut f = Fixture::new();
    let cached = |f: &Fixture, settings: &str| f.run(Some(&f.cache(settings))).unwrap().cached;
    assert!(!cached(&f, "a"));
    assert!(cached(&f, "a"));
    assert!(!cached(&f, "b"));
    let path = f.folder.path().join("d.csv");
    std::fs::write(&path, ROWS.replace("q4", "q3")).unwrap();
    assert!(!cached(&f, "a"));
    std::fs::write(&path, ROWS).unwrap();
    assert!(cached(&f, "a"), "by content, not by time");
    f.data.columns.insert("id".to_string(), None);
    assert!(!cached(&f, "a"));
    assert_eq!(f.kept().len(), 4);
}

#[test]
fn a_damaged_file_is_made_again() {
    let f = Fixture::new();
    let cache = f.cache("");
    f.run(Some(&cache)).unwrap();
    let path = &f.kept()[0];
    let whole = std::fs::read(path).unwrap();
    std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
    let again = f.run(Some(&cache)).unwrap();
    assert!(!again.cached);
    let said = format!(
        "{}: its checksum does not match; made again",
        path.display()
    );
    assert_eq!(again.notes[0], said);
    assert_eq!(std::fs::read(path).unwrap(), whole);
    assert!(f.run(Some(&cache)).unwrap().cached);
}

#[test]
fn an_error_leaves_nothing_behind() {
    let mut f = Fixture::new();
    f.data.on_error = OnError::Fail;
    assert!(f.run(Some(&f.cache(""))).is_err());
    assert!(f.kept().is_empty());
    // A file where the directory should be.
    std::fs::write(f.folder.path().join("file"), "").unwrap();
    f.data.on_error = OnError::Skip;
    let mut cache = f.cache("");
    cache.dir = f.folder.path().join("file/tokens");
    let error = f.run(Some(&cache)).err().unwrap().to_string();
    assert!(
        error.contains("set data.cache to another directory"),
        "{error}"
    );
    cache.optional = true;
    let run = f.run(Some(&cache)).unwrap();
    assert!(run.notes[0].starts_with("tokens are kept in memory"));
    assert_eq!(run.store.len(), 3);
}

#[test]
fn a_full_disk_is_done_without() {
    const ALONE: &str = "KILN_TEST_FULL_DISK";
    if std::env::var_os(ALONE).is_none() {
        // The limit below is that of a whole process.
        let run = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "data::tokenise::tests::a_full_disk_is_done_without",
            ])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let f = Fixture::new();
    // As good as a full disk: a file of more than 100 bytes cannot be written.
    let limit = libc::rlimit {
        rlim_cur: 100,
        rlim_max: 100,
    };
    // SAFETY: this process runs this test alone, and `limit` outlives the call.
    let limited = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit)
    };
    assert_eq!(limited, 0);
    let mut cache = f.cache("");
    let error = f.run(Some(&cache)).err().unwrap().to_string();
    let start = format!("{}: cannot keep tokens there: ", cache.dir.display());
    assert!(
        error.starts_with(&start) && !error.contains("free some space"),
        "{error}"
    );
    cache.optional = true;
    let run = f.run(Some(&cache)).unwrap();
    let start = format!("tokens are kept in memory: {}: ", cache.dir.display());
    assert!(run.notes[0].starts_with(&start), "{:?}", run.notes);
    assert_eq!((run.cached, run.store.len()), (false, 3));
    assert!(f.kept().is_empty());
}

#[test]
fn only_what_is_full_asks_for_space() {
    for (code, asks) in [
        (libc::ENOSPC, true),
        (libc::EDQUOT, true),
        (libc::EPERM, false),
    ] {
        let error = failed(Path::new("/c"), io::Error::from_raw_os_error(code)).to_string();
        assert_eq!(
            error.contains(": free some space, or set "),
            asks,
            "{error}"
        );
        assert_eq!(error.contains(": set data.cache to "), !asks, "{error}");
    }
}

#[test]
fn without_its_name_a_file_is_used_all_the_same() {
    let f = Fixture::new();
    let cache = f.cache("");
    f.run(Some(&cache)).unwrap();
    let path = f.kept().remove(0);
    std::fs::remove_file(&path).unwrap();
    // Nothing can be renamed to the name of a directory that is not empty.
    std::fs::create_dir_all(path.join("full")).unwrap();
    let run = f.run(Some(&cache)).unwrap();
    let last = run.notes.last().unwrap();
    assert!(
        last.starts_with(&format!("{}: ", path.display())) && last.ends_with("tokenise again"),
        "{last}"
    );
    assert_eq!((run.cached, run.store.len()), (false, 3));
    assert_eq!(*run.store.get(0), *f.run(None).unwrap().store.get(0));
    assert_eq!(f.kept(), [path]);
}

#[test]
fn temporary_files_of_the_dead_go_and_files_have_the_usual_mode() {
    let f = Fixture::new();
    let cache = f.cache("");
    let at = |name: &str| cache.dir.join(name);
    std::fs::create_dir_all(&cache.dir).unwrap();
    for name in [".old.tokens.tmp-99999999-0", ".theirs.tmp-99999999-0"] {
        std::fs::write(at(name), "torn").unwrap();
    }
    let living = Staged::file(&at("new.tokens")).unwrap();
    f.run(Some(&cache)).unwrap();
    let mut kept = f.kept();
    let made = kept.pop().unwrap();
    assert_eq!(
        kept,
        [living.path().to_path_buf(), at(".theirs.tmp-99999999-0")]
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&made), mode(&f.folder.path().join("d.csv")));
}

#[test]
fn a_pipe_is_read_once() {
    let f = Fixture::new();
    let path = f.folder.path().join("d.csv");
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(ROWS.as_bytes()).unwrap();
    drop(writer);
    std::fs::remove_file(&path).unwrap();
    symlink(format!("/dev/fd/{}", reader.as_raw_fd()), &path).unwrap();
    let run = f.run(Some(&f.cache(""))).unwrap();
    assert_eq!((run.cached, run.store.len()), (false, 3));
    let note = format!(
        "tokens are kept in memory: {} is not a regular file",
        path.display()
    );
    assert_eq!(run.notes, [note]);
}
