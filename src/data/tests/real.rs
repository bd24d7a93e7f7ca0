//! The real sets of the shared folder, where it is present.

use super::*;

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")).join(name);
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn real_mmlu_reads_as_it_is() {
    let Some(folder) = shared("mmlu") else { return };
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let examples = read_examples(&path, &config(None), required(TaskKind::Mcq))
            .unwrap()
            .examples;
        assert!(
            examples
                .iter()
                .all(|e| e.options.len() == 4 && e.answer_index.is_some())
        );
        count += examples.len();
    }
    assert!(count > 500, "{count}");
}

#[test]
fn real_squad_and_sst2_read_as_they_are() {
    if let Some(path) = shared("squad/dev-v1.1-part1.json") {
        let examples = read_examples(&path, &config(None), required(TaskKind::Saq))
            .unwrap()
            .examples;
        assert_eq!(examples.len(), 4961);
        assert_eq!(examples[0].answers, ["Denver Broncos"; 3]);
        assert!(examples.iter().all(|e| e.context.is_some()));
    }
    let mut data = config(None);
    data.columns
        .insert("question".to_string(), Some("sentence".to_string()));
    data.columns
        .insert("answer".to_string(), Some("label".to_string()));
    for (name, rows) in [("sst2/dev.tsv", 872), ("sst2/train-8000.tsv", 8000)] {
        if let Some(path) = shared(name) {
            let examples = read_examples(&path, &data, required(TaskKind::Saq))
                .unwrap()
                .examples;
            assert_eq!(examples.len(), rows);
            assert!(
                examples
                    .iter()
                    .all(|e| matches!(e.answers[0].as_str(), "0" | "1"))
            );
        }
    }
}
