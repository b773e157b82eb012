//! A report's files, each of which appears whole or not at all.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::store::write_atomically;

pub(crate) fn all(dir: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io("make the folder", dir, &e))?;
    files.iter().try_for_each(|(name, bytes)| write_atomically(&dir.join(name), &[bytes]))
}
