//! What a suite names on the hub: fetched with progress on stderr, or said to be missing.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::INTERRUPTED;
use crate::error::{Error, Result};
use crate::hub::{Files, Hub, Repo, State, Wanted, Written};
use crate::suite::Suite;
use crate::watch::Watch;

/// How often it is said how far a file is where there is no terminal.
const LINES_EVERY: Duration = Duration::from_secs(30);

/// Fetches what a suite names on the hub and the cache doesn't hold.
pub(super) fn fetch(suite: &Suite, quiet: bool) -> Result<()> {
    fetch_all(&suite.on_hub(), quiet)
}

pub(super) fn fetch_all(all: &[Wanted], quiet: bool) -> Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let hub = Hub::from_env();
    for wanted in all {
        let bar = Bar::new(quiet, &wanted.reference.to_string());
        let fetched = hub.fetch(wanted, &bar);
        bar.bar.finish_and_clear();
        fetched?;
    }
    Ok(())
}

/// Where a path of the command line lies: what is the hub's is fetched first.
pub(super) fn located(repo: Repo, written: &Path, files: Files, quiet: bool) -> Result<PathBuf> {
    match Written::of(repo, written) {
        Written::Hub(reference) if (files == Files::One) != reference.file.is_some() => {
            let error = Error::usage(format!("{} is not what is needed here", written.display()));
            Err(error.help("a file of a data set is org/name@<commit>:folder/file, a model org/name@<commit>"))
        }
        Written::Hub(reference) => {
            let place = reference.place();
            fetch_all(&[Wanted { reference, files }], quiet)?;
            Ok(place)
        }
        Written::Wrong(message, help) if !written.exists() => Err(Error::usage(message).help(help)),
        Written::Local | Written::Wrong(..) => Ok(written.to_owned()),
    }
}

/// What is not in the cache of what a suite names on the hub: a line each.
pub(super) fn missing(suite: &Suite) -> Result<Vec<String>> {
    let hub = Hub::from_env();
    let mut lines = Vec::new();
    for wanted in suite.on_hub() {
        if let State::Missing(files) = hub.state(&wanted)? {
            let then = match hub.offline {
                Some(variable) => format!("and {variable} forbids fetching it"),
                None => format!("and is fetched from {} when the suite runs", hub.endpoint),
            };
            let (kind, reference) = (wanted.kind(), &wanted.reference);
            lines.push(format!("{kind} {reference} isn't in the cache ({} is missing), {then}", files.join(", ")));
        }
    }
    Ok(lines)
}

/// Bytes of what is fetched now.
struct Bar {
    bar: ProgressBar,
    name: String,
    lines: bool,
    said: Mutex<Option<Instant>>,
}

impl Bar {
    fn new(quiet: bool, name: &str) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(8) };
        let bar = ProgressBar::with_draw_target(None, target);
        let template = "{prefix} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta} {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("a template of ours"));
        bar.set_prefix(name.to_owned());
        let lines = !quiet && !std::io::IsTerminal::is_terminal(&std::io::stderr());
        Self { bar, name: name.to_owned(), lines, said: Mutex::default() }
    }
}

impl Watch for Bar {
    fn advance(&self, done: u64, total: u64, note: &str) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.bar.message() != note {
            self.bar.set_message(note.to_owned());
        }
        let mut said = self.said.lock().expect("nobody panics while it is held");
        if self.lines && said.is_none_or(|at| at.elapsed() >= LINES_EVERY) {
            *said = Some(Instant::now());
            anstream::eprintln!("fetching {}: {} of {} MB, {note}", self.name, done / 1_000_000, total.div_ceil(1_000_000));
        }
    }

    fn interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::SeqCst)
    }

    fn warn(&self, message: &str) {
        self.bar.suspend(|| anstream::eprintln!("warning: {message}"));
    }
}
