//! Files that appear whole or not at all: written under a temporary name beside their place, then renamed.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

pub(crate) fn all(dir: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io("make the folder", dir, &e))?;
    files.iter().try_for_each(|(name, bytes)| one(dir, name, bytes))
}

fn one(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let place = dir.join(name);
    let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = fill(&temporary, bytes).and_then(|()| fs::rename(&temporary, &place));
    written.map_err(|e| {
        // What is left of a failed write is of no use to anybody, and the first failure is the one to report.
        let _ = fs::remove_file(&temporary);
        Error::io("write", &place, &e)
    })
}

fn fill(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
