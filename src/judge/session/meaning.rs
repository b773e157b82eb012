//! What the numbers of a classifier mean: from one, two or three classes to the logit or the score that the protocol reads.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::suite::settings::{JudgeKind, Label, Values};

/// A probability in f32 that rounds to 0 or 1 stands for one within half a unit in the last place of 1.
const LEAST: f64 = 1.0 / (1u64 << 25) as f64;

/// By how much the probabilities of all classes may miss 1: half precision and a little more.
const SUM_TOLERANCE: f64 = 5e-3;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Meaning {
    pub values: Values,
    /// Of each column.
    pub labels: Vec<Label>,
}

impl Meaning {
    /// One column, larger for "the first is better" or for a better completion.
    pub fn one(kind: JudgeKind) -> Self {
        Self { values: Values::Logits, labels: vec![positive(kind)] }
    }

    /// `declared` by the suite, `named` by config.json. `output`: the output's name, which tells logits from probabilities.
    pub fn of(
        kind: JudgeKind,
        classes: usize,
        declared: (&[Label], Option<Values>),
        named: &[String],
        output: &str,
    ) -> Result<Self> {
        let (labels, values) = declared;
        if labels.is_empty() && classes > 3 {
            return Err(Error::input(format!("its output `{output}` has {classes} classes; a judge has one, two or three")));
        }
        let labels = match (labels, classes) {
            ([], 1) => vec![positive(kind)],
            ([], _) => understood(kind, classes, named)?,
            (labels, _) if labels.len() == classes => labels.to_vec(),
            (labels, _) => {
                let (said, are) = (labels.len(), plural(classes));
                return Err(Error::usage(format!("`labels` says what {said} classes mean, but its output `{output}` has {are}")));
            }
        };
        if kind == JudgeKind::RewardModel && labels.len() > 2 {
            return Err(Error::input("it tells three classes apart; a reward model has one, or good and bad"));
        }
        let values = match (values, told(output)) {
            (Some(values), _) | (None, Some(values)) => values,
            // A reward is whatever number the model gives.
            (None, None) if kind == JudgeKind::RewardModel && classes == 1 => Values::Logits,
            (None, None) => {
                let message = format!("nothing says whether its output `{output}` holds logits or probabilities");
                return Err(Error::input(message)
                    .help("write `values = \"logits\"` or `values = \"probabilities\"` in its [[judge]] table"));
            }
        };
        Ok(Self { values, labels })
    }

    /// The logit of "the first is better", or the score: of one class the value itself, of two the difference of their logits, of three that
    /// of P(first) + P(tie) / 2 against the rest, as a tie counts half for each side.
    pub fn answer(&self, row: &[f64]) -> std::result::Result<f64, String> {
        if self.values == Values::Probabilities {
            self.check(row)?;
        }
        // ln p up to a constant that all classes share.
        let log = |value: f64| match self.values {
            Values::Logits => value,
            Values::Probabilities => value.clamp(LEAST, 1.0 - LEAST).ln(),
        };
        let of = |wanted: Label| self.labels.iter().position(|&label| label == wanted).map(|column| log(row[column]));
        let sign = if matches!(self.labels[0], Label::Second | Label::Bad) { -1.0 } else { 1.0 };
        Ok(match (self.labels.len(), of(Label::Tie)) {
            (1, _) => sign * (log(row[0]) - if self.values == Values::Logits { 0.0 } else { log(1.0 - row[0]) }),
            (_, None) => {
                of(Label::First).or(of(Label::Good)).unwrap_or(0.0) - of(Label::Second).or(of(Label::Bad)).unwrap_or(0.0)
            }
            (_, Some(tie)) => {
                let half = tie - std::f64::consts::LN_2;
                log_add(of(Label::First).unwrap_or(f64::NEG_INFINITY), half)
                    - log_add(of(Label::Second).unwrap_or(f64::NEG_INFINITY), half)
            }
        })
    }

    fn check(&self, row: &[f64]) -> std::result::Result<(), String> {
        let sum: f64 = row.iter().sum();
        if let Some(outside) = row.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Err(format!("gave {outside} for a probability"));
        }
        if row.len() > 1 && (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(format!("gave probabilities that add up to {sum}"));
        }
        Ok(())
    }
}

fn positive(kind: JudgeKind) -> Label {
    match kind {
        JudgeKind::Pairwise => Label::First,
        JudgeKind::RewardModel => Label::Good,
    }
}

fn plural(classes: usize) -> String {
    if classes == 1 { "one class".to_owned() } else { format!("{classes} classes") }
}

/// ln(e^a + e^b).
fn log_add(a: f64, b: f64) -> f64 {
    a.max(b) + (-(a - b).abs()).exp().ln_1p()
}

fn told(output: &str) -> Option<Values> {
    let name = output.to_lowercase();
    if name.contains("prob") {
        Some(Values::Probabilities)
    } else if ["logit", "score", "reward"].iter().any(|word| name.contains(word)) {
        Some(Values::Logits)
    } else {
        None
    }
}

