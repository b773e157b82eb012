//! Two finished runs side by side: what `compare` shows. `gate::runs` makes it.

use serde::Serialize;

use super::format::{self, visible_line};
use super::{metrics, terminal};
use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub old: RunName,
    pub new: RunName,
    /// What to know before trusting the numbers: what the runs don't have in common.
    pub notes: Vec<String>,
    pub rows: Vec<ComparisonRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunName {
    pub suite: String,
    /// Of the suite's settings.
    pub digest: String,
}

/// New minus old of one metric, at each side's last checkpoint, all seeds together. The field order is the column order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparisonRow {
    pub old_variant: String,
    pub new_variant: String,
    pub metric: String,
    pub judge: Option<String>,
    pub old: f64,
    pub new: f64,
    pub difference: f64,
    pub lower: f64,
    pub upper: f64,
    pub level: f64,
    /// Prompts that both sides have.
    pub prompts: usize,
    /// Whether no prompt differs. The interval then says how many others could.
    pub equal: bool,
    /// Of a win rate that is undecided: the prompts that would decide.
    pub prompts_needed: Option<u64>,
    pub method: String,
}

impl ComparisonRow {
    /// Whether the interval says which side has more of it.
    fn answer(&self) -> &'static str {
        match (self.lower > 0.0, self.upper < 0.0) {
            _ if self.equal => "equal",
            (true, _) => "higher",
            (_, true) => "lower",
            _ => "undecided",
        }
    }
}

impl Comparison {
    /// A table for each pair of variants. `width` in columns.
    pub fn terminal(&self, width: usize) -> String {
        let mut out = String::new();
        let [old, new] = [&self.old, &self.new].map(|run| format!("{} ({})", visible_line(&run.suite), &run.digest[..12]));
        out += &format!("old  {old}\nnew  {new}\n");
        for note in &self.notes {
            terminal::wrap(&format!("! {}", visible_line(note)), width).iter().for_each(|line| out += &format!("{line}\n"));
        }
        for rows in self.rows.chunk_by(|a, b| (&a.old_variant, &a.new_variant) == (&b.old_variant, &b.new_variant)) {
            out += &format!("\n{}\n", terminal::cut(&visible_line(&title(&rows[0])), width));
            out += &terminal::plain_table(["", "old", "new", "new − old", ""], rows.iter().map(cells), width);
        }
        let (level, prompts) = (self.rows[0].level, self.rows.iter().map(|r| r.prompts).max().unwrap_or(0));
        let caption = format!(
            "Paired by prompt ({}), at each side's last checkpoint, all seeds together, with {} intervals.",
            format::plural(prompts, "common prompt"),
            format::percent(level)
        );
        terminal::wrap(&caption, width).iter().for_each(|line| out += &format!("{line}\n"));
        out
    }

    pub fn csv(&self) -> Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let broken = |e: String| Error::unexpected(format!("the comparison can't be written as CSV: {e}"));
        self.rows.iter().try_for_each(|row| writer.serialize(row)).map_err(|e| broken(e.to_string()))?;
        let bytes = writer.into_inner().map_err(|e| broken(e.to_string()))?;
        String::from_utf8(bytes).map_err(|e| broken(e.to_string()))
    }
}

fn title(row: &ComparisonRow) -> String {
    if row.old_variant == row.new_variant {
        row.new_variant.clone()
    } else {
        format!("{} − {}", row.new_variant, row.old_variant)
    }
}

fn cells(row: &ComparisonRow) -> [String; 5] {
    let digits = metrics::digits(&row.metric);
    let label = metrics::find(&row.metric).map_or(row.metric.as_str(), |m| m.label);
    let label = row.judge.as_ref().map_or_else(|| label.to_owned(), |judge| format!("{label}, by {}", visible_line(judge)));
    let needed =
        row.prompts_needed.map_or_else(String::new, |n| format!(" ({} would decide)", format::plural(n as usize, "prompt")));
    let value = |value| format::fixed(value, digits);
    let difference = format::with_interval(row.difference, row.lower, row.upper, digits);
    [label, value(row.old), value(row.new), difference, format!("{}{needed}", row.answer())]
}
