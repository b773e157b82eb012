//! Progress for people: bars on a terminal, a line a finished cell elsewhere. A consumer of the runner's events.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run::execute::{Event, Listener};
use crate::watch::Watch;

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

/// One bar for one piece of work outside of a plan; shown on a terminal alone, and from the second second on.
pub struct Bar {
    bar: ProgressBar,
    started: Instant,
    quiet: bool,
}

impl Bar {
    pub fn new(what: &'static str, quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style("{msg:12!} {wide_bar} {pos}/{len}  {per_sec}  left {eta_precise}"));
        bar.set_message(what);
        Self { bar, started: Instant::now(), quiet }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Bar {
    fn advance(&self, done: u64, total: u64, _: &str) {
        if !self.quiet && self.bar.is_hidden() && self.started.elapsed() >= Duration::from_secs(2) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    fn interrupted(&self) -> bool {
        super::INTERRUPTED.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn warn(&self, message: &str) {
        self.bar.suspend(|| anstream::eprintln!("warning: {message}"));
    }
}

/// How often a cell says how far it is where there is no terminal.
const LINES_EVERY: Duration = Duration::from_secs(60);

/// A terminal with fewer columns has no room for bars beside the words.
const NARROW: u16 = 100;

struct Running {
    bar: ProgressBar,
    /// The work that it counts now: its units, how many were done when it was first heard of, and when.
    phase: (u64, u64, Instant),
    /// When its last line was printed.
    said: Instant,
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
        total.set_style(style(total_template(columns())));
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
        bar.set_style(style(cell_template(columns())));
        bar.set_prefix(id.to_owned());
        let now = Instant::now();
        self.lock().insert(id.to_owned(), Running { bar, phase: (0, 0, now), said: now, counted: 0 });
    }

    fn advance(&self, id: &str, done: u64, total: u64, note: &str) {
        let weight = self.weight(id);
        if let Some(running) = self.lock().get_mut(id) {
            let now = Instant::now();
            if running.phase.0 != total || running.phase.1 > done {
                running.phase = (total, done, now);
            }
            let (_, first, since) = running.phase;
            let message = format!("{done}/{total} {note}{}", left(now - since, done - first, total.saturating_sub(done)));
            running.bar.set_length(total);
            running.bar.set_position(done);
            if now - running.said >= LINES_EVERY {
                running.said = now;
                self.line(&format!("{id}: {message}"));
            }
            running.bar.set_message(message);
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
            Event::Warning { cell, message } => {
                self.bars.suspend(|| anstream::eprintln!("warning: {}: {message}", cell.id));
            }
            Event::Finished { cell, seconds } => {
                self.finish_cell(&cell.id);
                self.line(&format!("{} {seconds:.1} s", cell.id));
            }
        }
    }
}

/// Width of the terminal at stderr.
fn columns() -> u16 {
    console::Term::stderr().size_checked().map_or(NARROW, |(_, columns)| columns)
}

fn total_template(columns: u16) -> &'static str {
    match columns {
        0..NARROW => "{msg} {percent:>3}%  {elapsed_precise}  left {eta_precise}",
        _ => "{msg:28!} {wide_bar} {percent:>3}%  {elapsed_precise}  left {eta_precise}",
    }
}

/// On a narrow terminal the words alone, cut at its edge: a line that wraps would be drawn again below itself.
fn cell_template(columns: u16) -> &'static str {
    match columns {
        0..60 => "{prefix:12!} {wide_msg}",
        60..NARROW => "{prefix:20!} {wide_msg}",
        _ => "{prefix:28!} {wide_bar} {msg}",
    }
}

/// ` left 1:05`, from how long the units took that were done so far; nothing before the first of them.
fn left(took: Duration, done: u64, to_do: u64) -> String {
    if done == 0 || to_do == 0 {
        return String::new();
    }
    let seconds = (took.as_secs_f64() / done as f64 * to_do as f64).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!(" left {minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!(" left {hours}:{minutes:02}:{seconds:02}"),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a fixed template").progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_pace_so_far() {
        let minute = Duration::from_secs(60);
        assert_eq!(left(minute, 0, 10), "");
        assert_eq!(left(minute, 60, 65), " left 1:05");
        assert_eq!(left(minute, 1, 61), " left 1:01:00");
        assert_eq!(left(minute, 10, 0), "");
    }

    /// The longest words that a training says, on terminals of every width: a line each, cut and never wrapped.
    #[test]
    fn a_cells_line_fits_any_terminal() {
        for columns in [20u16, 40, 59, 60, 80, 99, 100, 120, 200] {
            let terminal = indicatif::InMemoryTerm::new(4, columns);
            let bar = ProgressBar::with_draw_target(Some(400), ProgressDrawTarget::term_like(Box::new(terminal.clone())));
            bar.set_style(style(cell_template(columns)));
            bar.set_prefix("train/a-variant-with-a-long-name/seed-1");
            bar.set_message("1234/4000 loss 0.6120 margin 0.35 acc 0.72 18345 tok/s left 1:23:45");
            bar.tick();
            let drawn = terminal.contents();
            assert_eq!(drawn.lines().count(), 1, "{columns}: {drawn}");
            assert!(columns < 59 || drawn.contains("loss 0.6120"), "{columns}: {drawn}");
        }
    }
}
