//! A forest plot: a row an estimate, with its interval, against lines that matter: of no difference, of a limit.

use super::super::format;
use super::svg::{Anchor, Svg};
use super::{Axis, colour};

pub(crate) struct ForestRow {
    /// Begins a group: a row of its own above this one.
    pub heading: Option<String>,
    pub label: String,
    pub value: f64,
    pub lower: f64,
    pub upper: f64,
    pub series: usize,
    /// Pooled rows are strong, those of single seeds are light.
    pub strong: bool,
    /// The numbers as text.
    pub text: String,
}

/// Where things stand: the words beside the intervals where there is room, else above them, or left out.
pub(crate) struct Layout {
    width: f64,
    left: f64,
    right: f64,
    row: f64,
    heading: f64,
    /// Characters of a heading that fit.
    longest_heading: usize,
    /// From the top of a row to the words' baseline, and to the interval.
    words: Option<f64>,
    interval: f64,
}

impl Layout {
    pub const WIDE: Self = Self {
        width: 960.0,
        longest_heading: 90,
        left: 260.0,
        right: 780.0,
        row: 24.0,
        heading: 32.0,
        words: Some(16.0),
        interval: 12.0,
    };
    pub const NARROW: Self = Self {
        width: 340.0,
        longest_heading: 36,
        left: 12.0,
        right: 328.0,
        row: 40.0,
        heading: 32.0,
        words: Some(16.0),
        interval: 28.0,
    };
    /// Of more rows than can be named: who a mark is of, it says itself when it is pointed at.
    pub const DENSE: Self = Self { row: 9.0, words: None, interval: 5.0, ..Self::NARROW };
}

/// `about`: for those who can't see it. `rules`: the lines that matter.
pub(crate) fn forest(
    id: &str,
    [title, about]: [&str; 2],
    axis: &Axis,
    rules: &[f64],
    rows: &[ForestRow],
    layout: &Layout,
) -> String {
    let headings = rows.iter().filter(|r| r.heading.is_some()).count() as f64;
    let body = rows.len() as f64 * layout.row + headings * layout.heading + 6.0;
    let named = if axis.label.is_empty() { 24.0 } else { 46.0 };
    let mut svg = Svg::new(id, title, about, layout.width, body + named);
    let x = |value: f64| axis.place(value, layout.left, layout.right);
    for &tick in &axis.ticks {
        svg.line("grid", (x(tick), 0.0), (x(tick), body));
        svg.text("tick", (x(tick), body + 16.0), Anchor::Middle, &axis.tick_label(tick));
    }
    svg.line("axis", (layout.left, body), (layout.right, body));
    for rule in rules {
        svg.line("rule", (x(*rule), 0.0), (x(*rule), body));
    }
    if !axis.label.is_empty() {
        svg.text("label", ((layout.left + layout.right) / 2.0, body + 38.0), Anchor::Middle, &axis.label);
    }
    let mut top = 0.0;
    for row in rows {
        if let Some(heading) = &row.heading {
            svg.text("heading", (2.0, top + 22.0), Anchor::Start, &format::cut(heading, layout.longest_heading));
            top += layout.heading;
        }
        draw(&mut svg, row, top, layout, x);
        top += layout.row;
    }
    svg.finish()
}

fn draw(svg: &mut Svg, row: &ForestRow, top: f64, layout: &Layout, x: impl Fn(f64) -> f64) {
    let (class, weight) = (colour(row.series), if row.strong { "strong" } else { "light" });
    if let Some(words) = layout.words {
        svg.text(&format!("name {weight}"), (12.0, top + words), Anchor::Start, &row.label);
        svg.text(&format!("name {weight}"), (layout.width - 2.0, top + words), Anchor::End, &row.text);
    }
    let y = top + layout.interval;
    svg.line(&format!("err {weight} {class}"), (x(row.lower), y), (x(row.upper), y));
    for end in [row.lower, row.upper] {
        svg.line(&format!("err {weight} {class}"), (x(end), y - 4.0), (x(end), y + 4.0));
    }
    let radius = if row.strong && layout.words.is_some() { 5.5 } else { 3.5 };
    svg.marker(row.series, &format!("dot {class}"), (x(row.value), y), radius, &format!("{}: {}", row.label, row.text));
}
