//! Inputs that are far too large, too deep or that multiply themselves: each
//! composes or is refused, in bounded time and memory, never by a full stack.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kiln::compose::{Composed, Request, Source, compose, expand_sweep, groups, to_yaml};
use tempfile::TempDir;

/// Runs `work` on a thread with a small stack and returns what it gives. Takes
/// the processor time of that thread alone, so that a busy machine is no failure.
fn bounded<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let timed = move || {
        let start = cpu_time();
        let value = work();
        (value, cpu_time() - start)
    };
    let (value, took) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let handle = thread.spawn_scoped(scope, timed).expect("a thread");
        handle.join().expect("no panic")
    });
    assert!(took < Duration::from_secs(8), "took {took:?}");
    value
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec that lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn tree(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }
    dir
}

fn composed(dir: &Path, overrides: &[&str]) -> Result<Composed, String> {
    compose(&Request {
        sources: vec![Source::dir("main", dir)],
        config_name: Some("config".to_string()),
        overrides: overrides.iter().map(|text| text.to_string()).collect(),
        job_name: "app".to_string(),
        ..Request::default()
    })
    .map_err(|error| shown(&error))
}

/// What a user would read; it stays short whatever the input was.
fn shown(error: &kiln::compose::Error) -> String {
    let text = error.to_string();
    assert!(text.len() < 200_000, "a message of {} bytes", text.len());
    text
}

/// The config resolved as YAML, or what is wrong.
fn outcome(files: &[(&str, &str)], overrides: &[&str]) -> Result<String, String> {
    let dir = tree(files);
    bounded(|| {
        let composed = composed(dir.path(), overrides)?;
        to_yaml(&composed.job);
        let resolved = composed.resolved_job().map_err(|error| shown(&error))?;
        Ok(to_yaml(&resolved))
    })
}

#[track_caller]
fn refused(files: &[(&str, &str)], overrides: &[&str], part: &str) {
    match outcome(files, overrides) {
        Ok(text) => panic!("composed: {}", &text[..text.len().min(300)]),
        Err(message) => assert!(message.contains(part), "{message}"),
    }
}

/// One file.
#[track_caller]
fn file_refused(text: &str, part: &str) {
    refused(&[("config.yaml", text)], &[], part);
}

const PLAIN: (&str, &str) = ("config.yaml", "a: 1\nx: [1, 2, 3]\nd: {e: 1}\n");
const MANY: usize = 90_000;

#[test]
fn deep_overrides() {
    for (open, close) in [("[", "]"), ("{a:", "}"), ("int(", ")"), ("[{a:[", "]}]")] {
        let text = format!("a={}1{}", open.repeat(MANY), close.repeat(MANY));
        refused(&[PLAIN], &[&text], "deeper than 64");
        refused(
            &[PLAIN],
            &[&format!("a={}", open.repeat(MANY))],
            "deeper than 64",
        );
    }
    for prefix in ["", "+", "++", "~"] {
        let key = format!("{prefix}d.{}z=1", "a.".repeat(MANY));
        refused(&[PLAIN], &[&key], "more than 100 levels");
    }
    let deepest = format!("+d.{}z=1", "a.".repeat(97));
    assert!(outcome(&[PLAIN], &[&deepest]).is_ok());
    let over = format!("+d.{}z=[[[[1]]]]", "a.".repeat(97));
    refused(&[PLAIN], &[&over], "levels");
}

#[test]
fn deep_yaml() {
    let part = "deeper than 100";
    for (open, close) in [
        ("[", "]"),
        ("{a: ", "}"),
        ("- ", ""),
        ("? ", ""),
        ("[{a: ", "}]"),
    ] {
        let body = format!("{}1{}", open.repeat(MANY), close.repeat(MANY));
        match outcome(&[("config.yaml", &format!("{body}\n"))], &[]) {
            Ok(text) => panic!("{open}: {}", &text[..100]),
            Err(message) => {
                let known = [part, "not valid YAML", "a key cannot be"];
                assert!(known.iter().any(|part| message.contains(part)), "{message}");
            }
        }
    }
    let block: String = (0..2_000)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    file_refused(&block, part);
    let flow = |levels: usize| format!("a: {}{}\n", "[".repeat(levels), "]".repeat(levels));
    assert!(outcome(&[("config.yaml", &flow(100))], &[]).is_ok());
    file_refused(&flow(101), part);
}

