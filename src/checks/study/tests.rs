//! Claims on rows whose truth is put there.

use crate::checks::tests::{Rows, suite};
use crate::estimates::summary::fixture::{completion, judgment, pair_score};
use crate::generate::{Completion, REFERENCE};
use crate::judge::GOLD;
use crate::rng::Stream;
use crate::suite::Suite;
use crate::suite::settings::*;

use super::*;

const PROMPTS: usize = 60;

/// What runs of a method are like: its reward d (α − β log d), seeds' luck, the judge's overrating a unit of d, the log-ratio margin.
#[derive(Clone, Copy)]
struct Truth {
    alpha: f64,
    luck: f64,
    overrated: f64,
    margin: f64,
}

const GOOD: Truth = Truth { alpha: 1.0, luck: 0.02, overrated: 0.01, margin: 8.0 };
const POOR: Truth = Truth { alpha: 0.6, luck: 0.3, overrated: 0.1, margin: 2.0 };

/// Two methods of two strengths each, `b` the nearer one, under four seeds at three checkpoints.
fn study_of(truths: [Truth; 2]) -> (Suite, Rows) {
    let mut rows = Rows::default();
    for prompt in 0..PROMPTS {
        let own = completion(REFERENCE, None, 0, prompt, 0);
        rows.completions.push(Completion { gold: Some(0.0), ..own });
    }
    let names = ["one-a", "one-b", "two-a", "two-b"];
    for (index, variant) in names.into_iter().enumerate() {
        let truth = truths[index / 2];
        for seed in 1..=4 {
            let mut stream = Stream::of(seed, "test/study", index as u64);
            let luck = truth.luck * stream.normal();
            for (k, checkpoint) in [10, 20, 30].into_iter().enumerate() {
                let d = (k + 1) as f64 * if index % 2 == 0 { 0.8 } else { 0.5 };
                let reward = d * (truth.alpha - 0.3 * d.ln()) + luck;
                for prompt in 0..PROMPTS {
                    let own = completion(variant, Some(seed), checkpoint, prompt, 0);
                    let (kl, gold) = (d * d * (0.8 + 0.4 * stream.uniform()), reward + 0.3 * stream.normal());
                    rows.completions.push(Completion { kl: Some(kl), gold: Some(gold), ..own });
                    let preference = 0.6 + 0.1 * stream.normal();
                    rows.judgments.push(judgment(GOLD, variant, seed, checkpoint, prompt, preference));
                    let overrated = preference + truth.overrated * d;
                    rows.judgments.push(judgment("pairwise", variant, seed, checkpoint, prompt, overrated));
                    let margin = truth.margin * (0.5 + stream.uniform());
                    rows.pair_scores.push(pair_score(variant, seed, checkpoint, prompt, margin, 0.0));
                }
            }
        }
    }
    let mut suite = suite();
    suite.seeds = vec![1, 2, 3, 4];
    suite.dataset = Dataset::World(world());
    let policy = suite.variants[0].policy.clone();
    suite.variants = names.iter().map(|name| Variant { name: (*name).to_owned(), policy: policy.clone() }).collect();
    let method = |name: &str, variants: [&str; 2]| MethodSettings {
        name: name.to_owned(),
        variants: variants.map(str::to_owned).to_vec(),
    };
    let claim = |kind: ClaimKind| ClaimSettings {
        name: format!("{kind:?}"),
        kind,
        expected: "One is better.".to_owned(),
        method: "One".to_owned(),
        against: (kind != ClaimKind::KlOrder).then(|| "Two".to_owned()),
    };
    suite.study = Some(StudySettings {
        method: vec![method("One", ["one-a", "one-b"]), method("Two", ["two-a", "two-b"])],
        claim: KINDS.into_iter().map(claim).collect(),
    });
    (suite, rows)
}

const KINDS: [ClaimKind; 5] =
    [ClaimKind::Frontier, ClaimKind::SeedVariance, ClaimKind::Calibration, ClaimKind::OverOptimisation, ClaimKind::KlOrder];

fn world() -> WorldSettings {
    WorldSettings {
        demonstrations: 1,
        vocab_size: 300,
        train_prompts: 1,
        heldout_prompts: 1,
        judge_prompts: 1,
        eval_prompts: PROMPTS,
        samples_per_prompt: 2,
        pairs_per_prompt: 1,
        label_temperature: 1.0,
        label_noise: 0.0,
        sampling: Sampling::Shuffle,
    }
}

