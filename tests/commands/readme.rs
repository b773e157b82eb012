//! The README's commands do what it says: every line of its `sh` blocks that starts the program is run, in order.

use std::fs;

use crate::quickstart::finished_quickstart;
use crate::support::{copy_folder, dpo_eval, ran, repository};

/// The commands of the `sh` blocks, with continuation lines joined.
fn commands(readme: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    let joined = readme.replace("\\\n", " ");
    for line in joined.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                let command = line.split(" #").next().unwrap_or_default().trim();
                let program = command.strip_prefix("cargo run --release --").or_else(|| command.strip_prefix("dpo-eval "));
                commands.extend(program.map(|arguments| arguments.trim().to_owned()));
            }
            _ => {}
        }
    }
    commands
}

/// Splits as a shell does, for the quotes that the README uses.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in command.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("never empty").push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_of_the_readme_runs() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let commands = commands(&readme);
    assert!(commands.len() >= 8, "{commands:?}");
    let folder = tempfile::tempdir().unwrap();
    copy_folder(finished_quickstart(), folder.path());
    copy_folder(&repository().join("tests/readme"), folder.path());
    for command in commands {
        let output = dpo_eval(folder.path()).args(words(&command)).output().unwrap();
        let ran = ran(&output);
        assert_eq!(ran.code, 0, "dpo-eval {command}\n{}\n{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn the_readme_lists_every_module_and_every_exit_code() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let library = fs::read_to_string(repository().join("src/lib.rs")).unwrap();
    for module in library.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')) {
        assert!(readme.contains(&format!("`{module}`")), "the README doesn't name the module {module}");
    }
    for code in [0, 1, 2, 3, 4, 5, 75, 100, 102, 103, 130] {
        assert!(readme.contains(&format!("| {code} |")), "the README doesn't explain exit code {code}");
    }
}
