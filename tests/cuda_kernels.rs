//! The CUDA C++ kernels, run on the CPU by tests/cuda_emulation: each program there is compiled with
//! the macros of each line of variants.txt, and checks random inputs, and that leaving out a wait, a
//! fence or a swizzle is noticed. Skips where there is no C++20 compiler.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

fn compiler() -> Option<String> {
    let named = std::env::var("CXX").ok();
    named
        .into_iter()
        .chain(["g++".into(), "c++".into()])
        .find(|name| {
            Command::new(name)
                .args(["-std=c++20", "-fsyntax-only", "-x", "c++", "/dev/null"])
                .output()
                .is_ok_and(|out| out.status.success())
        })
}

fn run(compiler: &str, folder: &Path, out: &Path, line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    let flags: Vec<&str> = words.collect();
    let binary = out.join(line.replace([' ', '='], "_"));
    let built = Command::new(compiler)
        .args([
            "-std=c++20",
            "-O2",
            "-ffp-contract=off",
            "-DKILN_EMULATE",
            "-Wall",
            "-Werror",
        ])
        .args(["-Wno-unknown-pragmas", "-I"])
        .arg(folder)
        .args(&flags)
        .arg(folder.join(format!("{program}.cpp")))
        .arg("-o")
        .arg(&binary)
        .output()
        .map_err(|e| e.to_string())?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    let ran = Command::new(&binary).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    match ran.status.success() && text.contains(" passed, 0 failed") && !text.contains("\n0 passed")
    {
        true => Ok(text),
        false => Err(format!("{text}{}", ran.status)),
    }
}

#[test]
fn kernels_are_right_under_emulation() {
    let Some(compiler) = compiler() else {
        eprintln!("skipped: no C++20 compiler (g++, c++ or $CXX)");
        return;
    };
    if !cfg!(all(target_os = "linux", target_pointer_width = "64")) {
        eprintln!("skipped: the emulator needs 64-bit Linux");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda_emulation");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cuda_emulation");
    std::fs::create_dir_all(&out).unwrap();
    let list = std::fs::read_to_string(folder.join("variants.txt")).unwrap();
    let lines: Vec<&str> = list
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect();
    assert!(!lines.is_empty());
    let workers = thread::available_parallelism()
        .map_or(2, |n| n.get())
        .min(lines.len());
    let failures: Vec<String> = thread::scope(|scope| {
        let (lines, compiler, folder, out) = (&lines, &compiler, &folder, &out);
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || {
                    let mine = lines.iter().skip(worker).step_by(workers);
                    let fail = |line: &&&str| {
                        run(compiler, folder, out, line)
                            .err()
                            .map(|e| format!("{line}:\n{e}"))
                    };
                    mine.filter_map(|line| fail(&line)).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
