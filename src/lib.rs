//! `dpo-eval`: evaluation and reproducibility harness for Direct Preference Optimization.
//!
//! A suite file goes in, a verdict with its evidence comes out; everything between is a chain of small, addressed,
//! reproducible steps. Modules are listed in reading order, and each imports only those above it.

pub mod error;
pub mod watch;

pub mod digest;

// Crates of their own within `src`, so that they are compiled once and always optimised.
pub use dpo_eval_numerics as numerics;
pub use dpo_eval_rng as rng;
pub use dpo_eval_statistics as statistics;

pub mod hub;

pub mod suite;

pub mod store;

pub mod data;

pub mod model;

pub mod train;

pub mod generate;

pub mod judge;

pub mod rlhf;

pub mod estimates;

pub mod checks;

pub mod report;

pub mod gate;

pub mod run;

pub mod cli;

pub use error::{Error, Result};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, found),
                false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
                false => {}
            }
        }
    }

    fn is_test_code(path: &Path) -> bool {
        path.iter().any(|part| part == "tests" || part.to_string_lossy().ends_with("tests.rs") || part == "fixture.rs")
    }

    /// The modules of this crate that a text names: what follows each `crate::`, comments aside.
    fn imported(text: &str) -> Vec<&str> {
        let name = |text: &'_ str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let mut modules = Vec::new();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, found) in line.match_indices("crate::") {
                let rest = &line[at + found.len()..];
                assert!(!rest.starts_with('{'), "one `use` a module, please: {line}");
                modules.push(&rest[..name(rest)]);
            }
        }
        modules
    }

    fn declared(line: &str) -> Option<&str> {
        let module = line.strip_prefix("pub mod ");
        module.or_else(|| Some(line.strip_prefix("pub use dpo_eval_")?.split_once(" as ")?.1))?.strip_suffix(';')
    }

    #[test]
    fn every_module_imports_only_modules_above_it() {
        let order: Vec<&str> = include_str!("lib.rs").lines().filter_map(declared).collect();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        let mut upward = Vec::new();
        for path in files {
            let inside = path.strip_prefix(&root).unwrap();
            let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            let Some(own) = order.iter().position(|m| *m == module) else { continue };
            if is_test_code(inside) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let above = |import: &&str| order.iter().position(|m| m == import).is_some_and(|other| other > own);
            upward.extend(imported(&text).into_iter().filter(above).map(|m| format!("{} imports {m}", inside.display())));
        }
        assert!(order.len() > 15 && upward.is_empty(), "{upward:#?}");
    }
}
