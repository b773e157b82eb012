//! Running the program in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The program, in `folder`, with nothing of the caller's settings that could change what it prints.
pub fn dpo_eval(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpo-eval"));
    command.current_dir(folder).env("NO_COLOR", "1").env("COLUMNS", "100").env_remove("DPO_EVAL_STORE");
    command
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Real models and data for tests; absent on most machines.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = repository().join("../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not on this machine", path.display());
    None
}

pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn run(folder: &Path, arguments: &[&str]) -> Ran {
    ran(&dpo_eval(folder).args(arguments).output().expect("the program starts"))
}

pub fn ran(output: &Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs and insists on the exit code.
#[track_caller]
pub fn run_expecting(folder: &Path, arguments: &[&str], code: i32) -> Ran {
    let ran = run(folder, arguments);
    assert_eq!(ran.code, code, "dpo-eval {}\nstdout:\n{}\nstderr:\n{}", arguments.join(" "), ran.stdout, ran.stderr);
    ran
}

/// A suite with a variant `lora` is run and reproduced; then the variant is trained by itself into `output` and merged into
/// `output/merged`, which says other things than its base.
pub fn run_reproduce_and_merge(folder: &Path, suite: &str, output: &str) {
    run_expecting(folder, &["suite", "run", suite, "--quiet"], 0);
    let repro = run_expecting(folder, &["repro", "--quiet"], 0);
    assert!(repro.stdout.contains("train/lora/seed-1"), "{}", repro.stdout);
    let [adapter, base, merged, exported] = ["final", "base", "merged", "exported"].map(|name| format!("{output}/{name}"));
    run_expecting(folder, &["train", suite, "--variant", "lora", "--output", output, "--export", &exported, "--quiet"], 0);
    run_expecting(folder, &["merge", &adapter, "--base", &base, "--output", &merged], 0);
    assert_same_files(&folder.join(&merged), &folder.join(&exported));
    fs::write(folder.join("in.jsonl"), "{\"ids\": [1, 5, 9, 11]}\n").unwrap();
    let logps = |model: &str| run_expecting(folder, &["logps", model, "in.jsonl"], 0).stdout;
    assert_ne!(logps(&merged), logps(&base), "{suite}");
}

/// Gives the command again and again until it ends by itself; says how often it was killed. Kills fall at every stage: each attempt
/// lives a little longer than the last one, and goes on from what that one left.
pub fn run_through_kills(folder: &Path, arguments: &[&str]) -> usize {
    let mut kills = 0;
    let mut allowed = Duration::from_millis(60);
    loop {
        let mut child =
            dpo_eval(folder).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        let started = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if started.elapsed() > allowed && kills < 40 {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        match ended {
            Some(status) => {
                assert!(status.success());
                return kills;
            }
            None => kills += 1,
        }
        allowed += Duration::from_millis(25);
    }
}

/// A fresh folder with the repository's suites in `suites/`.
pub fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("suites")).unwrap();
    for name in ["quickstart.toml", "smoke.toml", "frontier-smoke.toml", "suite.schema.json"] {
        fs::copy(repository().join("suites").join(name), folder.path().join("suites").join(name)).unwrap();
    }
    folder
}

/// The smoke suite, run once for all tests that only look at its result.
pub fn finished_smoke() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = workplace();
            run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 0);
            folder
        })
        .path()
}

/// A copy of the finished smoke run that a test may change.
pub fn copy_of_finished_smoke() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(finished_smoke(), copy.path());
    copy
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The names and bytes of every file in a folder, in order.
pub fn bytes_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Asserts that two folders hold the same files, naming the first that differs.
#[track_caller]
pub fn assert_same_files(a: &Path, b: &Path) {
    let (a, b) = (bytes_of(a), bytes_of(b));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    for ((name, left), (_, right)) in a.iter().zip(&b) {
        assert!(left == right, "{name} differs");
    }
}

/// Replaces text in a file; the text must be there.
#[track_caller]
pub fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{} has no `{from}`", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}
