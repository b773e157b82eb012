//! What happened to the policy's text and likelihoods (METHODS: overoptimization, checks O3, O4, O8, O12).

use super::{Crossing, Finding, Severity, by_seed, crossing, finding, number, percent};
use crate::estimates::summary::{Evidence, Policy, reference};
use crate::estimates::{Estimate, find};
use crate::generate::Completion;
use crate::statistics::mean::{Clustered, Measured, Range, mean, paired_difference};
use crate::statistics::text::repetition;
use crate::suite::Suite;
use crate::suite::settings::GenerateSettings;

/// Rise of the share of repeated 4-grams over the reference's that is too much.
const REPETITION_RISE: f64 = 0.05;
/// Rise of the share of empty completions over the reference's that is too much.
const EMPTY_RISE: f64 = 0.01;
/// Standard errors by which two estimators of one KL may differ.
const KL_ERRORS: f64 = 3.0;

/// One variant at its last checkpoint.
struct Inspection<'a> {
    suite: &'a Suite,
    evidence: &'a Evidence<'a>,
    estimates: &'a [Estimate],
    variant: &'a str,
    last: u64,
}

pub(super) fn findings<'a>(
    suite: &'a Suite,
    variant: &'a str,
    last: u64,
    evidence: &'a Evidence<'a>,
    estimates: &'a [Estimate],
) -> Vec<Finding> {
    let this = Inspection { suite, evidence, estimates, variant, last };
    let checks: [fn(&Inspection<'a>, Policy<'a>) -> Option<Finding>; 7] = [
        Inspection::kl_budget,
        Inspection::kl_disagreement,
        Inspection::chosen_displacement,
        Inspection::length_drift,
        Inspection::no_eos,
        Inspection::repetition,
        Inspection::empty,
    ];
    checks.into_iter().flat_map(|check| this.pooled_or_by_seed(check)).collect()
}