fn decided(suite: &Suite, rows: &Rows) -> (Study, Vec<Decision>) {
    let found = study(suite, &rows.evidence(), &[]).unwrap();
    let decisions = found.claims.iter().map(|claim| claim.decision).collect();
    (found, decisions)
}

#[test]
fn what_is_true_is_supported_and_what_is_false_contradicted() {
    let (suite, rows) = study_of([GOOD, POOR]);
    let (found, decisions) = decided(&suite, &rows);
    assert_eq!(decisions, [Decision::Supported; 5], "{:#?}", found.claims);
    let (suite, rows) = study_of([POOR, GOOD]);
    let (found, decisions) = decided(&suite, &rows);
    assert_eq!(decisions[..4], [Decision::Contradicted; 4], "{:#?}", found.claims);
}

#[test]
fn equal_methods_leave_every_comparison_undecided() {
    let (suite, rows) = study_of([GOOD, GOOD]);
    let (found, decisions) = decided(&suite, &rows);
    assert_eq!(decisions[..4], [Decision::Undecided; 4], "{:#?}", found.claims);
}

#[test]
fn an_order_that_is_reversed_is_contradicted() {
    let (mut suite, rows) = study_of([GOOD, POOR]);
    suite.study.as_mut().unwrap().method[0].variants.reverse();
    let (found, decisions) = decided(&suite, &rows);
    assert_eq!(decisions[4], Decision::Contradicted, "{:#?}", found.claims[4]);
    assert!(found.claims[4].upper.unwrap() < 0.0);
}

#[test]
fn a_point_is_a_checkpoint_of_a_run_and_a_fit_finds_the_curve_that_was_put_there() {
    let (suite, rows) = study_of([Truth { luck: 0.0, ..GOOD }, POOR]);
    let found = study(&suite, &rows.evidence(), &[]).unwrap();
    assert_eq!(found.points.len(), 4 * 4 * 3);
    let method = &found.methods[0];
    assert_eq!((method.runs, method.points, method.prompts), (8, 24, PROMPTS));
    let fit = method.fit.as_ref().unwrap();
    assert!((fit.alpha.value - 1.0).abs() < 0.05 && (fit.beta.value - 0.3).abs() < 0.05, "{fit:?}");
    assert!(fit.alpha.lower < 1.0 && 1.0 < fit.alpha.upper && fit.curve.len() == DRAWN);
}

#[test]
fn a_moved_beta_counts_as_it_was_at_the_last_checkpoint() {
    let (suite, rows) = study_of([GOOD, GOOD]);
    let row = |seed| OnlineStep { kl_coef: 0.4, ..online("one-a", seed, 30) };
    let moved: Vec<OnlineStep> = (1..=4).map(row).collect();
    let plain = study(&suite, &rows.evidence(), &[]).unwrap();
    let scaled = study(&suite, &rows.evidence(), &moved).unwrap();
    assert!(
        scaled.claims[2].value.unwrap() < plain.claims[2].value.unwrap(),
        "four times the margin, on pairs that are all right"
    );
}

fn online(variant: &str, seed: u64, step: u64) -> OnlineStep {
    OnlineStep {
        variant: variant.to_owned(),
        seed,
        step,
        scores: 0.0,
        kl: 0.0,
        kl_coef: 0.1,
        rlhf_reward: 0.0,
        entropy: 0.0,
        mean_length: 0.0,
        clipped_ratio: 0.0,
        policy_loss: None,
        value_loss: None,
        policy_clipped: None,
        value_clipped: None,
        approximate_kl: None,
        ratio: None,
    }
}

#[test]
fn what_was_not_measured_is_undecided_with_the_reason() {
    let (suite, mut rows) = study_of([GOOD, POOR]);
    rows.pair_scores.clear();
    rows.judgments.retain(|j| j.judge == GOLD || j.prompt_id != "p000");
    let (found, decisions) = decided(&suite, &rows);
    assert_eq!(decisions[2..4], [Decision::Undecided; 2]);
    assert_eq!(found.claims[2].found, "It could not be measured: `One` has runs without implicit rewards.");
    assert_eq!(found.claims[3].found, "It could not be measured: not every prompt was judged at every checkpoint.");
}
