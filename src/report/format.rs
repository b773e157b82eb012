//! How values look to people: fixed rounding, and text whose control characters can do no harm.

use std::borrow::Cow;
use std::fmt::Write;

use crate::checks::{Answer, CheckOutcome, Decision, Severity};
use crate::estimates::Estimate;

use super::Verdict;

/// Shown where there is no number.
pub(crate) const NONE: &str = "—";

/// A number with `digits` decimals, a true minus sign, no negative zero; a dash when it isn't finite.
pub(crate) fn fixed(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|b| matches!(b, b'0' | b'.')) => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// `0.731 [0.702, 0.760]`.
pub(crate) fn with_interval(value: f64, lower: f64, upper: f64, digits: usize) -> String {
    format!("{} {}", fixed(value, digits), interval(lower, upper, digits))
}

pub(crate) fn interval(lower: f64, upper: f64, digits: usize) -> String {
    format!("[{}, {}]", fixed(lower, digits), fixed(upper, digits))
}

/// An estimate with its interval, rounded as its metric asks.
pub(crate) fn estimate(e: &Estimate) -> String {
    with_interval(e.value, e.lower, e.upper, super::metrics::digits(&e.metric))
}

/// What follows the judge's name where labels correct its win rate.
pub(crate) fn correction(win_rate: &Estimate) -> &'static str {
    if win_rate.metric == "win_rate_corrected" { ", corrected" } else { "" }
}

/// 0.95 as `95 %`.
pub(crate) fn percent(level: f64) -> String {
    let text = fixed(level * 100.0, 1);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A symbol and a word, so that nothing rests on colour alone.
pub(crate) fn answer(answer: Answer) -> (&'static str, &'static str) {
    match answer {
        Answer::Better => ("▲", "better"),
        Answer::Worse => ("▼", "worse"),
        Answer::Undecided => ("◇", "undecided"),
        Answer::Void => ("✕", "void"),
    }
}

pub(crate) fn verdict(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Pass => ("✓", "pass"),
        Verdict::Fail => ("✕", "fail"),
        Verdict::Inconclusive => ("◇", "inconclusive"),
    }
}

/// With the class that gives it its colour.
pub(crate) fn decision(decision: Decision) -> (&'static str, &'static str, &'static str) {
    match decision {
        Decision::Supported => ("✓", "supported", "better"),
        Decision::Contradicted => ("✕", "contradicted", "worse"),
        Decision::Undecided => ("◇", "undecided", "undecided"),
    }
}

pub(crate) fn check(outcome: CheckOutcome) -> (&'static str, &'static str) {
    match outcome {
        CheckOutcome::Pass => ("✓", "pass"),
        CheckOutcome::Info => severity(Severity::Info),
        CheckOutcome::Warn => severity(Severity::Warn),
        CheckOutcome::Fail => severity(Severity::Fail),
        CheckOutcome::Unchecked => ("?", "not checked"),
    }
}

pub(crate) fn severity(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Info => ("·", "info"),
        Severity::Warn => ("!", "warn"),
        Severity::Fail => ("✕", "fail"),
    }
}

/// A SHA-256 digest cut to its first twelve digits; any other text as it is.
pub(crate) fn shortened(text: &str) -> &str {
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_digest { &text[..12] } else { text }
}

/// The text with every character that steers a terminal or the direction of writing made visible: ESC as `<U+001B>`, a
/// right-to-left override as `<U+202E>`. Line feeds and tabs stay, and a carriage return before a line feed goes.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let text = text.replace("\r\n", "\n");
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if steers(c) => write!(shown, "<U+{:04X}>", u32::from(c)).expect("a String takes all"),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// The same on one line.
pub(crate) fn visible_line(text: &str) -> String {
    visible(text).replace(['\n', '\t'], " ")
}

/// At most `limit` characters on one line, with an ellipsis for what is left out: for labels inside charts.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    let text = visible_line(text);
    if text.chars().count() <= limit { text } else { text.chars().take(limit - 1).chain(['…']).collect() }
}

/// The parts of a sentence, and whether each stood between backticks. Backticks without a partner are text.
pub(crate) fn quoted(text: &str) -> Vec<(&str, bool)> {
    if text.matches('`').count() % 2 == 1 {
        return vec![(text, false)];
    }
    text.split('`').enumerate().map(|(i, part)| (part, i % 2 == 1)).filter(|(part, code)| *code || !part.is_empty()).collect()
}

/// Control characters but line feed and tab, marks and overrides of direction, line separators, non-characters that XML
/// refuses, and the byte-order mark.
fn steers(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_fixed_decimals_and_no_negative_zero() {
        assert_eq!(fixed(0.12345, 3), "0.123");
        assert_eq!(fixed(-0.0001, 3), "0.000");
        assert_eq!(fixed(-1.5, 1), "−1.5");
        assert_eq!(fixed(f64::NAN, 3), NONE);
        assert_eq!(percent(0.95), "95 %");
        assert_eq!(percent(0.995), "99.5 %");
    }

    #[test]
    fn backticks_in_pairs_quote() {
        assert_eq!(quoted("`a` beats `b`."), [("a", true), (" beats ", false), ("b", true), (".", false)]);
        assert_eq!(quoted("it`s"), [("it`s", false)]);
    }

    #[test]
    fn steering_characters_become_visible_and_the_rest_stays() {
        assert_eq!(visible("a\u{0}\u{1b}[31m\r\n\tb"), "a<U+0000><U+001B>[31m\n\tb");
        assert_eq!(visible("\u{202e}abc\u{2066}"), "<U+202E>abc<U+2066>");
        assert_eq!(visible("\u{9b}31m\u{ffff}"), "<U+009B>31m<U+FFFF>");
        assert!(matches!(visible("naïve 漢字 🙂\n"), Cow::Borrowed(_)));
    }
}
