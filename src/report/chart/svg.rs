//! SVG text: every coordinate with one decimal, every string escaped.

use std::fmt::Write;

use super::super::format;
use super::SERIES;

#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

pub(crate) struct Svg {
    out: String,
}

type At = (f64, f64);

impl Svg {
    pub fn new(id: &str, title: &str, about: &str, width: f64, height: f64) -> Self {
        let (title, about) = (escaped(title), escaped(about));
        let out = format!(
            "<svg role=\"img\" aria-labelledby=\"{id}-t {id}-d\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\"><title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{about}</desc>"
        );
        Self { out }
    }

    fn push(&mut self, arguments: std::fmt::Arguments) {
        self.out.write_fmt(arguments).expect("a String takes all");
    }

    pub fn line(&mut self, class: &str, (x1, y1): At, (x2, y2): At) {
        if [x1, y1, x2, y2].iter().all(|v| v.is_finite()) {
            let (x1, y1, x2, y2) = (number(x1), number(y1), number(x2), number(y2));
            self.push(format_args!("<path class=\"{class}\" d=\"M{x1} {y1}L{x2} {y2}\"/>"));
        }
    }

    pub fn polyline(&mut self, class: &str, points: &[At]) {
        if points.len() > 1 {
            let path = path(points);
            self.push(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
        }
    }

    pub fn polygon(&mut self, class: &str, points: &[At]) {
        if points.len() > 2 {
            let path = path(points);
            self.push(format_args!("<path class=\"{class}\" d=\"{path}Z\"/>"));
        }
    }

    pub fn rect(&mut self, class: &str, (left, top): At, (right, bottom): At) {
        let (x, y, width, height) = (number(left), number(top), number((right - left).max(0.5)), number(bottom - top));
        self.push(format_args!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"));
    }

    pub fn text(&mut self, class: &str, (x, y): At, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, text) = (number(x), number(y), escaped(text));
        self.push(format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"));
    }

    /// Text that reads from bottom to top.
    pub fn upright_text(&mut self, class: &str, (x, y): At, text: &str) {
        let (x, y, text) = (number(x), number(y), escaped(text));
        let place = format!("transform=\"translate({x} {y}) rotate(-90)\"");
        self.push(format_args!("<text class=\"{class}\" {place} text-anchor=\"middle\">{text}</text>"));
    }

    /// The shape of a series, with words that a pointer brings up.
    pub fn marker(&mut self, series: usize, class: &str, at: At, radius: f64, about: &str) {
        if at.0.is_finite() && at.1.is_finite() {
            let (shape, about) = (marker(series, class, at, radius), escaped(about));
            self.push(format_args!("<g>{shape}<title>{about}</title></g>"));
        }
    }

    pub fn finish(mut self) -> String {
        self.out += "</svg>";
        self.out
    }
}

/// Circle, square, triangle, diamond, triangle pointing down, cross: by the number of the series.
pub(crate) fn marker(series: usize, class: &str, (x, y): At, r: f64) -> String {
    let corners: Vec<At> = match series % SERIES {
        0 => return format!("<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"{}\"/>", number(x), number(y), number(r)),
        1 => [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)].to_vec(),
        2 => [(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)].to_vec(),
        3 => [(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)].to_vec(),
        4 => [(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)].to_vec(),
        _ => CROSS.to_vec(),
    };
    let placed: Vec<At> = corners.into_iter().map(|(dx, dy)| (x + dx * r, y + dy * r)).collect();
    format!("<path class=\"{class}\" d=\"{}Z\"/>", path(&placed))
}

const CROSS: [At; 12] = [
    (-0.4, -1.2),
    (0.4, -1.2),
    (0.4, -0.4),
    (1.2, -0.4),
    (1.2, 0.4),
    (0.4, 0.4),
    (0.4, 1.2),
    (-0.4, 1.2),
    (-0.4, 0.4),
    (-1.2, 0.4),
    (-1.2, -0.4),
    (-0.4, -0.4),
];

fn path(points: &[At]) -> String {
    let mut out = String::with_capacity(points.len() * 12);
    for (i, &(x, y)) in points.iter().enumerate() {
        let command = if i == 0 { 'M' } else { 'L' };
        write!(out, "{command}{} {}", number(x), number(y)).expect("a String takes all");
    }
    out
}

/// One decimal, none where it is zero.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    match text.strip_suffix(".0") {
        Some("-0") => "0".to_owned(),
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// Text and attribute values in which nothing is markup and nothing steers.
pub(crate) fn escaped(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in format::visible(raw).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
