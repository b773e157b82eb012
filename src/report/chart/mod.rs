//! Charts as inline SVG: plain text with fixed rounding, colours by CSS classes (`c0`… per series) so that light, dark and
//! print each have theirs, and a shape per series beside the colour.

mod axis;
mod forest;
mod svg;

pub(crate) use axis::Axis;
pub(crate) use forest::{ForestRow, Layout, forest};
pub(crate) use svg::escaped;
use svg::{Anchor, Svg, marker};

/// Distinct colours and shapes; further series begin again.
pub(crate) const SERIES: usize = 6;

/// The CSS class that gives a series its colour.
pub(crate) fn colour(series: usize) -> String {
    format!("c{}", series % SERIES)
}

const LEFT: f64 = 48.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;

/// An x-y chart with its axes drawn; marks go on top in the order of the calls.
pub(crate) struct Plot {
    svg: Svg,
    x: Axis,
    y: Axis,
    width: f64,
    height: f64,
}

impl Plot {
    /// `id` is unique on the page; `about` says in words what the picture shows.
    pub fn new(id: &str, title: &str, about: &str, (width, height): (f64, f64), x: Axis, y: Axis) -> Self {
        let mut plot = Self { svg: Svg::new(id, title, about, width, height), x, y, width, height };
        plot.axes();
        plot
    }

    fn axes(&mut self) {
        let (right, bottom) = (self.width - RIGHT, self.height - BOTTOM);
        for tick in self.y.ticks.clone() {
            let y = self.at_y(tick);
            self.svg.line("grid", (LEFT, y), (right, y));
            let label = self.y.tick_label(tick);
            self.svg.text("tick", (LEFT - 6.0, y + 4.0), Anchor::End, &label);
        }
        for tick in self.x.ticks.clone() {
            let x = self.at_x(tick);
            self.svg.line("axis", (x, bottom), (x, bottom + 4.0));
            let label = self.x.tick_label(tick);
            self.svg.text("tick", (x, bottom + 17.0), Anchor::Middle, &label);
        }
        self.svg.line("axis", (LEFT, bottom), (right, bottom));
        let middle = ((LEFT + right) / 2.0, self.height - 6.0);
        self.svg.text("label", middle, Anchor::Middle, &self.x.label);
        if !self.y.label.is_empty() {
            let place = (11.0, (TOP + bottom) / 2.0);
            self.svg.upright_text("label", place, &self.y.label);
        }
    }

    fn at_x(&self, x: f64) -> f64 {
        self.x.place(x, LEFT, self.width - RIGHT)
    }

    fn at_y(&self, y: f64) -> f64 {
        self.y.place(y, self.height - BOTTOM, TOP)
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.at_x(x), self.at_y(y))
    }

    fn finite<'a>(&'a self, points: &'a [(f64, f64)]) -> impl Iterator<Item = (f64, f64)> + 'a {
        points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).map(|&p| self.at(p))
    }

    pub fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        let placed: Vec<_> = self.finite(points).collect();
        self.svg.polyline(&format!("line {class}"), &placed);
    }

    /// The area between two curves over the same x: `(x, low, high)`.
    pub fn band(&mut self, class: &str, spans: &[(f64, f64, f64)]) {
        let lower = spans.iter().map(|s| (s.0, s.1));
        let upper = spans.iter().rev().map(|s| (s.0, s.2));
        let outline: Vec<_> = lower.chain(upper).collect();
        let placed: Vec<_> = self.finite(&outline).collect();
        self.svg.polygon(&format!("band {class}"), &placed);
    }

    /// A dashed line across at a value that means something, with its name.
    pub fn rule(&mut self, y: f64, name: &str) {
        let (at, right) = (self.at_y(y), self.width - RIGHT);
        self.svg.line("rule", (LEFT, at), (right, at));
        self.svg.text("note", (right, at - 4.0), Anchor::End, name);
    }

    pub fn upright_rule(&mut self, x: f64) {
        let (at, bottom) = (self.at_x(x), self.height - BOTTOM);
        self.svg.line("rule", (at, TOP), (at, bottom));
    }

    pub fn point(&mut self, series: usize, class: &str, at: (f64, f64), about: &str) {
        let placed = self.at(at);
        self.svg.marker(series, &format!("dot {class}"), placed, 5.0, about);
    }

    pub fn small_point(&mut self, series: usize, class: &str, at: (f64, f64), about: &str) {
        let placed = self.at(at);
        self.svg.marker(series, &format!("dot {class}"), placed, 3.0, about);
    }

    pub fn note(&mut self, at: (f64, f64), (right, up): (f64, f64), text: &str) {
        let (x, y) = self.at(at);
        self.svg.text("note", (x + right, y - up), Anchor::Start, text);
    }

    pub fn error_x(&mut self, class: &str, y: f64, low: f64, high: f64) {
        let (from, to) = (self.at((low, y)), self.at((high, y)));
        self.svg.line(&format!("err {class}"), from, to);
    }

    pub fn error_y(&mut self, class: &str, x: f64, low: f64, high: f64) {
        let (from, to) = (self.at((x, low)), self.at((x, high)));
        self.svg.line(&format!("err {class}"), from, to);
    }

    /// Bars from zero: `(from, to, height)`.
    pub fn bars(&mut self, class: &str, bars: &[(f64, f64, f64)]) {
        for &(from, to, height) in bars.iter().filter(|b| b.2 > 0.0) {
            let (left, top) = self.at((from, height));
            let (right, bottom) = self.at((to, 0.0));
            self.svg.rect(&format!("bar {class}"), (left + 0.5, top), (right - 0.5, bottom));
        }
    }

    /// The same as one stepped line.
    pub fn outline(&mut self, class: &str, bars: &[(f64, f64, f64)]) {
        let (Some(first), Some(last)) = (bars.first(), bars.last()) else { return };
        let mut points = vec![(first.0, 0.0)];
        points.extend(bars.iter().flat_map(|b| [(b.0, b.2), (b.1, b.2)]));
        points.push((last.1, 0.0));
        self.line(class, &points);
    }

    pub fn finish(self) -> String {
        self.svg.finish()
    }
}

/// One entry of a legend: a swatch and its name.
pub(crate) struct Key {
    pub series: usize,
    pub kind: KeyKind,
    pub name: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Line,
    Dashed,
    /// A mark alone.
    Mark,
    Bar,
    /// The stepped line of the reference.
    Outline,
}

/// A legend as an HTML list.
pub(crate) fn legend(keys: &[Key]) -> String {
    let mut out = String::from("<ul class=\"legend\">");
    for key in keys {
        let class = colour(key.series);
        let swatch = match key.kind {
            KeyKind::Bar => format!("<rect class=\"bar {class}\" x=\"2\" y=\"2\" width=\"22\" height=\"10\"/>"),
            KeyKind::Outline => "<path class=\"line ref\" d=\"M2 12V4H24V12\"/>".to_owned(),
            KeyKind::Mark => marker(key.series, &format!("dot {class}"), (13.0, 7.0), 4.0),
            kind => {
                let dash = if kind == KeyKind::Dashed { " dashed" } else { "" };
                let dot = marker(key.series, &format!("dot {class}"), (13.0, 7.0), 4.0);
                format!("<path class=\"line {class}{dash}\" d=\"M1 7H25\"/>{dot}")
            }
        };
        let name = escaped(&key.name);
        out +=
            &format!("<li><svg aria-hidden=\"true\" viewBox=\"0 0 26 14\" width=\"26\" height=\"14\">{swatch}</svg>{name}</li>");
    }
    out + "</ul>"
}