#[test]
fn deep_interpolations() {
    for (open, close) in [
        ("${", "}"),
        ("${a.${", "}}"),
        ("${oc.decode:", "}"),
        ("${oc.create:[", "]}"),
        ("${oc.select:{k:", "}}"),
    ] {
        let text = format!("a: '{}a{}'\n", open.repeat(MANY), close.repeat(MANY));
        file_refused(&text, "nested deeper");
    }
    // One that leads to the next, a hundred thousand times.
    let mut chain: String = (0..MANY)
        .map(|i| format!("a{i}: ${{a{}}}\n", i + 1))
        .collect();
    chain.push_str(&format!("a{MANY}: 1\n"));
    file_refused(&chain, "nested deeper than 100");
    // Lists in lists, each brought in by an interpolation.
    let mut lists = String::from("l0: 1\n");
    for i in 1..90 {
        let (open, close) = ("[".repeat(60), "]".repeat(60));
        lists.push_str(&format!(
            "l{i}: ${{oc.create:{open}${{l{}}}{close}}}\n",
            i - 1
        ));
    }
    file_refused(&lists, "nested deeper than 100");
}

#[test]
fn packages_of_many_levels() {
    let package = "p.".repeat(MANY);
    let defaults = format!("defaults:\n- ? g@{package}p\n  : x\n");
    let files = [("config.yaml", defaults.as_str()), ("g/x.yaml", "a: 1\n")];
    refused(&files, &[], "more than 100 levels");
    // Each config adds to the package of the one above.
    let long = format!("defaults:\n- /g@{}: x\n", "p".repeat(1000));
    let files = [
        ("config.yaml", "defaults: [g: x]\n"),
        ("g/x.yaml", long.as_str()),
    ];
    refused(&files, &[], "longer than 4096 bytes");
}

#[test]
fn merged_copies_grow_no_tree_without_end() {
    let deep = |levels: usize| format!("{}1{}", "{a: ".repeat(levels), "}".repeat(levels));
    let first = format!("defaults: [two, _self_]\nt: {}\n", deep(80));
    let nest = |inner: &str| format!("{}{inner}{}", "{a: ".repeat(80), "}".repeat(80));
    let two = format!("s: {}\n", nest("'${t}'"));
    let three = format!("defaults: [config2]\ns: {}\n", nest("{b: 1}"));
    let files = [
        ("config.yaml", three.as_str()),
        ("config2.yaml", first.as_str()),
        ("two.yaml", two.as_str()),
    ];
    refused(&files, &[], "more than 100 levels");

    // a1 is two copies of a0, a2 two of a1, ...
    let mut below = String::from("a0: {x: 1}\n");
    let mut above = String::from("defaults: [below, _self_]\n");
    for i in 1..40 {
        below.push_str(&format!(
            "a{i}: {{p: '${{a{0}}}', q: '${{a{0}}}'}}\n",
            i - 1
        ));
        above.push_str(&format!("a{i}: {{p: {{}}, q: {{}}}}\n"));
    }
    refused(
        &[("config.yaml", &above), ("below.yaml", &below)],
        &[],
        "steps",
    );
}

#[test]
fn cycles() {
    let files = [
        ("config.yaml", "defaults: [a, _self_]\n"),
        ("a.yaml", "defaults: [config]\n"),
    ];
    refused(&files, &[], "includes itself");
    let both = "defaults:\n- /g@x: one\n- /g@y: two\n";
    let files = [
        ("config.yaml", "defaults: [g: one]\n"),
        ("g/one.yaml", both),
        ("g/two.yaml", both),
    ];
    refused(&files, &[], "defaults lists");
    let files = [
        ("config.yaml", "defaults: [a@x: '${a@x}']\n"),
        ("a/b.yaml", ""),
    ];
    refused(&files, &[], "cannot resolve the option");

    file_refused("a: ${b}\nb: ${c}\nc: ${a}\n", "leads back to itself");
    file_refused("a: ${a}\n", "leads back to itself");
    file_refused("a: {b: '${a}'}\n", "holds the interpolation itself");
    file_refused("a: {b: '${c}'}\nc: {d: '${a}'}\n", "itself");
    file_refused(
        "a: ${oc.decode:${b}}\nb: ${oc.decode:${a}}\n",
        "leads back to itself",
    );
    file_refused(
        "a: ${oc.select:b}\nb: ${oc.select:a}\n",
        "leads back to itself",
    );
    file_refused(
        "a: '${oc.dict.values:b}'\nb: {c: '${a}'}\n",
        "holds the interpolation itself",
    );
    file_refused("x: &x [1, *x]\n", "inside the value it names");
}

