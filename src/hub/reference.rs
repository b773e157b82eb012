//! How a file or folder of the hub is written: `org/name@<commit>`, `org/name@<commit>:file`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::cache_folder;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repo {
    Model,
    Dataset,
}

/// A repository at a commit, or a file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub repo: Repo,
    /// `org/name`, or a `name` without one.
    pub id: String,
    /// 40 hexadecimal digits.
    pub commit: String,
    /// A file of the repository, with slashes.
    pub file: Option<String>,
}

/// What a path in a suite says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// A place on this machine.
    Local,
    Hub(Reference),
    /// Looks like the hub's, but names no commit or no proper file: what is wrong, and what to do.
    Wrong(String, &'static str),
}

const COMMIT: &str = "write the commit as 40 hexadecimal digits (`git ls-remote`, or the page of the repository's commits, shows it): \
                      what a branch or a tag names can change";

impl Written {
    pub fn of(repo: Repo, written: &Path) -> Self {
        let Some((id, rest)) = written.to_str().and_then(|text| text.split_once('@')) else { return Self::Local };
        if !is_id(id) {
            return Self::Local;
        }
        let (commit, file) = match rest.split_once(':') {
            Some((commit, file)) => (commit, Some(file)),
            None => (rest, None),
        };
        if commit.len() != 40 || !commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Self::Wrong(format!("\"{commit}\" is no commit of {id}"), COMMIT);
        }
        if let Some(file) = file.filter(|file| !is_file(file)) {
            let message = format!("\"{file}\" can't be a file of {id}");
            return Self::Wrong(message, "name it with slashes, from the repository's top: org/name@<commit>:folder/file");
        }
        Self::Hub(Reference { repo, id: id.to_owned(), commit: commit.to_owned(), file: file.map(str::to_owned) })
    }
}

/// Whether a text can name a repository: one part or two of letters, digits, `-`, `_` and `.`.
pub(super) fn is_id(text: &str) -> bool {
    let part = |part: &str| {
        let inside = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        inside && !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(['.', '-'])
    };
    // "--" is what separates the parts in the cache.
    text.split('/').count() <= 2 && text.split('/').all(part) && !text.contains("--") && !text.contains("..")
}

/// No path of the hub's may lead out of the cache.
pub(super) fn is_file(text: &str) -> bool {
    !text.contains(['\\', ':', '\0']) && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

impl Reference {
    /// Where it lies in the cache, fetched or not.
    pub fn place(&self) -> PathBuf {
        self.place_in(&cache_folder())
    }

    pub(super) fn place_in(&self, cache: &Path) -> PathBuf {
        let snapshot = self.snapshot_in(cache);
        self.file.as_ref().map_or_else(|| snapshot.clone(), |file| snapshot.join(file))
    }

    pub(super) fn snapshot_in(&self, cache: &Path) -> PathBuf {
        cache.join(self.folder_name()).join("snapshots").join(&self.commit)
    }

    /// `models--org--name`.
    pub(super) fn folder_name(&self) -> String {
        let kind = if self.repo == Repo::Model { "models" } else { "datasets" };
        format!("{kind}--{}", self.id.replace('/', "--"))
    }

    /// The repository in the hub's addresses.
    pub(super) fn in_address(&self) -> String {
        if self.repo == Repo::Model { self.id.clone() } else { format!("datasets/{}", self.id) }
    }

    /// The repository in the addresses of the hub's API.
    pub(super) fn in_api(&self) -> String {
        let kind = if self.repo == Repo::Model { "models" } else { "datasets" };
        format!("{kind}/{}", self.id)
    }
}

/// With the commit's first twelve digits.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, &self.commit[..12])?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, ":{file}"))
    }
}
