//! A judge of text rules: a completion's score is the sum of the weights of the rules that hold for it. Deterministic, at once there, and
//! honest about what it looks at: for formats that are asked for, phrases that are unwanted, lengths that are agreed on.
//!
//! The preference is σ(difference of scores), so a weight is a logit: one rule of weight 1 is worth 73 % against its lack.

use regex::{Regex, RegexBuilder};

use crate::error::{Error, Result};
use crate::judge::asking::{Answer, Question, Respondent};
use crate::suite::settings::{JudgeKind, RuleSettings, RuleTest, TextFormat};
use crate::watch::Watch;

pub struct Rubric {
    rules: Vec<Rule>,
}

struct Rule {
    test: Test,
    per_match: bool,
    weight: f64,
}

enum Test {
    Matches(Regex),
    Words([usize; 2]),
    Characters([usize; 2]),
    Format(Form),
}

/// A format and what finds it.
enum Form {
    Json,
    Line,
    Found(Regex),
}

/// An item of a list begins a line: `-`, `*`, `•`, `1.`, `1)` and a word after it (as AlpacaEval counts lists).
const LIST: &str = r"(?m)^\s*(?:[*•\-]|\d+[.)])\s*[^\w\n]*\w+";
/// Headings, bold text and fences as Arena-Hard counts them.
const MARKDOWN: &str = r"(?m)^#{1,6}\s|\*\*[^*\n]+\*\*|__[^_\n]+__|^```";
const CODE: &str = r"(?ms)^```.*?^```";
const SENTENCE: &str = r#"[.!?…]["'”’)\]]*\s*\z"#;

/// Whether a text has an item of a list.
pub fn has_list(text: &str) -> bool {
    static COMPILED: std::sync::LazyLock<Regex> = std::sync::LazyLock::new(|| Regex::new(LIST).expect("a valid expression"));
    COMPILED.is_match(text)
}

impl Rubric {
    pub fn new(rules: &[RuleSettings]) -> Result<Self> {
        Ok(Self { rules: rules.iter().map(Rule::new).collect::<Result<_>>()? })
    }

    /// The sum of the weights of the rules that hold, in the order of the rules.
    pub fn score(&self, text: &str) -> f64 {
        self.rules.iter().map(|rule| rule.weight * rule.matches(text) as f64).sum()
    }
}

impl Rule {
    fn new(settings: &RuleSettings) -> Result<Self> {
        let test = match &settings.test {
            RuleTest::Contains(text) => Test::Matches(compiled(&regex::escape(text), settings.ignore_case)?),
            RuleTest::Regex(pattern) => Test::Matches(compiled(pattern, settings.ignore_case)?),
            RuleTest::Words(range) => Test::Words(*range),
            RuleTest::Characters(range) => Test::Characters(*range),
            RuleTest::Format(format) => Test::Format(match format {
                TextFormat::Json => Form::Json,
                TextFormat::Line => Form::Line,
                TextFormat::List => Form::Found(compiled(LIST, false)?),
                TextFormat::Markdown => Form::Found(compiled(&format!("{MARKDOWN}|{LIST}"), false)?),
                TextFormat::Code => Form::Found(compiled(CODE, false)?),
                TextFormat::Sentence => Form::Found(compiled(SENTENCE, false)?),
            }),
        };
        Ok(Self { test, per_match: settings.per_match, weight: settings.weight })
    }

    fn matches(&self, text: &str) -> usize {
        let within = |[least, most]: [usize; 2], n: usize| usize::from((least..=most).contains(&n));
        match &self.test {
            Test::Matches(regex) if self.per_match => regex.find_iter(text).count(),
            Test::Matches(regex) => usize::from(regex.is_match(text)),
            Test::Words(range) => within(*range, text.split_whitespace().count()),
            Test::Characters(range) => within(*range, text.chars().count()),
            Test::Format(Form::Json) => usize::from(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()),
            Test::Format(Form::Line) => usize::from(!text.trim().contains('\n')),
            Test::Format(Form::Found(regex)) => usize::from(regex.is_match(text)),
        }
    }
}