#[test]
fn what_multiplies_itself() {
    // Aliases, strings, lists, whole trees: each ten times the one before.
    let multiply = |first: &str, line: &dyn Fn(usize, usize) -> String| {
        let lines: String = (1..60).map(|i| line(i, i - 1)).collect();
        format!("a0: {first}\n{lines}")
    };
    let ten = |text: String| vec![text; 10].join(",");
    let aliases = multiply("&a0 [1, 1]", &|i, j| {
        format!("a{i}: &a{i} [{}]\n", ten(format!("*a{j}")))
    });
    file_refused(&aliases, "more than 200000 values");
    let strings = multiply("x", &|i, j| {
        format!("a{i}: '{}'\n", format!("${{a{j}}}").repeat(10))
    });
    file_refused(&strings, "steps");
    let lists = multiply("[1]", &|i, j| {
        format!("a{i}: [{}]\n", ten(format!("'${{a{j}}}'")))
    });
    file_refused(&lists, "more than 1000000 values");
    let made = multiply("[1]", &|i, j| {
        format!("a{i}: '${{oc.create:[{}]}}'\n", ten(format!("${{a{j}}}")))
    });
    file_refused(&made, "steps");
    let decoded = multiply("x", &|i, j| {
        format!(
            "a{i}: '${{oc.decode:\"{}\"}}'\n",
            format!("${{a{j}}}").repeat(10)
        )
    });
    file_refused(&decoded, "steps");
    let merges = multiply("&a0 {x: 1, y: 2}", &|i, j| {
        format!(
            "a{i}: &a{i} {{k{i}: *a{j}, <<: [{}]}}\n",
            ten(format!("*a{j}"))
        )
    });
    file_refused(&merges, "more than 200000 values");

    // Anchors inside each other, each with a copy of its own.
    let body = ["1"; 5_000].join(",");
    let nested: String = (0..90).map(|i| format!("&a{i} [")).collect();
    file_refused(
        &format!("a: {nested}{body}{}\n", "]".repeat(90)),
        "more than 200000 values",
    );
    // A large file in many packages.
    let large = format!("l: [{}]\n", ["1"; 100_000].join(","));
    let uses: String = (0..100).map(|i| format!("- big@p{i}\n")).collect();
    let files = [
        ("config.yaml", format!("defaults:\n{uses}")),
        ("big.yaml", large),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    refused(&files, &[], "more than 1000000 values");
    // A long defaults list in many packages.
    let long: String = (0..5_000)
        .map(|i| format!("- override /o{i}: x\n"))
        .collect();
    let uses: String = (0..5_000).map(|i| format!("- many@p{i}\n")).collect();
    let files = [
        ("config.yaml", format!("defaults:\n{uses}")),
        ("many.yaml", format!("defaults:\n{long}")),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    refused(&files, &[], "more than 20000 entries");
}

#[test]
fn ranges_and_sweeps() {
    let sweep = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|text| text.to_string()).collect();
        bounded(|| expand_sweep(&texts).map_err(|error| shown(&error)))
    };
    for text in [
        "a=range(1e18)",
        "a=range(1000000000000000000)",
        "a=range(0,1,1e-18)",
        "a=range(10000000)",
        "a=range(0,1e308,1e-308)",
        "a=range(-9223372036854775808,9223372036854775807)",
        "a=range(1e16,1e17,0.1)",
        "a=shuffle(range(10000000))",
        "a=sort(range(10000000),reverse=true)",
        "a=int(range(0.0,1e12))",
    ] {
        let message = sweep(&[text]).expect_err(text);
        assert!(message.contains("a range of more than"), "{message}");
        assert!(outcome(&[PLAIN], &[text]).is_err());
    }
    for text in [
        "a=range(inf)",
        "a=range(0,nan)",
        "a=range(0,1,0)",
        "a=range(0,1,1e400)",
    ] {
        assert!(sweep(&[text]).is_err(), "{text}");
    }
    assert_eq!(
        sweep(&["a=range(100000)"]).map(|cells| cells.len()),
        Ok(100_000)
    );
    let many = [
        "a=range(1000)",
        "b=range(1000)",
        "c=range(1000)",
        "d=range(1000)",
    ];
    assert!(
        sweep(&many)
            .expect_err("many")
            .contains("more than 100000 cells")
    );
    let long = format!("z={}", "z".repeat(1_000_000));
    let message = sweep(&["a=range(100000)", &long]).expect_err("long");
    assert!(message.contains("MiB of text"), "{message}");
    let wide: Vec<String> = (0..MANY).map(|i| format!("v{i}")).collect();
    assert_eq!(
        sweep(&[&format!("a={}", wide.join(","))]).map(|c| c.len()),
        Ok(MANY)
    );
    let named: Vec<String> = (0..MANY).map(|i| format!("v{i}=1")).collect();
    let message = sweep(&[&format!("a=range({})", named.join(","))]).expect_err("named");
    assert!(message.contains("named arguments"), "{message}");
}

