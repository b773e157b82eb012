//! The cache of `huggingface_hub`, as it lays it out:
//!
//! | place | what |
//! |---|---|
//! | `models--org--name/blobs/<digest>` | contents: SHA-256 of large files (LFS), else the SHA-1 that Git gives them |
//! | `models--org--name/snapshots/<commit>/<file>` | links to them |
//! | `models--org--name/.no_exist/<commit>/<file>` | empty: the repository has no such file |
//! | `.locks/models--org--name/<digest>.lock` | held by who fetches |

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha1::{Digest as _, Sha1};

use super::select::{Known, Selection};
use super::{Files, Reference, cache_folder};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// One repository at one commit.
pub(super) struct Snapshot {
    pub repo: PathBuf,
    pub snapshot: PathBuf,
    no_exist: PathBuf,
}

impl Snapshot {
    pub fn new(cache: &Path, reference: &Reference) -> Self {
        let repo = cache.join(reference.folder_name());
        let no_exist = repo.join(".no_exist").join(&reference.commit);
        Self { snapshot: reference.snapshot_in(cache), repo, no_exist }
    }

    pub fn known(&self, name: &str) -> Known {
        match (self.snapshot.join(name).is_file(), self.no_exist.join(name).is_file()) {
            (true, _) => Known::Here,
            (false, true) => Known::Absent,
            (false, false) => Known::Unknown,
        }
    }

    /// What is needed of it by what is known here.
    pub fn selection(&self, reference: &Reference, files: Files) -> Result<Selection> {
        self.select(reference, files, &|name| self.known(name))
    }

    pub fn select(&self, reference: &Reference, files: Files, known: &dyn Fn(&str) -> Known) -> Result<Selection> {
        let index = || {
            let path = self.snapshot.join("model.safetensors.index.json");
            fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))
        };
        let mut selection = files.select(known, &index)?;
        selection.required.extend(reference.file.clone().filter(|_| files == Files::One));
        Ok(selection)
    }

    pub fn blob(&self, digest: &str) -> PathBuf {
        self.repo.join("blobs").join(digest)
    }

    /// Links a name to its contents.
    pub fn link(&self, name: &str, digest: &str) -> Result<()> {
        let target = self.snapshot.join(name);
        let folder = target.parent().expect("it lies in the snapshot");
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
        let up = "../".repeat(2 + name.matches('/').count());
        let made = linked(&format!("{up}blobs/{digest}"), &self.blob(digest), &target);
        match made {
            // Another process was quicker.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && target.is_file() => Ok(()),
            // A link into nothing: its contents were deleted.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => fs::remove_file(&target)
                .and_then(|()| linked(&format!("{up}blobs/{digest}"), &self.blob(digest), &target))
                .map_err(|e| Error::io("link", &target, &e)),
            other => other.map_err(|e| Error::io("link", &target, &e)),
        }
    }

    pub fn mark_absent(&self, name: &str) -> Result<()> {
        let mark = self.no_exist.join(name);
        let folder = mark.parent().expect("it lies in a folder");
        fs::create_dir_all(folder).and_then(|()| File::create(&mark).map(drop)).map_err(|e| Error::io("create", &mark, &e))
    }
}

#[cfg(unix)]
fn linked(relative: &str, _: &Path, target: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, target)
}

/// Links need a right that users of Windows seldom have.
#[cfg(not(unix))]
fn linked(_: &str, blob: &Path, target: &Path) -> std::io::Result<()> {
    fs::copy(blob, target).map(drop)
}

/// The digests of the files that are needed of a repository, each held against its name in the cache.
pub fn digests(reference: &Reference, files: Files) -> Result<BTreeMap<String, Digest>> {
    let snapshot = Snapshot::new(&cache_folder(), reference);
    let selection = snapshot.selection(reference, files)?;
    if let Some(missing) = selection.required.iter().find(|name| snapshot.known(name) != Known::Here) {
        let message = format!("{missing} of {reference} isn't in the cache at {}", snapshot.snapshot.display());
        return Err(Error::input(message).help("`dpo-eval suite plan` fetches what a suite needs"));
    }
    let here = selection.required.iter().chain(&selection.optional).filter(|name| snapshot.known(name) == Known::Here);
    here.map(|name| Ok((name.clone(), verified_digest(&snapshot.snapshot.join(name))?))).collect()
}

/// The digest of a file of the cache; an error if it isn't what its name says.
pub fn verified_digest(path: &Path) -> Result<Digest> {
    let digest = Digest::of_file(path)?;
    let Some(blob) = fs::canonicalize(path).ok().filter(|blob| blob.parent().is_some_and(|folder| folder.ends_with("blobs")))
    else {
        return Ok(digest);
    };
    let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let expected = match name.len() {
        64 => digest.to_string(),
        40 => git_digest(&blob)?,
        _ => return Ok(digest),
    };
    if expected == name {
        return Ok(digest);
    }
    let message = format!("{} is damaged: its digest is {expected}, and its name says {name}", blob.display());
    Err(Error::input(message).help("delete it and run the same command again: it is fetched anew"))
}

/// What Git calls a file with these contents: SHA-1 of a header with the length, and the contents.
pub(super) fn git_digest(path: &Path) -> Result<String> {
    let io = |e: std::io::Error| Error::io("read", path, &e);
    let mut file = File::open(path).map_err(io)?;
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", file.metadata().map_err(io)?.len()));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hasher.update(&buffer[..n]),
        }
    }
}