fn compiled(pattern: &str, ignore_case: bool) -> Result<Regex> {
    let built = RegexBuilder::new(pattern).case_insensitive(ignore_case).build();
    built.map_err(|e| Error::usage(format!("the regular expression {pattern:?} can't be used: {e}")))
}

impl Respondent for Rubric {
    fn form(&self) -> JudgeKind {
        JudgeKind::RewardModel
    }

    fn answers(&mut self, questions: &[&Question], _: &dyn Watch) -> Result<Vec<Answer>> {
        Ok(questions.iter().map(|texts| Answer { value: self.score(texts[1]), truncated: false }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::asking::Asking;
    use crate::judge::verdict::{Judge, Outcome};
    use crate::watch::Silent;

    fn rule(test: RuleTest, weight: f64) -> RuleSettings {
        RuleSettings { test, ignore_case: false, per_match: false, weight }
    }

    #[test]
    fn a_score_is_the_sum_of_the_weights_of_the_rules_that_hold() {
        let rules = [
            rule(RuleTest::Contains("a+b".to_owned()), 1.0),
            RuleSettings { ignore_case: true, per_match: true, ..rule(RuleTest::Regex(r"\bsorry\b".to_owned()), -0.5) },
            rule(RuleTest::Words([2, 4]), 0.25),
            rule(RuleTest::Characters([3, 3]), 8.0),
        ];
        let rubric = Rubric::new(&rules).unwrap();
        let cases = [
            ("it is a+b here now yes", 1.0),
            ("aab", 8.0),
            ("Sorry, sorry, SORRY", 0.25 - 1.5),
            ("sorryish", 0.0),
            ("äöü", 8.0),
            ("", 0.0),
        ];
        for (text, score) in cases {
            assert_eq!(rubric.score(text), score, "{text:?}");
        }
    }

    #[test]
    fn each_format_is_found_where_it_is_and_not_where_it_is_not() {
        use TextFormat::*;
        let cases = [
            (Json, vec![r#" {"a": [1]} "#, "3"], vec!["{a: 1}", "", "{} {}"]),
            (List, vec!["One:\n- two", "1. one", " • x"], vec!["a - b", "-", "1.5 is a number... 2"]),
            (Markdown, vec!["# Title", "so **bold** it is", "```\nx\n```", "* item"], vec!["2 * 3 ** 4", "#hash", "plain"]),
            (Code, vec!["Look:\n```rust\nlet x;\n```\nSo."], vec!["`x`", "```open"]),
            (Line, vec!["one line\n", ""], vec!["two\nlines"]),
            (Sentence, vec!["It is.", "Is it?\" ", "(So!)"], vec!["and then", "1.5"]),
        ];
        for (format, with, without) in cases {
            let rubric = Rubric::new(&[rule(RuleTest::Format(format), 1.0)]).unwrap();
            with.iter().for_each(|text| assert_eq!(rubric.score(text), 1.0, "{format:?} {text:?}"));
            without.iter().for_each(|text| assert_eq!(rubric.score(text), 0.0, "{format:?} {text:?}"));
        }
    }

    #[test]
    fn a_weight_is_a_logit_of_the_preference() {
        let rubric = Rubric::new(&[rule(RuleTest::Contains("yes".to_owned()), 1.0)]).unwrap();
        let mut judge = Asking::new("rules", rubric, 0.5, None);
        let verdicts = judge.verdicts(&[["q", "yes", "no"], ["q", "no", "yes"], ["q", "no", "nay"]], &Silent).unwrap();
        let verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
        assert!((verdicts[0].preference - 0.731_058_578_630_004_9).abs() < 1e-15);
        assert!((verdicts[0].preference + verdicts[1].preference - 1.0).abs() < 1e-15);
        assert_eq!(verdicts.iter().map(|v| v.outcome).collect::<Vec<_>>(), [Outcome::Win, Outcome::Loss, Outcome::Tie]);
        assert_eq!(verdicts[0].scores, Some((1.0, 0.0)));
    }
}