#[test]
fn huge_numbers() {
    let digits = "9".repeat(1_000_000);
    for (text, part) in [
        (format!("a={digits}"), "more than 4300 digits"),
        (format!("a=-{digits}"), "more than 4300 digits"),
        (format!("x.{digits}=1"), "x"),
        ("x.999999999=1".to_string(), "the list has 3 items"),
        ("+x.999999999=1".to_string(), "the list has 3 items"),
        ("++x.999999999.y=1".to_string(), "3 items"),
        ("~x.999999999".to_string(), "cannot delete"),
    ] {
        refused(&[PLAIN], &[&text], part);
    }
    for text in [
        format!("a: {digits}\n"),
        format!("a: 0x{digits}\n"),
        format!("a: 0{}\n", "7".repeat(1_000_000)),
        format!("a: 1{}\n", ":59".repeat(300_000)),
        format!("a: '${{oc.decode:{digits}}}'\n"),
        format!("a: '${{x[{digits}]}}'\nx: [1]\n"),
    ] {
        assert!(
            outcome(&[("config.yaml", &text)], &[]).is_err(),
            "{}",
            &text[..20]
        );
    }
    // As in Python, what is too large for a float is infinite, and too small is 0.
    let over = format!("a=1e{}", "9".repeat(10_000));
    assert_eq!(
        outcome(&[("config.yaml", "a: 1\n")], &[&over]),
        Ok("a: .inf\n".into())
    );
    let under = format!("a=1e-{}", "9".repeat(10_000));
    assert_eq!(
        outcome(&[("config.yaml", "a: 1\n")], &[&under]),
        Ok("a: 0.0\n".into())
    );
    let long = format!("a: 0.{}1\n", "0".repeat(1_000_000));
    assert_eq!(
        outcome(&[("config.yaml", &long)], &[]),
        Ok("a: 0.0\n".into())
    );
}

#[test]
fn long_lines_and_keys() {
    const LONG: usize = 10 << 20;
    let text = "k".repeat(LONG);
    for yaml in [
        format!("a: {text}\n"),
        format!("a: '{text}'\n"),
        format!("a: \"{text}\"\n"),
        format!("a: |\n  {text}\n"),
        format!("# {text}\na: 1\n"),
        format!("? {text}\n: 1\n"),
        format!("a: {}\n", "k ".repeat(LONG / 2)),
        format!("a: \"{}\"\n", "\\n".repeat(LONG / 2)),
        format!("a: 1{}\n", "\n".repeat(LONG)),
        format!("a: '{}'\n", "\n ".repeat(LONG / 2)),
        format!("a:{}1\n", " ".repeat(LONG)),
    ] {
        let outcome = outcome(&[("config.yaml", &yaml)], &[]);
        assert!(
            outcome.is_ok(),
            "{:.20}: {:.500}",
            yaml,
            outcome.unwrap_err()
        );
    }
    // Keys of one line have 1024 characters in YAML.
    file_refused(&format!("{text}: 1\n"), "not valid YAML");
    for yaml in [
        format!("a: [{}]\n", "1, ".repeat(LONG / 3)),
        format!(
            "a: {{{}}}\n",
            (0..LONG / 10)
                .map(|i| format!("k{i}: 1, "))
                .collect::<String>()
        ),
        (0..LONG / 10).map(|i| format!("{i}: 1\n")).collect(),
        "- 1\n".repeat(LONG / 4),
    ] {
        file_refused(&yaml, "more than 200000 values");
    }
    let key = format!("{text}=1");
    refused(&[PLAIN], &[&key], "there is no such key");
    assert!(outcome(&[PLAIN], &[&format!("+{key}")]).is_ok());
    assert!(outcome(&[PLAIN], &[&format!("a={text}")]).is_ok());
    assert!(outcome(&[PLAIN], &[&format!("a='{text}'")]).is_ok());
    refused(
        &[PLAIN],
        &[&format!("a={text}#")],
        "cannot stand in a value",
    );
    assert!(outcome(&[PLAIN], &[&format!("d@{text}=x")]).is_err());
    assert!(outcome(&[PLAIN], &[&format!("+{text}/a=x")]).is_ok());
    file_refused(&format!("a: ${{{text}}}\n"), "cannot resolve");
    file_refused(&format!("a: ${{{text}:1}}\n"), "cannot resolve");
    file_refused(&format!("defaults: [{text}]\n"), "no config");
    file_refused(&format!("defaults: [g: {text}]\n"), "no group");
}

