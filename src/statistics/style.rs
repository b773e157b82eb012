//! What a text looks like: length and Markdown, as Arena-Hard counts them (Arena-Hard-Auto v2, `utils/add_markdown_info.py`).
//!
//! Code blocks don't count. Lengths are words between white space, where Arena-Hard counts tokens: no tokenizer is at hand, and the
//! features are ratios.

/// Counts of one text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Style {
    pub words: f64,
    /// Lines that begin with one to six `#` and white space.
    pub headers: f64,
    /// Lines that begin with `1.`, `-`, `*` or `+` and white space.
    pub lists: f64,
    /// Stretches in `**` or `__` within a line.
    pub bold: f64,
}

/// The names of [`differences`], in order.
pub const FEATURES: [&str; 4] = ["length", "headers", "lists", "bold"];

impl Style {
    pub fn of(text: &str) -> Self {
        let prose = without_code(text);
        // With its line break, which is white space too.
        let count = |is: fn(&str) -> bool| prose.split_inclusive('\n').filter(|line| is(line)).count() as f64;
        Self {
            words: text.split_whitespace().count() as f64,
            headers: count(is_header),
            lists: count(is_list_item),
            bold: prose.lines().map(|line| stretches(line, "**", '*') + stretches(line, "__", '_')).sum::<usize>() as f64,
        }
    }
}

/// Policy minus baseline over their sum; densities (a word) over their sum plus one.
pub fn differences(policy: &Style, baseline: &Style) -> [f64; 4] {
    let length = policy.words + baseline.words;
    let density = |of: fn(&Style) -> f64| {
        let [ours, theirs] = [policy, baseline].map(|style| of(style) / (style.words + 1.0));
        (ours - theirs) / (ours + theirs + 1.0)
    };
    [
        if length > 0.0 { (policy.words - baseline.words) / length } else { 0.0 },
        density(|style| style.headers),
        density(|style| style.lists),
        density(|style| style.bold),
    ]
}

/// The text without what stands between pairs of three backticks.
fn without_code(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(open) = rest.find("```") {
        let Some(close) = rest[open + 3..].find("```") else { break };
        kept += &rest[..open];
        rest = &rest[open + 3 + close + 3..];
    }
    kept + rest
}

fn is_header(line: &str) -> bool {
    let marks = line.bytes().take_while(|b| *b == b'#').count();
    (1..=6).contains(&marks) && line[marks..].starts_with(char::is_whitespace)
}

fn is_list_item(line: &str) -> bool {
    let line = line.trim_start();
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let after = if digits > 0 { line[digits..].strip_prefix('.') } else { line.strip_prefix(['-', '*', '+']) };
    after.is_some_and(|rest| rest.starts_with(char::is_whitespace))
}

/// How many stretches without `mark` stand between two doubled marks, from left to right.
fn stretches(line: &str, doubled: &str, mark: char) -> usize {
    let mut found = 0;
    let mut rest = line;
    while let Some(open) = rest.find(doubled) {
        let inside = &rest[open + doubled.len()..];
        let end = inside.find(mark).unwrap_or(inside.len());
        if end > 0 && inside[end..].starts_with(doubled) {
            found += 1;
            rest = &inside[end + doubled.len()..];
        } else {
            rest = &rest[open + 1..];
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_outside_of_code_is_counted() {
        let text = "# Title\n##no header\n####### seven\n\n1. **one** and __two__\n - item\n* item\n-no item\n```\n# code\n- code\n```\nend **";
        let style = Style::of(text);
        assert_eq!((style.headers, style.lists, style.bold), (1.0, 3.0, 2.0));
        assert_eq!(Style::of("a ***b*** **c\nd**"), Style { words: 4.0, bold: 1.0, ..Style::default() });
        assert_eq!(Style::of(""), Style::default());
    }

    #[test]
    fn counts_are_those_of_arena_hards_regular_expressions() {
        let cases: serde_json::Value = serde_json::from_str(include_str!("../../golden/statistics/style.json")).unwrap();
        for case in cases.as_array().unwrap() {
            let style = Style::of(case["text"].as_str().unwrap());
            let expected = ["headers", "lists", "bold"].map(|name| case[name].as_f64().unwrap());
            assert_eq!([style.headers, style.lists, style.bold], expected, "{}", case["text"]);
        }
    }

    #[test]
    fn differences_of_style_are_relative_and_turn_around() {
        let (long, short) = (Style::of("- one two three\n- four"), Style::of("one **two**"));
        let straight = differences(&long, &short);
        let turned = differences(&short, &long);
        assert_eq!(straight[0], (6.0 - 2.0) / 8.0);
        assert!(straight[2] > 0.0 && straight[3] < 0.0 && straight[1] == 0.0);
        assert!(straight.iter().zip(turned).all(|(a, b)| (a + b).abs() < 1e-15));
        assert_eq!(differences(&Style::default(), &Style::default()), [0.0; 4]);
    }
}
