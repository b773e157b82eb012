//! The one error type: a sentence, the place, the next step, and the class that decides the exit code.

use std::fmt;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in the classes that exit codes distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A defect or a failure of the machine that no other class names.
    Unexpected,
    /// The command line or the suite file is wrong.
    Usage,
    /// A file is missing, unreadable, malformed, or has another digest than stated.
    Input,
    /// The selection matched nothing.
    NothingSelected,
    /// Cells are missing, so the run can't be summarised.
    Incomplete,
    /// Another process holds what this one needs; trying again may work.
    TryAgain,
    /// The same cell gave other bits.
    NotReproducible,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

/// Where in a text file an error points to. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    pub line: Option<usize>,
    pub column: Option<usize>,
    /// The line itself, shown under the message with a caret at `column`.
    pub excerpt: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    /// One sentence that names the thing and what is wrong with it.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
    /// Boxed: nearly every function returns this type, and most errors have no place.
    pub place: Option<Box<Place>>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None, place: None }
    }
    pub fn unexpected(message: impl Into<String>) -> Self {
        Self::new(Kind::Unexpected, message)
    }
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.place = Some(Box::new(Place { file: file.into(), line: None, column: None, excerpt: None }));
        self
    }
    pub fn at_line(mut self, file: impl Into<PathBuf>, line: usize) -> Self {
        self.place = Some(Box::new(Place { file: file.into(), line: Some(line), column: None, excerpt: None }));
        self
    }

    /// An input/output failure on `path`. A missing file or a file in a folder's place is an input error; a full disk or a missing
    /// permission says so.
    pub fn io(action: &str, path: &Path, source: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let shown = path.display();
        match source.kind() {
            ErrorKind::NotFound => Self::input(format!("cannot {action} {shown}: no such file or folder")),
            ErrorKind::NotADirectory => Self::input(format!("cannot {action} {shown}: a part of this path is a file")),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::input(format!("cannot {action} {shown}: permission denied"))
                    .help("choose a place that this user may write to, or change its permissions")
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Self::new(Kind::TryAgain, format!("cannot {action} {shown}: the disk is full"))
                    .help("free some space and run the same command again; finished work is kept")
            }
            _ => Self::unexpected(format!("cannot {action} {shown}: {source}")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}", place.file.display())?;
            if let Some(line) = place.line {
                write!(f, ":{line}")?;
                if let Some(column) = place.column {
                    write!(f, ":{column}")?;
                }
            }
            write!(f, ": ")?;
        }
        write!(f, "{}", self.message)?;
        if let Some(Place { line: Some(line), excerpt: Some(excerpt), column, .. }) = self.place.as_deref() {
            write!(f, "\n  {line} | {excerpt}")?;
            if let Some(column) = column {
                let indent = format!("  {line} | ").len() + column - 1;
                write!(f, "\n{:indent$}^", "")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