/// Finding what a user may have meant must not take a step for every pair of
/// a problem and a key.
#[test]
fn very_many_problems() {
    let missing: String = (0..MANY).map(|i| format!("k{i}: ${{nope{i}}}\n")).collect();
    file_refused(&missing, "more problems");
    let overridden: String = (0..MANY).map(|i| format!("k{i}: 1\n")).collect();
    let above = format!("defaults: [below, _self_]\n{overridden}");
    let files = [
        ("config.yaml", above.as_str()),
        ("below.yaml", missing.as_str()),
    ];
    assert!(outcome(&files, &[]).is_ok());
    let unknown: Vec<String> = (0..MANY).map(|i| format!("nope{i}=1")).collect();
    let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
    refused(&[("config.yaml", &overridden)], &unknown, "more problems");
    let options: String = (0..5_000).map(|i| format!("- g@p{i}: nope{i}\n")).collect();
    let config = format!("defaults:\n{options}");
    refused(
        &[("config.yaml", &config), ("g/a.yaml", "")],
        &[],
        "has no option",
    );
    let integers: String = (0..MANY).map(|i| format!("{i}: 1\n")).collect();
    assert!(outcome(&[("config.yaml", &integers)], &[]).is_ok());
    let bad: Vec<String> = (0..MANY).map(|i| format!("a{i}=#")).collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    refused(&[PLAIN], &bad, "more problems");
}

#[test]
fn bytes_that_are_no_text() {
    let write = |bytes: &[u8]| {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("config.yaml"), bytes).expect("written");
        composed(dir.path(), &[]).map(|composed| to_yaml(&composed.job))
    };
    let refused = |bytes: &[u8], part: &str| {
        let message = write(bytes).expect_err(part);
        assert!(message.contains(part), "{message}");
    };
    refused(b"a: 1\nb: \xff\n", "config.yaml:2: the file is not UTF-8");
    refused(b"\xff\xfea\0:\0", "not UTF-8");
    refused(b"a: \xed\xa0\x80\n", "not UTF-8");
    refused(
        b"a: 1\nb: \0\nc: 3\n",
        "config.yaml:2: the character U+0000",
    );
    refused(b"a: 1\n\0", "U+0000");
    refused(b"a: \x1b[0m\n", "U+001B");
    refused(b"a: '\x7f'\n", "U+007F");
    assert_eq!(write(b"a: \"\\0\"\n"), Ok("a: \"\\0\"\n".into()));
    assert_eq!(write(b"\xef\xbb\xbfa: 1\n"), Ok("a: 1\n".into()));
    assert_eq!(
        write(b"a: 1\r\nb:\r\n- x\r\n- y\r\n"),
        Ok("a: 1\nb:\n- x\n- 'y'\n".into())
    );
    assert_eq!(write(b"a: 1"), Ok("a: 1\n".into()));
    for text in [
        "a=\0",
        "\0=1",
        "a=\u{feff}",
        "a='\0'",
        "+b@\0=1",
        "a=é",
        "\u{202e}=1",
    ] {
        let _ = outcome(&[PLAIN], &[text]);
    }
    assert!(outcome(&[("config.yaml", "defaults: [\"a\\0b\"]\n")], &[]).is_err());
}

