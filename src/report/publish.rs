//! A report's files, each of which appears whole or not at all.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::store::write_atomically;

pub(crate) fn all(dir: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io("make the folder", dir, &e))?;
    // One writer at a time, where the system lets a folder be locked; so what looks unfinished is a killed run's.
    let _held = fs::File::open(dir).and_then(|folder| folder.lock().map(|()| folder)).ok();
    remove_unfinished(dir, files)?;
    files.iter().try_for_each(|(name, bytes)| write_atomically(&dir.join(name), &[bytes]))
}

/// Removes what `write_atomically` leaves of these files when its process is killed.
fn remove_unfinished(dir: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let io = |e: std::io::Error| Error::io("list", dir, &e);
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let found = entry.file_name().to_string_lossy().into_owned();
        if files.iter().any(|(name, _)| found.starts_with(&format!(".{name}."))) {
            fs::remove_file(entry.path()).map_err(|e| Error::io("remove", &entry.path(), &e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_half_written_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".index.html.123-4"), "half").unwrap();
        fs::write(folder.path().join("notes.txt"), "the user's own").unwrap();
        all(folder.path(), &[("index.html", b"whole".to_vec())]).unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["index.html", "notes.txt"]);
    }
}
