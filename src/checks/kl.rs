//! O3: how far the policy moved from the reference, and whether three estimators say the same (Schulman 2020, "Approximating KL
//! Divergence"; Amini et al. 2025, arXiv 2504.10637).
//!
//! On the policy's own samples y: k1 = Σ_t (log π − log π_ref), unbiased and wide; k3 = Σ_t ((r_t − 1) − log r_t), r_t = π_ref / π at token t,
//! unbiased and never negative; and Σ_t KL(π(·|y_<t) ‖ π_ref(·|y_<t)) over the whole vocabulary, which is k1 with each token's expectation
//! taken exactly (Rao–Blackwell). All three have one mean where completions are draws from the policy as it is. Budgets: a gold reward
//! that is trained against seldom rises beyond some tens of nats (Gao et al. 2022).

use super::inspection::{Inspection, Measure, Reading, Seen, foremost};
use super::{Crossing, Severity, by_seed, crossing, finding, number};
use crate::estimates::summary::Policy;
use crate::generate::Completion;
use crate::statistics::mean::{Clustered, Measured, Range, mean};
use crate::suite::settings::GenerateSettings;

pub(super) const MEASURES: &[Measure] = &[
    Measure { check: "O3", id: "kl-budget", title: "KL to the reference, nats a sequence", by_seed: true, look: budget },
    Measure { check: "O3", id: "kl-per-token", title: "KL to the reference, nats a token", by_seed: true, look: per_token },
    Measure {
        check: "O3",
        id: "kl-disagreement",
        title: "Estimators of KL: sampled minus full-vocabulary",
        by_seed: true,
        look: disagreement,
    },
];

fn budget<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let Some(e) = this.estimate("kl_per_sequence", policy) else { return Seen::not("there are no completions to measure it on") };
    let limits = this.limits();
    let Some(Crossing { severity, threshold }) = crossing(e.value, e.lower, limits.kl_warn, limits.kl_fail) else {
        return Reading::estimate(e, limits.kl_warn).into();
    };
    let message = format!(
        "`{}`{} moved {} nats a sequence away from the reference, beyond {threshold}: its win rate may be over-optimised for the preferences it was trained on",
        policy.variant,
        by_seed(policy),
        number(e.value, e.lower, e.upper)
    );
    let hint = this.milder("raise beta, train for fewer steps, or take an earlier checkpoint");
    let evidence = this.since(e, |value| value > threshold) + &furthest(this, policy);
    finding("kl-budget", severity, Some(policy)).estimate(e).words(threshold, message, evidence, hint).into()
}

fn per_token<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let Some(e) = this.estimate("kl_per_token", policy) else { return Seen::not("there are no completions to measure it on") };
    let limit = this.limits().more.kl_per_token_warn;
    if e.value <= limit {
        return Reading::estimate(e, limit).into();
    }
    let message = format!(
        "`{}`{} moved {} nats a token away from the reference, beyond {limit}: its text is no longer the reference's with small changes",
        policy.variant,
        by_seed(policy),
        number(e.value, e.lower, e.upper)
    );
    let hint = this.milder("read samples beside the reference's; raise beta or take an earlier checkpoint if they are worse");
    let evidence = this.since(e, |value| value > limit) + &furthest(this, policy);
    finding("kl-per-token", Severity::Warn, Some(policy)).estimate(e).words(limit, message, evidence, hint).into()
}

fn furthest<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> String {
    foremost(policy.completions(this.evidence).into_iter().filter_map(|c| Some((c.prompt_id.as_str(), c.kl?))), [])
}

/// Of either sampled estimator minus the full-vocabulary KL, the one that is further off in its own standard errors.
fn disagreement<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    if !samples_the_policy(&this.suite.generate) {
        return Seen::not(
            "completions aren't draws from the policy as it is (temperature 1, no top_p, no top_k): the estimators differ by right",
        );
    }
    let rows = policy.completions(this.evidence);
    let off = |name: &'static str, value: fn(&Completion) -> Option<f64>| {
        let differences = Clustered::new(rows.iter().filter_map(|c| Some((c.prompt_id.as_str(), value(c)? - c.kl?))));
        let error = differences.standard_error()?;
        Some((name, error, mean(&differences, Range::REAL, this.level())?))
    };
    let k1 = off("the sampled log-ratio (k1)", |c| Some(c.policy_logp? - c.reference_logp));
    let k3 = off("k3 a token", |c| c.kl_k3);
    let in_errors = |(_, error, m): &(&str, f64, Measured)| m.value.abs() / error.max(f64::MIN_POSITIVE);
    let most = [k1, k3].into_iter().flatten().max_by(|a, b| in_errors(a).total_cmp(&in_errors(b)));
    let Some((name, error, difference)) = most else { return Seen::not("it takes completions of two prompts") };
    let errors = this.limits().more.kl_errors_warn;
    // Log-probabilities are sums of f32 logs: differences below this are rounding.
    let limit = (errors * error).max(1e-3);
    if difference.value.abs() <= limit {
        return Reading::of(&difference, limit).saying(format!("{name}, which is further off than the other")).into();
    }
    let message = format!(
        "two estimators of the KL of `{}`{} differ by {} nats a sequence, more than {errors} standard errors: neither KL of this policy can be trusted",
        policy.variant,
        by_seed(policy),
        number(difference.value, difference.interval.lower, difference.interval.upper)
    );
    let evidence = format!("{name} against full-vocabulary KL on {} completions", difference.n);
    let hint = "draw more samples a prompt; if it stays, completions and log-probabilities don't belong to one model";
    let found = finding("kl-disagreement", Severity::Warn, Some(policy)).measurement(&difference);
    found.words(errors * error, message, evidence, hint).into()
}

/// Whether completions are draws from the policy itself: temperature 1 and no truncation of the distribution.
fn samples_the_policy(generate: &GenerateSettings) -> bool {
    generate.temperature == 1.0 && generate.top_p >= 1.0 && generate.top_k.is_none()
}
