//! Files of verdicts that commands read: a file, a folder that holds one, or what comes through a pipe.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// A file of verdicts, and the completions that lie beside it.
pub struct Input {
    pub file: PathBuf,
    pub completions: Option<PathBuf>,
    /// What a pipe said, in a folder of its own; gone with this.
    spooled: Option<PathBuf>,
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(folder) = &self.spooled {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Input {
    /// `-` is the standard input. A folder is that of a report, or of AlpacaEval's results.
    pub fn of(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Self::spool("stdin", &mut io::stdin().lock(), path);
        }
        // Pipes and devices can be read once, and files are looked at before they are read.
        if std::fs::metadata(path).is_ok_and(|of| !of.is_file() && !of.is_dir()) {
            let mut pipe = File::open(path).map_err(|e| Error::io("read", path, &e))?;
            return Self::spool("pipe", &mut pipe, path);
        }
        let of = |file: PathBuf, completions| Ok(Self { file, completions, spooled: None });
        if !path.is_dir() {
            return of(path.to_owned(), None);
        }
        let [judgments, completions, annotations] =
            ["judgments.csv", "completions.csv", "annotations.json"].map(|name| path.join(name));
        if judgments.is_file() {
            of(judgments, completions.is_file().then_some(completions))
        } else if annotations.is_file() {
            of(annotations, None)
        } else {
            Err(Error::input("the folder holds neither judgments.csv nor annotations.json")
                .in_file(path)
                .help("name a file, the folder of a report, or AlpacaEval's folder with annotations.json"))
        }
    }

    /// Text that doesn't begin as JSON does is CSV, as no name says what it is. Compressed and Parquet bytes are known by themselves.
    fn spool(name: &str, pipe: &mut dyn Read, path: &Path) -> Result<Self> {
        static SPOOLED: AtomicU64 = AtomicU64::new(0);
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map_err(|e| Error::io("read", path, &e))?;
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace() && !b"\xef\xbb\xbf".contains(byte));
        let known = bytes.starts_with(b"PAR1") || bytes.starts_with(b"\x1f\x8b") || bytes.starts_with(b"\x28\xb5\x2f\xfd");
        let is_json = matches!(first, Some(b'{' | b'[') | None);
        let extension = match () {
            () if known || is_json => "json",
            () if bytes.iter().take_while(|byte| **byte != b'\n').any(|byte| *byte == b'\t') => "tsv",
            () => "csv",
        };
        let extension = if bytes.starts_with(b"PAR1") { "parquet" } else { extension };
        let number = SPOOLED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("dpo-eval-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|e| Error::io("create", &folder, &e))?;
        let input = Self { file: folder.join(format!("{name}.{extension}")), completions: None, spooled: Some(folder) };
        let mut file = File::create(&input.file).map_err(|e| Error::io("create", &input.file, &e))?;
        file.write_all(&bytes).map_err(|e| Error::io("write", &input.file, &e))?;
        Ok(input)
    }

    /// As messages and tables name it.
    pub fn shown(&self) -> String {
        let spooled = self.spooled.as_ref().and_then(|_| self.file.file_stem());
        spooled.map_or_else(|| self.file.display().to_string(), |name| name.to_string_lossy().into_owned())
    }
}
