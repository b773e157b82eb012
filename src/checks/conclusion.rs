//! Is a variant better than the reference? One answer each, by the deciding judge at the last checkpoint, over all seeds.
//!
//! Better: the interval of the win rate lies above one half. Worse: below. Undecided: it contains one half. Void: the judge is
//! unfit (see `judges`), so its win rate says nothing. Where labels correct the win rates, the corrected one decides: it is as right as the
//! labels are, however bad the judge, and so it isn't void.

use super::judges::voided_by;
use super::{Answer, Conclusion, percent};
use crate::estimates::sequential::ANYTIME;
use crate::estimates::{Estimate, find};
use crate::judge::GOLD;
use crate::suite::Suite;

/// One conclusion a variant, in suite order; a variant without a win rate has none.
pub fn conclude(suite: &Suite, estimates: &[Estimate]) -> Vec<Conclusion> {
    suite.variants.iter().filter_map(|variant| of(suite, &variant.name, estimates)).collect()
}

fn of(suite: &Suite, variant: &str, estimates: &[Estimate]) -> Option<Conclusion> {
    let deciding = suite.compare.judge.as_str();
    let last = |metric: &str| {
        estimates
            .iter()
            .filter(|e| e.metric == metric && e.variant == variant && e.seed.is_none())
            .filter(|e| e.judge.as_deref() == Some(deciding) && e.slice.is_none())
            .max_by_key(|e| e.checkpoint)
    };
    let raw = last("win_rate")?;
    let corrected = last("win_rate_corrected").filter(|e| e.checkpoint == raw.checkpoint);
    let win_rate = corrected.unwrap_or(raw);
    let gold = find(estimates, "win_rate", variant, win_rate.checkpoint, None, Some(GOLD)).filter(|_| deciding != GOLD);
    // Labels by a judge are no better than that judge.
    let trusted = match (corrected, &suite.statistics.labels) {
        (Some(_), Some(labels)) => labels.judge.as_str(),
        _ => deciding,
    };
    let judge = suite.judges.iter().find(|judge| judge.name == trusted);
    let unfit = judge.and_then(|judge| Some((judge, voided_by(judge, estimates)?)));
    let answer = match () {
        () if unfit.is_some() => Answer::Void,
        () if win_rate.lower > 0.5 => Answer::Better,
        () if win_rate.upper < 0.5 => Answer::Worse,
        () => Answer::Undecided,
    };
    let prompts_needed = (answer == Answer::Undecided).then(|| win_rate.prompts_to_decide(0.5));
    let sentence = match unfit {
        Some((judge, why)) => {
            format!("Nothing is known of `{variant}`: judge `{}` {why}, so its win rate is void.", judge.name)
        }
        None => sentence(variant, answer, win_rate, gold, prompts_needed),
    };
    Some(Conclusion {
        variant: variant.to_owned(),
        answer,
        win_rate: win_rate.clone(),
        gold_win_rate: gold.cloned(),
        sentence,
        prompts_needed,
    })
}

fn sentence(variant: &str, answer: Answer, e: &Estimate, gold: Option<&Estimate>, needed: Option<u64>) -> String {
    let shown = |e: &Estimate| percent(e.value, e.lower, e.upper);
    let gold = gold.map_or_else(String::new, |gold| format!(" (gold: {})", shown(gold)));
    let corrected = match () {
        () if e.metric == "win_rate_corrected" => ", corrected by labels",
        () if e.method == ANYTIME => ", by an interval that holds whenever a run stops",
        () => "",
    };
    let rate = format!("win rate {} by judge `{}`{corrected}{gold}", shown(e), e.judge.as_deref().unwrap_or_default());
    match answer {
        Answer::Better => format!("`{variant}` beats the reference: {rate}."),
        Answer::Worse => format!("`{variant}` loses to the reference: {rate}."),
        Answer::Undecided | Answer::Void => format!(
            "`{variant}` can't be told from the reference: {rate}; this run has {} prompts, about {} would decide.",
            e.clusters,
            needed.unwrap_or_default()
        ),
    }
}
