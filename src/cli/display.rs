//! Progress for people: bars on a terminal, a line a finished cell elsewhere. A consumer of the runner's events.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run::execute::{Event, Listener};

/// `text` in red where stderr shows colours.
pub fn red(text: &str) -> String {
    format!("\x1b[1;31m{text}\x1b[0m")
}

/// Width of the terminal at stdout, or 100 columns for a file or a pipe. `COLUMNS` overrides both.
pub fn width() -> usize {
    let stated = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    let measured = || console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    stated.or_else(measured).unwrap_or(100).clamp(40, 200)
}

pub fn stdout_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout())
}

/// Whether stdout may carry colours.
pub fn stdout_colour() -> bool {
    stdout_is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// One bar over the whole run, weighted by the expected time of its cells, and one a running cell.
pub struct Bars {
    bars: MultiProgress,
    total: ProgressBar,
    quiet: bool,
    /// Expected milliseconds of each cell.
    weights: BTreeMap<String, u64>,
    running: Mutex<BTreeMap<String, Running>>,
}

struct Running {
    bar: ProgressBar,
    /// Milliseconds of the expected time that the total has been told of.
    counted: u64,
}

impl Bars {
    /// `weights`: expected seconds of each cell.
    pub fn new(weights: BTreeMap<String, f64>, quiet: bool) -> Self {
        let weights: BTreeMap<String, u64> = weights.into_iter().map(|(id, s)| (id, (s * 1000.0) as u64 + 1)).collect();
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(8) };
        let bars = MultiProgress::with_draw_target(target);
        let total = bars.add(ProgressBar::new(weights.values().sum()));
        total.set_style(style("{msg:28!} {wide_bar} {percent:>3}%  {elapsed_precise}  left {eta_precise}"));
        total.set_message("all");
        total.enable_steady_tick(Duration::from_millis(500));
        Self { bars, total, quiet, weights, running: Mutex::default() }
    }

    pub fn finish(&self) {
        self.total.finish_and_clear();
    }

    fn line(&self, text: &str) {
        if !self.quiet && !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            anstream::eprintln!("{text}");
        }
    }

    fn weight(&self, id: &str) -> u64 {
        self.weights.get(id).copied().unwrap_or(1)
    }

    fn start(&self, id: &str) {
        let bar = self.bars.add(ProgressBar::new(0));
        bar.set_style(style("{prefix:28!} {wide_bar} {msg}"));
        bar.set_prefix(id.to_owned());
        self.lock().insert(id.to_owned(), Running { bar, counted: 0 });
    }

    fn advance(&self, id: &str, done: u64, total: u64, note: &str) {
        let weight = self.weight(id);
        if let Some(running) = self.lock().get_mut(id) {
            running.bar.set_length(total);
            running.bar.set_position(done);
            running.bar.set_message(format!("{done}/{total} {note}"));
            let counted = (done as f64 / total.max(1) as f64 * weight as f64) as u64;
            self.total.inc(counted.saturating_sub(running.counted));
            running.counted = running.counted.max(counted);
        }
    }

    fn finish_cell(&self, id: &str) {
        let counted = self.lock().remove(id).map_or(0, |running| {
            running.bar.finish_and_clear();
            running.counted
        });
        self.total.inc(self.weight(id).saturating_sub(counted));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Listener for Bars {
    fn on(&self, event: Event<'_>) {
        match event {
            Event::Cached { cell } => self.finish_cell(&cell.id),
            Event::Started { cell, .. } => self.start(&cell.id),
            Event::Waiting { cell } => self.line(&format!("{}: waiting for another process that works on it", cell.id)),
            Event::Progress { cell, done, total, note } => self.advance(&cell.id, done, total, note),
            Event::Finished { cell, seconds } => {
                self.finish_cell(&cell.id);
                self.line(&format!("{} {seconds:.1} s", cell.id));
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a fixed template").progress_chars("━╸─")
}
