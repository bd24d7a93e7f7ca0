//! Rows that cannot be used: named, or left out and counted.

use super::*;

#[test]
fn a_line_without_end_is_counted_and_a_quote_without_end_is_found() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let long = "x".repeat(3_000_000);
    let text = format!("{{\"question\": \"{long}\"}}\n{{\"question\": \"Q\", \"answer\": \"a\"}}");
    let read = read_examples(&f.put("a.jsonl", text), &skip, required(TaskKind::Saq)).unwrap();
    assert_eq!(read.examples[0].row, 2);
    let said = read.skipped[0].to_string();
    assert!(
        said.contains("a.jsonl:1: the row has 3000016 bytes"),
        "{said}"
    );
    // More than is ever held: an error long before the end of the file.
    let mut endless = "question,answer\nQ,a\nQ,\"a\n".to_string();
    endless.push_str(&"Q,a\n".repeat(20 << 20));
    let message = f.message("b.csv", endless, TaskKind::Saq);
    assert!(
        message.starts_with("b.csv:3: a quote that opens in this row is never closed"),
        "{message}"
    );
}

#[test]
fn a_nul_byte_does_not_end_a_table() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let rows = |name: &str, text: &str, kind| {
        let read = read_examples(&f.put(name, text), &skip, required(kind)).unwrap();
        let skipped = read.skipped.iter().map(|e| e.to_string());
        let skipped: Vec<String> = skipped.collect();
        let bad = |line: usize| {
            let said = format!("{name}:{line}: the row is a NUL byte");
            skipped.iter().any(|s| s.contains(&said))
        };
        let rows: Vec<usize> = read.examples.iter().map(|e| e.row).collect();
        (rows, (1..9).filter(|&line| bad(line)).collect::<Vec<_>>())
    };
    // Behind what is looked at to tell the format.
    let long = format!("Q,{}\n", "a ".repeat(150_000));
    for (end, others) in [
        ("", vec![]),
        ("\n", vec![]),
        ("\nQ,a", vec![4]),
        ("\r\nQ,a\n", vec![4]),
    ] {
        let text = format!("question,answer\n{long}\0{end}");
        let want = [vec![2], others].concat();
        assert_eq!(rows("a.csv", &text, TaskKind::Saq), (want.clone(), vec![3]));
        let tabs = text.replace(',', "\t");
        assert_eq!(rows("a.tsv", &tabs, TaskKind::Saq), (want, vec![3]));
    }
    let text = format!("text\n{}\n\n\0\nmore\n", "a ".repeat(150_000));
    assert_eq!(rows("b.csv", &text, TaskKind::Text), (vec![2, 5], vec![4]));
    // A field that ends as a file does.
    let text = format!("question,answer\n{long}Q,\"a\n\0\n\"\nQ,a");
    assert_eq!(rows("c.csv", &text, TaskKind::Saq), (vec![2, 3, 6], vec![]));
}

#[test]
fn a_bad_line_costs_its_paragraph_and_no_other() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let read = |text: &[u8]| {
        let read = read_examples(&f.put("a.txt", text), &skip, required(TaskKind::Text)).unwrap();
        let kept = read.examples.into_iter().map(|e| (e.row, e.text.unwrap()));
        let said = read.skipped.iter().map(|e| e.to_string());
        (kept.collect::<Vec<_>>(), said.collect::<Vec<_>>())
    };
    // The bad bytes in the first line, between good ones, and twice.
    let bad = b"a\nb\n\n\xFFc\nd\n\ne\nf\xFF\ng\n\nh\xFF\ni\xFF\n\nj\nk\n";
    let (kept, said) = read(bad);
    assert_eq!(kept, [(1, "a\nb".into()), (14, "j\nk".into())]);
    assert_eq!(said.len(), 3);
    for (said, line) in said.iter().zip([4, 8, 11]) {
        let want = format!("a.txt:{line}: this line of a paragraph is not valid UTF-8");
        assert!(said.contains(&want), "{said}");
    }
    let (kept, said) = read(b"a\n\xFFb\nc\n");
    assert_eq!(kept, [(1, "a".into()), (3, "c".into())]);
    assert!(
        said[0].contains("a.txt:2: the line is not valid UTF-8"),
        "{said:?}"
    );
}

/// Each bad row with what is said of it.
const BAD_ROWS: [(&str, &str, &str); 8] = [
    ("a.csv", "x,Q?", "2 fields where the header has 3"),
    (
        "a.csv",
        "x,\"Q\"?,a",
        "text follows the quote that ends a field",
    ),
    ("a.csv", "x,Q?,", "answer is empty"),
    ("a.csv", "x,,a", "question is empty"),
    ("a.csv", "1,Q?,a", "id '1' was used before, on line 2"),
    (
        "a.jsonl",
        "{\"id\": 7, \"question\": \"Q?\"}",
        "no column 'answer'",
    ),
    ("a.jsonl", "{\"id\": 7, \"question\": ", "bad JSON"),
    ("a.jsonl", "[1]", "bad JSON"),
];

