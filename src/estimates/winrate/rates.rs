//! Win rate, counts and discrete win rate of a subject, each with the interval of this program's reports.

use super::subjects::{Item, Subject};
use super::{Measure, WinRate};
use crate::error::{Error, Kind, Result};
use crate::judge::Outcome;
use crate::statistics::interval::z;
use crate::statistics::mean::{CLUSTERS_AGREE, Clustered, Measured, Range, mean, rate};

/// A number of a subject with its interval, clustered by prompt.
fn items_of<'a>(subject: &'a Subject, value: impl Fn(&Item) -> Option<f64> + 'a) -> Clustered {
    Clustered::new(subject.items.iter().filter_map(|item| Some((item.prompt_id.as_str(), value(item)?))))
}

/// What a verdict is worth: a tie half.
pub(super) fn points(outcome: Outcome) -> f64 {
    match outcome {
        Outcome::Win => 1.0,
        Outcome::Tie => 0.5,
        Outcome::Loss => 0.0,
    }
}

/// # Errors
/// No item has a verdict.
pub fn win_rate(file: &str, subject: &Subject, level: f64) -> Result<WinRate> {
    let preferences = items_of(subject, |item| item.preference);
    let Some(measured) = mean(&preferences, Range::UNIT, level) else {
        return Err(Error::new(Kind::NothingSelected, format!("no verdict on `{}` can be read", subject.policy)).in_file(file));
    };
    let n = measured.n as f64;
    let mut measures = vec![Measure::scaled("win_rate", &measured, 100.0)];
    for (name, counted) in [("n_wins", Outcome::Win), ("n_wins_base", Outcome::Loss), ("n_draws", Outcome::Tie)] {
        let share = items_of(subject, |item| Some(if item.outcome? == counted { 1.0 } else { 0.0 }));
        // The share's interval in the unit of the count: how many of as many items of such prompts.
        measures.extend(rate(&share, level).map(|share| Measure::scaled(name, &share, n)));
    }
    // n × share is whole but for rounding.
    measures[1..].iter_mut().for_each(|count| count.value = count.value.round());
    let discrete = items_of(subject, |item| Some(points(item.outcome?)));
    measures.extend(mean(&discrete, Range::UNIT, level).map(|m| Measure::scaled("discrete_win_rate", &m, 100.0)));
    let mut notes = Vec::new();
    let effects = items_of(subject, |item| {
        let [policy_first, baseline_first] = item.orders?;
        // Half of what the first place gains: (P(first | policy first) + P(first | baseline first) − 1) / 2.
        Some((policy_first + (1.0 - baseline_first) - 1.0) / 2.0)
    });
    measures.extend(mean(&effects, Range::HALVES, level).map(|m| Measure::scaled("position_effect", &m, 100.0)));
    let mut facts = vec![("n_total", n), ("prompts", measured.clusters as f64), ("unreadable", subject.unreadable as f64)];
    facts.extend(standard_error(&preferences, &measured, level).map(|error| ("standard_error", 100.0 * error)));
    facts.extend(average_length(subject).map(|length| ("avg_length", length)));
    if subject.unreadable > 0 {
        notes.push(format!(
            "{} of {} items have no verdict that can be read, and count nowhere",
            subject.unreadable,
            subject.items.len()
        ));
    }
    if let Some(order) = subject.one_order {
        let total = order.policy + order.baseline;
        notes.push(format!(
            "{total} items were judged in one order alone ({} with the policy first): what the judge thinks of the first place is in the win rate",
            order.policy
        ));
    }
    Ok(WinRate {
        file: file.to_owned(),
        policy: subject.policy.clone(),
        baseline: subject.baseline.clone(),
        judge: subject.judge.clone(),
        checkpoint: subject.checkpoint,
        measures,
        facts,
        notes,
    })
}

/// Cluster-robust; where all prompts agree, that of the interval, as no spread among a few prompts doesn't mean that there is none.
fn standard_error(preferences: &Clustered, measured: &Measured, level: f64) -> Option<f64> {
    let clustered = preferences.standard_error()?;
    Some(if measured.method == CLUSTERS_AGREE { measured.interval.width() / (2.0 * z(level)) } else { clustered })
}

/// ⌊mean⌋ of the policy's lengths, as AlpacaEval has it.
fn average_length(subject: &Subject) -> Option<f64> {
    let lengths: Option<Vec<u64>> = subject.items.iter().map(|item| Some(item.length?.policy)).collect();
    lengths.filter(|l| !l.is_empty()).map(|lengths| (lengths.iter().sum::<u64>() / lengths.len() as u64) as f64)
}
