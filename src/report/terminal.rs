//! The report on a terminal: verdict first, then findings, then the gate.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};

use crate::checks::{Answer, Conclusion, Decision, Severity};

use super::format::{self, NONE, visible_line};
use super::{GateReport, GateRow, ReportData, Verdict};

/// Columns for the names of the numbers, and for each variant's `0.0954 [0.0934, 0.0973]`, padding included.
const LABEL_COLUMNS: usize = 30;
const NUMBER_COLUMNS: usize = 25;

#[derive(Clone, Copy)]
enum Colour {
    Good,
    Bad,
    Care,
    Dim,
    Strong,
}

struct Screen {
    out: String,
    width: usize,
    colour: bool,
}

/// What is printed at the end of a run. `width` in columns (60 to 200; others are clamped); `color` turns ANSI colours on.
pub fn terminal(data: &ReportData, width: usize, color: bool) -> String {
    let mut screen = Screen { out: String::new(), width: width.clamp(60, 200), colour: color };
    screen.heading(&format!("{}  {}", data.suite.name, data.suite.title));
    for conclusion in &data.conclusions {
        screen.verdict(data, conclusion);
    }
    screen.measures(data);
    screen.claims(data);
    screen.findings(data);
    if let Some(gate) = &data.gate {
        screen.gate(gate);
    }
    screen.out
}