#[test]
fn a_bad_row_is_named_and_can_be_skipped() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let want = required(TaskKind::Saq);
    for (name, row, what) in BAD_ROWS {
        let (before, after) = match name {
            "a.csv" => ("id,question,answer\n1,\"a \"\"b\"\"\",x\n", "\n2,Q,y\n"),
            _ => (
                "\n{\"id\": 1, \"question\": \"a \\\"b\\\"\", \"answer\": \"x\"}\n",
                "\n{\"id\": 2, \"question\": \"Q\", \"answer\": \"y\"}\n",
            ),
        };
        let text = format!("{before}{row}{after}");
        let message = f.message(name, &text, TaskKind::Saq);
        assert!(
            message.starts_with(&format!("{name}:3: {what}")),
            "{message}"
        );
        let read = read_examples(&f.put(name, &text), &skip, want.clone()).unwrap();
        let kept: Vec<_> = read.examples.iter().map(|e| (&e.id[..], e.row)).collect();
        assert_eq!(kept, [("1", 2), ("2", 4)], "{row}");
        assert_eq!(read.examples[0].question.as_deref(), Some("a \"b\""));
        assert_eq!(read.skipped.len(), 1, "{row}");
        assert!(read.skipped[0].to_string().ends_with(&message), "{row}");
    }
}

#[test]
fn bytes_and_options_are_skipped_alike_and_ids_do_not_move() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let long = "x".repeat(1_000_000);
    let mut csv = b"\xEF\xBB\xBFquestion,options,answer\nQ,x | y,A\n\xFF,x | y,A\n".to_vec();
    csv.extend(format!("Q,x | y,z\n{long},x | y,A\nQ,x,A\nQ,x | y,B\n").bytes());
    let read = read_examples(&f.put("a.csv", &csv), &skip, required(TaskKind::Mcq)).unwrap();
    let kept: Vec<_> = read.examples.iter().map(|e| (&e.id[..], e.row)).collect();
    assert_eq!(kept, [("1", 2), ("6", 7)]);
    let said: Vec<String> = read.skipped.iter().map(DataError::to_string).collect();
    for (line, (said, part)) in said
        .iter()
        .zip([
            "column 'question' is not valid UTF-8",
            "answer 'z' matches no option",
            "the row has 1000006 bytes",
            "cannot split the options 'x'",
        ])
        .enumerate()
    {
        assert!(
            said.contains(&format!("a.csv:{}: {part}", line + 3)),
            "{said}"
        );
    }
    assert_eq!(said.len(), 4);
    let line = format!("{{\"question\": \"{long}\", \"answer\": \"a\"}}\n");
    let message = f.message("a.jsonl", line, TaskKind::Saq);
    assert!(
        message.starts_with("a.jsonl:1: the row has 10000"),
        "{message}"
    );
    // A document may be long.
    assert_eq!(f.read("a.txt", &long, TaskKind::Text).unwrap().len(), 1);
}

#[test]
fn what_swallows_the_rest_and_what_leaves_nothing_cannot_be_skipped() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let want = required(TaskKind::Saq);
    let open = f.put("a.csv", "question,answer\nQ,a\nQ,\"a\nQ,a\n");
    let error = read_examples(&open, &skip, want.clone())
        .unwrap_err()
        .to_string();
    assert!(error.contains("a.csv:3: a quote that opens"), "{error}");
    let none = f.put("b.csv", "question,answer\nQ,\nQ,\n");
    let error = read_examples(&none, &skip, want.clone())
        .unwrap_err()
        .to_string();
    assert!(error.contains("b.csv:2: answer is empty"), "{error}");
    assert!(error.contains("none of the 2 rows can be used"), "{error}");
    let squad = r#"{"data": [{"paragraphs": [{"context": "c", "qas": [
        {"id": "a", "question": "Q", "answers": []},
        {"id": "b", "question": "Q", "answers": [{"text": "t"}]}]}]}]}"#;
    let read = read_examples(&f.put("a.json", squad), &skip, want.clone()).unwrap();
    assert_eq!((read.examples.len(), read.skipped.len()), (1, 1));
    let header = f.put("c.csv", "question,reply\nQ,a\n");
    assert!(read_examples(&header, &skip, want).is_err());
}

#[test]
fn bad_rows_of_a_list_of_conversations_are_named_and_can_be_skipped() {
    let f = Folder::new();
    let talk = |id: &str| {
        format!(
            r#"{{"id": "{id}", "messages": [{{"role": "user", "content": "a"}}, {{"role": "assistant", "content": "b, ]"}}]}}"#
        )
    };
    let mut list = format!("\u{feff}[{}, 7, ", talk("x")).into_bytes();
    list.extend(b"{\"messages\": [{\"role\": \"assistant\", \"content\": \"\xFF\"}]},");
    list.extend(format!("{}, {{\"messages\": []}}, {}\n]\n", talk("x"), talk("y")).bytes());
    let path = f.put("a.json", &list);
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let read = read_examples(&path, &skip, required(TaskKind::Text)).unwrap();
    let kept: Vec<_> = read.examples.iter().map(|e| (&e.id[..], e.row)).collect();
    assert_eq!(kept, [("x", 1), ("y", 6)]);
    let said: Vec<String> = read.skipped.iter().map(DataError::to_string).collect();
    for (said, part) in said.iter().zip([
        "2: bad JSON: invalid type: integer `7`",
        "3: the row is not valid UTF-8",
        "4: id 'x' was used before, on line 1",
        "5: no message of an assistant",
    ]) {
        assert!(said.contains(&format!("a.json:{part}")), "{said}");
    }
    assert_eq!(said.len(), 4);
    let message = f.message("b.json", format!("[{},", talk("x")), TaskKind::Text);
    let cut = "b.json: is not a JSON list of objects: it ends within the list, at row 2";
    assert!(message.starts_with(cut), "{message}");
}
