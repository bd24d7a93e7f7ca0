use super::*;

fn read(text: &str) -> Result<Node, Problem> {
    read_yaml(text, &Arc::new(PathBuf::from("a.yaml")))
}

fn json(text: &str) -> String {
    read(text).map_or_else(|p| panic!("{p}"), |n| n.to_json().to_string())
}

#[test]
fn style_decides_the_type() {
    assert_eq!(
        json("a: yes\nb: 'yes'\nc: 1e-4\nd: \"1e-4\"\ne: |\n  x\n"),
        r#"{"a":true,"b":"yes","c":0.0001,"d":"1e-4","e":"x\n"}"#
    );
    assert_eq!(
        json("a: !!str 5\nb: ! '5'\nc: !!int '5'\nd: !<tag:yaml.org,2002:str> 5"),
        r#"{"a":"5","b":5,"c":5,"d":"5"}"#
    );
    assert_eq!(json(""), "{}");
    assert_eq!(json("# only a comment\n"), "{}");
    assert_eq!(json("word"), r#"{"word":null}"#);
}

#[test]
fn a_question_mark_needs_quotes_in_brackets_only() {
    for text in [
        "a: a?b",
        "p:\n- []\n- ???\n",
        "p:\n- {}\n- - ???\n",
        "p: &x # [\n  k: a?\n",
        "- &x\n  - a?\n",
    ] {
        assert!(read(text).is_ok(), "{text}");
    }
    for text in [
        "a: [a?]",
        "a: &x [a?]",
        "a: !!seq [a?]",
        "a: {x: {y: b}, z: a?b}",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn every_node_knows_its_line() {
    let node = read("a: 1\nb:\n  c:\n    - 5\n").expect("valid");
    let line = |path: &str| match &node.select(path).expect("there").origin {
        Origin::File { line, .. } => *line,
        _ => 0,
    };
    assert_eq!(
        [line("a"), line("b"), line("b.c"), line("b.c.0")],
        [1, 2, 3, 4]
    );
}

#[test]
fn duplicate_keys_are_refused_with_both_lines() {
    let message = read("a: 1\nb: 2\n\"a\": 3\n")
        .expect_err("duplicate")
        .to_string();
    assert!(
        message.starts_with("a.yaml:3: duplicate key 'a', first on line 1"),
        "{message}"
    );
    assert_eq!(json("1: a\n1: b"), r#"{"1":"b"}"#);
}

#[test]
fn merge_keys_and_aliases() {
    assert_eq!(
        json("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: *x\n"),
        r#"{"x":{"a":1,"b":2},"y":{"a":1,"b":3},"z":{"a":1,"b":2}}"#
    );
    assert_eq!(
        json("c:\n  <<: [{x: 1, z: 2}, {y: 3, x: 4, true: 5}, {1: 6}]\n"),
        r#"{"c":{"x":1,"z":2,"y":3,"True":5}}"#
    );
    assert!(read("x: &x [*x]").is_err());
    assert!(read("<<: 5").is_err());
}

#[test]
fn an_anchor_has_a_name_of_its_own() {
    for text in [
        "a: &x 1\nb: &x 2\n",
        "a: [&x 1, !!str &x 2]\n",
        "\u{e9}: &x\n  k: 1\nb: ! # c\n  &x []\n",
        "a: &x\nb: &x\n",
    ] {
        let message = read(text).expect_err(text).to_string();
        assert!(
            message.contains("the anchor '&x' stands twice, first on line 1"),
            "{message}"
        );
    }
    assert!(read("a: &x 1\nb: &xx [&y 2]\nc: &z {k: &w v}\n").is_ok());
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1]\n");
    for i in 1..9 {
        let one = format!("*a{}", i - 1);
        text.push_str(&format!("a{i}: &a{i} [{}]\n", vec![one; 9].join(",")));
    }
    let message = read(&text).expect_err("too large").to_string();
    assert!(message.contains("more than"), "{message}");
    let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(read(&deep).is_err());
}

#[test]
fn a_key_is_no_interpolation() {
    assert_eq!(
        json("${a: 1\n'${b': 2\n\"${c\": 3\n"),
        r#"{"${a":1,"${b":2,"${c":3}"#
    );
}

#[test]
fn faults_name_the_line() {
    for (text, line) in [
        ("a: [1,\n", 2),
        ("a: 1\nb: ${x\n", 2),
        ("a: {m: ???}\n", 1),
        ("a: !foo 1\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("? [1]\n: 2\n", 1),
        ("~: 2\n", 1),
    ] {
        let message = read(text).expect_err(text).to_string();
        assert!(
            message.starts_with(&format!("a.yaml:{line}: ")),
            "{text:?}: {message}"
        );
    }
    assert!(read("7").is_err());
}
