//! O8: do completions grow, or shrink, away from what was asked for? (Park et al. 2024, "Disentangling Length from Quality", arXiv
//! 2403.19159: policies come to write far outside the lengths of both chosen and rejected texts.)
//!
//! Tokens of the policy's completions: their mean over the reference's on the same prompts, the share above the 99th percentile of the
//! chosen completions, the distance of both distributions (Kolmogorov–Smirnov, Wasserstein), and how many never end.

use super::inspection::{Inspection, Measure, Reading, Rise, Seen};
use super::{Crossing, by_seed, crossing, finding, number, percent};
use crate::estimates::summary::{Policy, reference, yes};
use crate::generate::Completion;
use crate::statistics::bootstrap::{Bootstrap, Resampling};
use crate::statistics::distance::{kolmogorov_smirnov, wasserstein};
use crate::statistics::interval::Interval;
use crate::statistics::mean::{Clustered, Measured, rate};
use crate::statistics::quantile::quantiles;

const RESAMPLES: usize = 400;
/// The quantile of chosen lengths that few completions should be above.
const LONG: f64 = 0.99;

pub(super) const MEASURES: &[Measure] = &[
    Measure { check: "O8", id: "length-drift", title: "Length over the reference's", by_seed: true, look: drift },
    Measure {
        check: "O8",
        id: "length-beyond-chosen",
        title: "Share longer than 99 % of chosen completions",
        by_seed: true,
        look: beyond_chosen,
    },
    Measure {
        check: "O8",
        id: "length-distance",
        title: "Distance of lengths from the reference's (KS)",
        by_seed: false,
        look: distance,
    },
    Measure { check: "O8", id: "no-eos", title: "Rise of completions that never end", by_seed: true, look: no_eos },
];

/// Longer than the threshold, or shorter than its inverse.
fn drift<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let Some(e) = this.estimate("length_ratio", policy) else {
        return Seen::not("there are no completions of two prompts to compare");
    };
    let (warn, fail) = (this.limits().length_ratio_warn, this.limits().length_ratio_fail);
    let longer = crossing(e.value, e.lower, warn, fail);
    let shorter = crossing(1.0 / e.value, 1.0 / e.upper, warn, fail);
    let (Crossing { severity, threshold }, bound) = match (longer, shorter) {
        (Some(crossing), _) => (crossing, crossing.threshold),
        (None, Some(crossing)) => (crossing, 1.0 / crossing.threshold),
        (None, None) => return Reading::estimate(e, warn).into(),
    };
    let message = format!(
        "completions of `{}`{} are {} times as long as the reference's, beyond {bound:.2}: its win rate may come from length, not quality",
        policy.variant,
        by_seed(policy),
        number(e.value, e.lower, e.upper)
    );
    let hint = "compare at equal length, or check that the judge doesn't prefer a length (`judge_longer_preference`)";
    let longer = |c: &Completion| if bound > 1.0 { f64::from(c.tokens) } else { -f64::from(c.tokens) };
    let evidence = this.since(e, |value| if bound > 1.0 { value > threshold } else { value < bound });
    let evidence = evidence + &this.foremost(policy, longer);
    finding("length-drift", severity, Some(policy)).estimate(e).words(bound, message, evidence, hint).into()
}

fn beyond_chosen<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let own = policy.pair_scores(this.evidence);
    // Those who scored none are held against what the others were scored on.
    let scored = if own.is_empty() { this.evidence.pair_scores.iter().collect() } else { own };
    let chosen: Vec<f64> = scored.iter().map(|p| f64::from(p.chosen_tokens)).collect();
    if chosen.is_empty() {
        return Seen::not("there are no held-out pairs to know the lengths of chosen completions from");
    }
    let bound = quantiles(&chosen, &[LONG])[0];
    let rows = policy.completions(this.evidence);
    let above = Clustered::new(rows.iter().map(|c| (c.prompt_id.as_str(), yes(f64::from(c.tokens) > bound))));
    let Some(share) = rate(&above, this.level()) else { return Seen::not("there are no completions") };
    let limits = &this.limits().more;
    let crossed = crossing(share.value, share.interval.lower, limits.beyond_chosen_warn, limits.beyond_chosen_fail);
    let Some(Crossing { severity, threshold }) = crossed else { return Reading::of(&share, limits.beyond_chosen_warn).into() };
    let message = format!(
        "{} of the completions of `{}`{} have more than {bound} tokens, which only a hundredth of the chosen ones have: it writes longer than anything it was shown to be good",
        percent(share.value, share.interval.lower, share.interval.upper),
        policy.variant,
        by_seed(policy)
    );
    let furthest = this.foremost(policy, |c| f64::from(c.tokens));
    let evidence = format!("{} completions of {} prompts at checkpoint {}{furthest}", share.n, share.clusters, this.last);
    let hint = this.milder("compare at equal length; train with a length term (`rdpo_alpha`, `ld_alpha`) or a larger beta");
    finding("length-beyond-chosen", severity, Some(policy)).measurement(&share).words(threshold, message, evidence, hint).into()
}

fn distance<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let by_prompt = |rows: Vec<&Completion>| {
        let all = Clustered::new(rows.iter().map(|c| (c.prompt_id.as_str(), f64::from(c.tokens))));
        let mut groups = vec![Vec::new(); all.clusters()];
        all.values().iter().zip(all.cluster()).for_each(|(v, g)| groups[*g].push(*v));
        groups
    };
    let (own, other) = (by_prompt(policy.completions(this.evidence)), by_prompt(reference(this.evidence)));
    if own.len() < 2 || own.len() != other.len() {
        return Seen::not("there are no completions of the same prompts to compare");
    }
    let drawn = |groups: &[Vec<f64>], drawn: &[u32]| drawn.iter().flat_map(|g| groups[*g as usize].clone()).collect::<Vec<f64>>();
    let all: Vec<u32> = (0..own.len() as u32).collect();
    let (a, b) = (drawn(&own, &all), drawn(&other, &all));
    let value = kolmogorov_smirnov(&a, &b);
    let resampling = Resampling { resamples: RESAMPLES, seed: 0, purpose: "checks/lengths" };
    let draws = resampling.replicates(own.len(), |units| kolmogorov_smirnov(&drawn(&own, units), &drawn(&other, units)));
    let Some(bootstrap) = Bootstrap::new(value, draws) else { return Seen::not("there is nothing to resample") };
    // The largest of many differences grows by resampling itself: the basic interval takes that out.
    let basic = bootstrap.basic(this.level()).within(0.0, 1.0);
    let interval = Interval { lower: basic.lower.min(value), upper: basic.upper.max(value) };
    let measured = Measured { value, interval, n: a.len(), clusters: own.len(), method: "bootstrap of prompts, basic" };
    Reading::of(&measured, None).saying(format!("Wasserstein distance {:.1} tokens", wasserstein(&a, &b))).into()
}

fn no_eos<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let about = Rise {
        id: "no-eos",
        subject: "the share of completions",
        what: "that never end",
        claim: "the judge reads texts that are cut off",
        hint: "raise `max_new_tokens`, or see that training pairs end with EOS",
    };
    this.risen(policy, |c| yes(!c.finished), this.limits().no_eos_fail, about)
}