impl Screen {
    fn line(&mut self, text: &str) {
        writeln!(self.out, "{}", text.trim_end()).expect("a String takes all");
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Good => "32",
            Colour::Bad => "31",
            Colour::Care => "33",
            Colour::Dim => "2",
            Colour::Strong => "1",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn heading(&mut self, text: &str) {
        let text = cut(&visible_line(text), self.width);
        let text = self.paint(Colour::Strong, &text);
        self.line(&text);
    }

    fn verdict(&mut self, data: &ReportData, c: &Conclusion) {
        let colour = match c.answer {
            Answer::Better => Colour::Good,
            Answer::Worse => Colour::Bad,
            Answer::Undecided => Colour::Care,
            Answer::Void => Colour::Dim,
        };
        let (symbol, word) = format::answer(c.answer);
        let mark = self.paint(colour, &format!("{symbol} {word:<9}"));
        let mut said = visible_line(&format!("{}: {}", c.variant, data.label(&c.variant)));
        if data.label(&c.variant) == c.variant {
            said = visible_line(&c.variant);
        }
        if let Some(n) = c.prompts_needed {
            write!(said, " (about {} would decide)", format::plural(n as usize, "prompt")).expect("a String takes all");
        }
        let said = cut(&said, self.width - 13);
        self.line(&format!("{mark}  {said}"));
    }

    /// The numbers behind the verdicts: a column a variant, as many side by side as the width holds.
    fn measures(&mut self, data: &ReportData) {
        let beside = ((self.width - LABEL_COLUMNS) / NUMBER_COLUMNS).max(1);
        for conclusions in data.conclusions.chunks(beside) {
            let mut table = self.table();
            let names = conclusions.iter().map(|c| cut(&visible_line(&c.variant), NUMBER_COLUMNS - 2));
            table.set_header(std::iter::once(String::new()).chain(names));
            let columns: Vec<Vec<(String, String)>> = conclusions.iter().map(|c| numbers(data, c)).collect();
            for (i, (label, _)) in columns[0].iter().enumerate() {
                let values = columns.iter().map(|column| column[i].1.clone());
                table.add_row(std::iter::once(cut(label, LABEL_COLUMNS - 2)).chain(values));
            }
            self.show(&table);
        }
        self.caption(data);
    }

    fn caption(&mut self, data: &ReportData) {
        let Some(first) = data.conclusions.first() else { return };
        let place =
            |c: &Conclusion| c.win_rate.checkpoint.map_or_else(|| format!("step {NONE}"), |at| data.place(&c.variant, at));
        let same = data.conclusions.iter().all(|c| place(c) == place(first));
        let place = if same { place(first) } else { "each variant's last checkpoint".to_owned() };
        let (level, numerics) = (format::percent(first.win_rate.level), data.suite.numerics.name());
        let text = format!("At {place}, with {level} intervals, in {numerics} arithmetic.");
        self.wrapped(&text, 0, Some(Colour::Dim));
    }

    fn claims(&mut self, data: &ReportData) {
        let Some(study) = data.study.as_ref().filter(|study| !study.claims.is_empty()) else { return };
        self.line("");
        self.heading("Claims");
        for claim in &study.claims {
            let (symbol, word, _) = format::decision(claim.decision);
            let colour = match claim.decision {
                Decision::Supported => Colour::Good,
                Decision::Contradicted => Colour::Bad,
                Decision::Undecided => Colour::Care,
            };
            let mark = self.paint(colour, &format!("{symbol} {word:<12}"));
            for (number, line) in wrap(&visible_line(&claim.expected), self.width - 16).iter().enumerate() {
                let before = if number == 0 { mark.clone() } else { format!("{:14}", "") };
                self.line(&format!("{before}  {line}"));
            }
            self.wrapped(&visible_line(&claim.found), 16, None);
        }
    }

    fn findings(&mut self, data: &ReportData) {
        self.line("");
        if data.findings.is_empty() {
            self.line("No findings.");
            return;
        }
        self.heading("Findings");
        for f in &data.findings {
            let (symbol, word) = format::severity(f.severity);
            let colour = match f.severity {
                Severity::Fail => Colour::Bad,
                Severity::Warn => Colour::Care,
                Severity::Info => Colour::Dim,
            };
            let mark = self.paint(colour, &format!("{symbol} {word}"));
            let place = if f.variant.is_empty() { String::new() } else { format!("  {}", visible_line(&f.variant)) };
            let place = cut(&format!("{}{place}", visible_line(&f.id)), self.width - 8);
            self.line(&format!("{mark:<6}  {place}"));
            self.wrapped(&visible_line(&f.message), 8, None);
            self.wrapped(&visible_line(&f.hint), 8, Some(Colour::Dim));
        }
    }

    fn gate(&mut self, gate: &GateReport) {
        let (symbol, word) = format::verdict(gate.verdict);
        self.line("");
        let heading = format!("Gate {}", self.paint(verdict_colour(gate.verdict), &format!("{symbol} {word}")));
        self.line(&heading);
        let golden = format!("golden {}: {}", format::shortened(&gate.golden), gate.golden_reason);
        self.wrapped(&visible_line(&golden), 0, Some(Colour::Dim));
        for row in gate.rows.iter().filter(|r| r.is_worth_a_line()) {
            self.gate_row(row);
        }
        let mut quiet: BTreeMap<&str, usize> = BTreeMap::new();
        for row in gate.rows.iter().filter(|r| !r.is_worth_a_line()) {
            *quiet.entry(&row.kind).or_default() += 1;
        }
        for (kind, count) in quiet {
            let mark = self.paint(Colour::Good, "✓ pass        ");
            let said = cut(&format!("{} of kind {}", format::plural(count, "comparison"), visible_line(kind)), self.width - 16);
            self.line(&format!("{mark}  {said}"));
        }
    }

    fn gate_row(&mut self, row: &GateRow) {
        let (symbol, word) = format::verdict(row.verdict);
        let mark = self.paint(verdict_colour(row.verdict), &format!("{symbol} {word:<12}"));
        let named = cut(&visible_line(&format!("{}  {}", row.kind, row.name)), self.width - 16);
        self.line(&format!("{mark}  {named}"));
        if row.difference.is_some() {
            self.wrapped(&format!("difference {}", super::gate_difference(row)), 16, None);
        } else if row.verdict != Verdict::Pass {
            let (golden, found) = (format::shortened(&row.golden), format::shortened(&row.found));
            self.wrapped(&visible_line(&format!("golden {golden}, found {found}")), 16, None);
        }
        self.wrapped(&visible_line(&row.message), 16, Some(Colour::Dim));
    }

    fn table(&self) -> Table {
        ruled_table(self.width)
    }

    fn show(&mut self, table: &Table) {
        for line in table.lines() {
            self.line(&line);
        }
    }

    /// Words flowed into the width, indented; a word longer than a line is broken.
    fn wrapped(&mut self, text: &str, indent: usize, colour: Option<Colour>) {
        for line in wrap(text, self.width - indent) {
            let line = colour.map_or_else(|| line.clone(), |c| self.paint(c, &line));
            self.line(&format!("{:indent$}{line}", ""));
        }
    }
}

fn ruled_table(width: usize) -> Table {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().top_border(rule).header_separator(rule).bottom_border(rule));
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width as u16);
    table
}