fn understood(kind: JudgeKind, classes: usize, named: &[String]) -> Result<Vec<Label>> {
    let names = named.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let (example, words) = match kind {
        JudgeKind::Pairwise if classes == 3 => ("`labels = [\"first\", \"second\", \"tie\"]`", "first, second or tie"),
        JudgeKind::Pairwise => ("`labels = [\"first\", \"second\"]`", "first or second"),
        JudgeKind::RewardModel => ("`labels = [\"bad\", \"good\"]`", "good or bad"),
    };
    let unclear = || {
        let said =
            if named.is_empty() { "its config.json names none".to_owned() } else { format!("its config.json names {names}") };
        Error::input(format!("nothing says which of its {classes} classes means {words}: {said}"))
            .help(format!("write {example}, in the order of the model's classes, in its [[judge]] table, or give `--labels`"))
    };
    let labels: Vec<Label> = named.iter().map(|name| label(kind, name)).collect::<Option<_>>().ok_or_else(unclear)?;
    let once = labels.iter().enumerate().all(|(i, label)| !labels[..i].contains(label));
    if labels.len() == classes && once { Ok(labels) } else { Err(unclear()) }
}

/// The names that public judges give their classes.
fn label(kind: JudgeKind, name: &str) -> Option<Label> {
    let plain: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let names: &[(Label, &[&str])] = match kind {
        JudgeKind::Pairwise => &[
            (Label::First, &["a", "first", "left", "modela", "winnermodela", "responsea", "abetter", "aisbetter"]),
            (Label::Second, &["b", "second", "right", "modelb", "winnermodelb", "responseb", "bbetter", "bisbetter"]),
            (Label::Tie, &["tie", "winnertie", "equal", "draw", "same"]),
        ],
        JudgeKind::RewardModel => &[
            (Label::Good, &["good", "chosen", "positive", "preferred", "accepted"]),
            (Label::Bad, &["bad", "rejected", "negative", "dispreferred"]),
        ],
    };
    names.iter().find(|(_, known)| known.contains(&plain.as_str())).map(|(label, _)| *label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use JudgeKind::{Pairwise, RewardModel};

    fn meaning(values: Values, labels: &[Label]) -> Meaning {
        Meaning { values, labels: labels.to_vec() }
    }

    #[test]
    fn three_classes_count_a_tie_half_for_each_side() {
        let labels = [Label::Second, Label::Tie, Label::First];
        let row = [0.2f64, 0.3, 0.5];
        // P = 0.5 + 0.15 against 0.2 + 0.15.
        let expected = (0.65f64 / 0.35).ln();
        let by_probability = meaning(Values::Probabilities, &labels).answer(&row).unwrap();
        let logits = row.map(|p| p.ln() + 7.0);
        let by_logit = meaning(Values::Logits, &labels).answer(&logits).unwrap();
        assert!((by_probability - expected).abs() < 1e-12 && (by_logit - expected).abs() < 1e-12);
    }

    #[test]
    fn a_label_says_which_way_one_class_and_two_point() {
        let logits = |labels: &[Label], row: &[f64]| meaning(Values::Logits, labels).answer(row).unwrap();
        assert_eq!(logits(&[Label::First], &[1.5]), 1.5);
        assert_eq!(logits(&[Label::Second], &[1.5]), -1.5);
        assert_eq!(logits(&[Label::Bad], &[1.5]), -1.5);
        assert_eq!(logits(&[Label::First, Label::Second], &[1.0, 3.0]), -2.0);
        assert_eq!(logits(&[Label::Bad, Label::Good], &[1.0, 3.0]), 2.0);
        let sigmoid = meaning(Values::Probabilities, &[Label::First]).answer(&[0.75]).unwrap();
        assert!((sigmoid - 3f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_certain_probability_is_a_finite_logit_and_what_is_none_is_an_error() {
        let sure = meaning(Values::Probabilities, &[Label::First, Label::Second]);
        assert!((sure.answer(&[1.0, 0.0]).unwrap() + sure.answer(&[0.0, 1.0]).unwrap()).abs() < 1e-12);
        assert!(sure.answer(&[1.0, 0.0]).unwrap() > 17.0);
        assert!(sure.answer(&[1.5, -0.5]).unwrap_err().contains("1.5"));
        assert!(sure.answer(&[0.9, 0.9]).unwrap_err().contains("add up to 1.8"));
    }

    #[test]
    fn names_of_classes_are_understood_and_others_ask_for_labels() {
        let of = |kind, named: &[&str], output| {
            let named: Vec<String> = named.iter().map(|&n| n.to_owned()).collect();
            Meaning::of(kind, named.len(), (&[], None), &named, output)
        };
        let pairwise = of(Pairwise, &["winner_model_a", "winner_model_b", "winner_tie"], "logits").unwrap();
        assert_eq!(pairwise.labels, [Label::First, Label::Second, Label::Tie]);
        assert_eq!(of(RewardModel, &["rejected", "chosen"], "logits").unwrap().labels, [Label::Bad, Label::Good]);
        for named in [["LABEL_0", "LABEL_1"], ["A", "a"], ["good", "bad"]] {
            let error = of(Pairwise, &named, "logits").unwrap_err();
            assert!(error.help.as_ref().is_some_and(|h| h.contains("labels = [\"first\", \"second\"]")), "{error}");
        }
        let error = of(Pairwise, &["A", "B"], "output_0").unwrap_err();
        assert!(error.message.contains("logits or probabilities") && error.help.is_some_and(|h| h.contains("values =")));
    }

    #[test]
    fn declared_labels_must_be_as_many_as_the_classes() {
        let error = Meaning::of(Pairwise, 3, (&[Label::First, Label::Second], None), &[], "logits").unwrap_err();
        assert!(error.message.contains("what 2 classes mean") && error.message.contains("has 3 classes"), "{error}");
        assert_eq!(Meaning::of(Pairwise, 1, (&[], None), &["LABEL_0".to_owned()], "logits").unwrap(), Meaning::one(Pairwise));
    }
}