impl<'a> Inspection<'a> {
    /// What shows over all seeds together; where nothing does, what shows in single seeds.
    fn pooled_or_by_seed(&self, check: fn(&Self, Policy<'a>) -> Option<Finding>) -> Vec<Finding> {
        let policy = |seed| Policy { variant: self.variant, checkpoint: self.last, seed };
        if let Some(found) = check(self, policy(None)) {
            return vec![found];
        }
        self.suite.seeds.iter().filter_map(|seed| check(self, policy(Some(*seed)))).collect()
    }

    fn estimate(&self, metric: &str, policy: Policy<'a>) -> Option<&'a Estimate> {
        find(self.estimates, metric, policy.variant, Some(policy.checkpoint), policy.seed, None)
    }

    /// Prompts, and the first checkpoint at which the metric was beyond the threshold already.
    fn since(&self, e: &Estimate, beyond: impl Fn(f64) -> bool) -> String {
        let mut checkpoints: Vec<u64> = self
            .estimates
            .iter()
            .filter(|o| o.metric == e.metric && o.variant == e.variant && o.seed == e.seed && beyond(o.value))
            .filter_map(|o| o.checkpoint)
            .collect();
        checkpoints.sort_unstable();
        let first = checkpoints.first().copied().unwrap_or(self.last);
        format!("{} rows of {} prompts at checkpoint {}, beyond since checkpoint {first}", e.n, e.clusters, self.last)
    }

    fn kl_budget(&self, policy: Policy<'a>) -> Option<Finding> {
        let e = self.estimate("kl_per_sequence", policy)?;
        let checks = &self.suite.checks;
        let Crossing { severity, threshold } = crossing(e.value, e.lower, checks.kl_warn, checks.kl_fail)?;
        let message = format!(
            "`{}`{} moved {} nats a sequence away from the reference, beyond {threshold}: its win rate may be over-optimised for the preferences it was trained on",
            policy.variant,
            by_seed(policy),
            number(e.value, e.lower, e.upper)
        );
        let hint = "raise beta, train for fewer steps, or take an earlier checkpoint";
        let evidence = self.since(e, |value| value > threshold);
        Some(finding("kl-budget", severity, Some(policy)).estimate(e).words(threshold, message, evidence, hint))
    }

    /// Sampled k1 and the full-vocabulary KL estimate the same number when completions are sampled from the policy as it is.
    fn kl_disagreement(&self, policy: Policy<'a>) -> Option<Finding> {
        if !samples_the_policy(&self.suite.generate) {
            return None;
        }
        let rows = policy.completions(self.evidence);
        let differences = Clustered::new(rows.iter().map(|c| (c.prompt_id.as_str(), c.policy_logp - c.reference_logp - c.kl)));
        let error = differences.standard_error()?;
        let difference = mean(&differences, Range::REAL, self.suite.statistics.level)?;
        // Log-probabilities are sums of f32 logs: differences below this are rounding.
        if difference.value.abs() <= (KL_ERRORS * error).max(1e-3) {
            return None;
        }
        let message = format!(
            "two estimators of the KL of `{}`{} differ by {} nats a sequence, more than {KL_ERRORS} standard errors: neither KL of this policy can be trusted",
            policy.variant,
            by_seed(policy),
            number(difference.value, difference.interval.lower, difference.interval.upper)
        );
        let evidence = format!("sampled log-ratio against full-vocabulary KL on {} completions", difference.n);
        let hint = "draw more samples a prompt; if it stays, completions and log-probabilities don't belong to one model";
        let found = finding("kl-disagreement", Severity::Warn, Some(policy)).measurement(&difference);
        Some(found.words(KL_ERRORS * error, message, evidence, hint))
    }

    fn chosen_displacement(&self, policy: Policy<'a>) -> Option<Finding> {
        let e = self.estimate("chosen_logp_change_per_token", policy)?;
        let checks = &self.suite.checks;
        let Crossing { severity, threshold } = crossing(-e.value, -e.upper, checks.displacement_warn, checks.displacement_fail)?;
        let message = format!(
            "`{}`{} finds chosen completions less likely than the reference does, by {} nats a token, beyond {threshold}: its margins grow by pushing rejected texts down, not by learning chosen ones",
            policy.variant,
            by_seed(policy),
            number(-e.value, -e.upper, -e.lower)
        );
        let hint = "lower the learning rate, raise beta, or add an SFT term on chosen completions";
        let evidence = self.since(e, |value| -value > threshold);
        let found = finding("chosen-displacement", severity, Some(policy)).estimate(e);
        Some(found.words(-threshold, message, evidence, hint))
    }

    /// Longer than the threshold, or shorter than its inverse.
    fn length_drift(&self, policy: Policy<'a>) -> Option<Finding> {
        let e = self.estimate("length_ratio", policy)?;
        let (warn, fail) = (self.suite.checks.length_ratio_warn, self.suite.checks.length_ratio_fail);
        let longer = crossing(e.value, e.lower, warn, fail);
        let shorter = crossing(1.0 / e.value, 1.0 / e.upper, warn, fail);
        let (Crossing { severity, threshold }, bound) = match (longer, shorter) {
            (Some(crossing), _) => (crossing, crossing.threshold),
            (None, Some(crossing)) => (crossing, 1.0 / crossing.threshold),
            (None, None) => return None,
        };
        let message = format!(
            "completions of `{}`{} are {} times as long as the reference's, beyond {bound:.2}: its win rate may come from length, not quality",
            policy.variant,
            by_seed(policy),
            number(e.value, e.lower, e.upper)
        );
        let hint = "compare at equal length, or check that the judge doesn't prefer a length (`judge_longer_preference`)";
        let evidence = self.since(e, |value| if bound > 1.0 { value > threshold } else { value < bound });
        Some(finding("length-drift", severity, Some(policy)).estimate(e).words(bound, message, evidence, hint))
    }

    fn no_eos(&self, policy: Policy<'a>) -> Option<Finding> {
        let rise = self.rise(policy, |c| f64::from(u8::from(!c.finished)))?;
        let what = "that never end rose over the reference's";
        let claim = "the judge reads texts that are cut off";
        let hint = "raise `max_new_tokens`, or see that training pairs end with EOS";
        self.risen("no-eos", policy, &rise, self.suite.checks.no_eos_fail, ("the share of completions", what, claim), hint)
    }

    fn repetition(&self, policy: Policy<'a>) -> Option<Finding> {
        let rise = self.rise(policy, |c| repetition(&c.text))?;
        let what = "that repeat earlier ones rose over the reference's";
        let claim = "a win rate above one half may reward degenerate text";
        let hint = "read the samples; raise beta or take an earlier checkpoint";
        self.risen("repetition", policy, &rise, REPETITION_RISE, ("the share of 4-grams", what, claim), hint)
    }

    fn empty(&self, policy: Policy<'a>) -> Option<Finding> {
        let rise = self.rise(policy, |c| f64::from(u8::from(c.text.trim().is_empty())))?;
        let what = "without text rose over the reference's";
        let claim = "an empty answer is judged as if it were one";
        let hint = "read the samples; see that the first token of completions isn't EOS in training";
        self.risen("empty", policy, &rise, EMPTY_RISE, ("the share of completions", what, claim), hint)
    }

    /// Policy minus reference of a property of completions, paired by prompt.
    fn rise(&self, policy: Policy<'a>, value: impl Fn(&Completion) -> f64) -> Option<Measured> {
        let of = |rows: Vec<&'a Completion>| -> Vec<(&'a str, f64)> {
            rows.into_iter().map(|c| (c.prompt_id.as_str(), value(c))).collect()
        };
        let (new, old) = (of(policy.completions(self.evidence)), of(reference(self.evidence)));
        paired_difference(new, old, Range::DIFFERENCE, self.suite.statistics.level)
    }

    fn risen(
        &self,
        id: &str,
        policy: Policy<'a>,
        rise: &Measured,
        limit: f64,
        (subject, what, claim): (&str, &str, &str),
        hint: &str,
    ) -> Option<Finding> {
        let Crossing { severity, threshold } = crossing(rise.value, rise.interval.lower, limit, limit)?;
        let size = percent(rise.value, rise.interval.lower, rise.interval.upper);
        let message = format!(
            "{subject} of `{}`{} {what} by {size}, beyond {:.1} %: {claim}",
            policy.variant,
            by_seed(policy),
            100.0 * threshold
        );
        let evidence = format!("{} prompts at checkpoint {}, policy against reference", rise.clusters, self.last);
        Some(finding(id, severity, Some(policy)).measurement(rise).words(threshold, message, evidence, hint))
    }
}

/// Whether completions are draws from the policy itself: temperature 1 and no truncation of the distribution.
fn samples_the_policy(generate: &GenerateSettings) -> bool {
    generate.temperature == 1.0 && generate.top_p >= 1.0 && generate.top_k.is_none()
}