/// Rows under a header, between rules, as wide as their content and no wider than `width`.
pub(super) fn plain_table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>, width: usize) -> String {
    wide_table(header.map(str::to_owned).to_vec(), rows.map(Vec::from), width)
}

/// The same of as many columns as there are.
pub(super) fn wide_table(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>, width: usize) -> String {
    let mut table = ruled_table(width);
    table.set_header(header);
    table.add_rows(rows);
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

const MEASURES: [(&str, &str); 3] =
    [("implicit_reward_accuracy", "implicit accuracy"), ("kl_per_token", "KL/token, nats"), ("length_ratio", "length ratio")];

fn verdict_colour(verdict: Verdict) -> Colour {
    match verdict {
        Verdict::Pass => Colour::Good,
        Verdict::Fail => Colour::Bad,
        Verdict::Inconclusive => Colour::Care,
    }
}

/// The deciding judge, and gold where there is one.
fn decisive(data: &ReportData) -> Vec<&str> {
    let mut judges = vec![data.judge.as_str()];
    if data.has_gold() && data.judge != crate::judge::GOLD {
        judges.push(crate::judge::GOLD);
    }
    judges
}

/// Label and text of the numbers behind a conclusion.
fn numbers(data: &ReportData, c: &Conclusion) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for judge in decisive(data) {
        let shown = if judge == data.judge { Some(&c.win_rate) } else { c.gold_win_rate.as_ref() };
        let correction = shown.map_or("", format::correction);
        let shown = shown.map_or_else(|| NONE.to_owned(), format::estimate);
        rows.push((format!("win rate by {}{correction}", visible_line(judge)), shown));
    }
    for (metric, label) in MEASURES {
        let shown = data.headline(metric, &c.variant, None).map_or_else(|| NONE.to_owned(), format::estimate);
        rows.push((label.to_owned(), shown));
    }
    rows
}

pub(super) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if columns(&kept) + width_of(c) >= width {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        let last = lines.last_mut().expect("one line at least");
        if !last.is_empty() && columns(last) + 1 + columns(&word) <= width {
            *last += " ";
            *last += &word;
            continue;
        }
        if !last.is_empty() {
            lines.push(String::new());
        }
        while columns(&word) > width {
            let rest = word.split_off(prefix_within(&word, width));
            *lines.last_mut().expect("one line at least") = word;
            lines.push(String::new());
            word = rest;
        }
        *lines.last_mut().expect("one line at least") = word;
    }
    lines
}

/// Bytes of the longest prefix that fits.
fn prefix_within(text: &str, width: usize) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += width_of(c);
        if used > width {
            return at;
        }
    }
    text.len()
}

fn columns(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

/// Columns that a character takes: two for the East Asian wide blocks and emoji, one for the rest (combining marks are
/// counted too, so a line may end early but never late).
fn width_of(c: char) -> usize {
    match c {
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' => 2,
        '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{1f000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}