#[cfg(unix)]
mod files {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_that_lead_in_circles() {
        let dir = tree(&[("config.yaml", "a: 1\n"), ("g/x.yaml", "b: 1\n")]);
        for link in ["one", "two", "three", "four", "five", "six"] {
            symlink(dir.path(), dir.path().join(link)).expect("linked");
            symlink(dir.path(), dir.path().join("g").join(link)).expect("linked");
        }
        symlink("self.yaml", dir.path().join("g/self.yaml")).expect("linked");
        let sources = [Source::dir("main", dir.path())];
        let listed = bounded(|| groups(&sources));
        assert!(listed.contains(&("g".to_string(), vec!["x".to_string()])));
        assert!(listed.contains(&("g/six/g".to_string(), vec!["x".to_string()])));
        assert!(listed.len() < 20_000, "{} groups", listed.len());
        let far = format!("+{}g=x", "one/".repeat(30));
        let composed = bounded(|| composed(dir.path(), &[&far])).expect("a way like any other");
        assert!(to_yaml(&composed.job).contains("b: 1"));
        let message = bounded(|| super::composed(dir.path(), &["+g=self"])).expect_err("a circle");
        assert!(message.contains("has no option 'self'"), "{message}");
    }

    #[test]
    fn what_is_no_file() {
        let dir = tree(&[("config.yaml", "a: 1\n"), ("g/x.yaml", "b: 1\n")]);
        fs::create_dir(dir.path().join("g/folder.yaml")).expect("made");
        symlink("/dev/zero", dir.path().join("g/zero.yaml")).expect("linked");
        symlink("nowhere", dir.path().join("g/broken.yaml")).expect("linked");
        let pipe = dir.path().join("g/pipe.yaml");
        let name = std::ffi::CString::new(pipe.as_os_str().as_bytes()).expect("no zero byte");
        // SAFETY: the name ends with a zero byte and lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for option in ["folder", "zero", "broken", "pipe"] {
            let message = bounded(|| composed(dir.path(), &[&format!("+g={option}")]));
            let message = message.expect_err(option);
            assert!(message.contains("options of 'g': x"), "{message}");
        }
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let dir = tree(&[]);
        let file = fs::File::create(dir.path().join("config.yaml")).expect("made");
        // Holds nothing on the disk.
        file.set_len(1 << 40).expect("stretched");
        let message = bounded(|| composed(dir.path(), &[])).expect_err("too large");
        assert!(message.contains("more than 64 MiB"), "{message}");
    }

    #[test]
    fn what_may_not_be_read() {
        let dir = tree(&[("config.yaml", "a: 1\n"), ("g/x.yaml", "b: 1\n")]);
        let close = |name: &str| {
            let path = dir.path().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("set");
            // Root reads it all the same.
            fs::metadata(path.join(".")).is_err() && fs::read(path).is_err()
        };
        if close("g/x.yaml") {
            let message = composed(dir.path(), &["+g=x"]).expect_err("closed");
            assert!(message.contains("cannot read"), "{message}");
        }
        let closed = close("g");
        assert!(composed(dir.path(), &["+g=x"]).is_err() || !closed);
        let open = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir.path().join("g"), open).expect("set");
    }

    #[test]
    fn names_that_are_no_text() {
        let dir = tree(&[("config.yaml", "a: 1\n"), ("g/x.yaml", "b: 1\n")]);
        let odd = dir.path().join("g").join(OsStr::from_bytes(b"\xff.yaml"));
        fs::write(odd, "b: 1\n").expect("written");
        let folder = dir.path().join(OsStr::from_bytes(b"\xfe\xff"));
        fs::create_dir(&folder).expect("made");
        let message = composed(dir.path(), &["+g=no"]).expect_err("unknown");
        assert!(message.contains("options of 'g': x"), "{message}");
        assert_eq!(
            groups(&[Source::dir("main", &folder)]).len(),
            groups(&[]).len()
        );
        assert!(composed(&folder, &[]).is_err());
        fs::write(folder.join("config.yaml"), "a: ${nope}\n").expect("written");
        assert!(composed(&folder, &[]).is_ok_and(|c| c.resolved_job().is_err()));
    }
}
