//! Planted defects are found, and healthy rows say nothing.

use super::*;
use crate::estimates::summary::fixture::{completion, judgment, pair_score, trial};
use crate::estimates::summary::summarise;
use crate::generate::{Completion, REFERENCE};
use crate::judge::{GOLD, JudgeProbe, JudgeTrial, Judgment};
use crate::rng::Stream;
use crate::suite::settings::*;
use crate::train::{PairScore, PairSimilarity};

const PROMPTS: usize = 80;

fn training() -> TrainSettings {
    TrainSettings {
        objective: ObjectiveSettings::default(),
        learning_rate: 1e-4,
        lr_scheduler_type: Scheduler::Linear,
        warmup_steps: 0,
        optim: Optimizer::Adamw,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        momentum: 0.0,
        weight_decay: 0.0,
        max_grad_norm: None,
        per_device_train_batch_size: 8,
        gradient_accumulation_steps: 1,
        num_train_epochs: 1.0,
        max_steps: None,
        max_length: None,
        packing: false,
        packing_strategy: PackingStrategy::Bfd,
        resid_pdrop: 0.0,
        gradient_checkpointing: false,
        save_steps: None,
        sampling: Sampling::Shuffle,
        lora: None,
        rounds: None,
        online: None,
        evaluation: EvaluationSettings::default(),
    }
}

pub(super) fn suite() -> Suite {
    let pairs = PairsSettings {
        path: "pairs.jsonl".into(),
        format: PairsFormat::Explicit,
        limit: None,
        sources: Vec::new(),
        max_prompt_length: None,
        heldout_share: 0.1,
        judge_share: 0.1,
        eval_share: 0.1,
        eval_prompts: PROMPTS,
        sampling: Sampling::Shuffle,
        reading: ReadingSettings::default(),
    };
    let judge = JudgeSettings {
        name: "pairwise".to_owned(),
        kind: JudgeKind::Pairwise,
        source: JudgeSource::Folder { path: "judge".into() },
        template: "{prompt}{a}{b}".to_owned().into(),
        max_length: Some(128),
        tie_width: 0.0,
        min_accuracy: 0.6,
        encoding: EncodingSettings::default(),
        onnx: OnnxSettings::default(),
        fitness: FitnessSettings::default(),
    };
    Suite {
        name: "test".to_owned(),
        title: "Test".to_owned(),
        description: String::new(),
        seed: 1,
        seeds: vec![1, 2],
        numerics: Numerics::Strict,
        device: Device::Cpu,
        dataset: Dataset::Pairs(pairs),
        model: ModelSource::Folder { path: "model".into() },
        sft: None,
        variants: vec![Variant { name: "dpo".to_owned(), policy: PolicySource::Train(Box::new(training())) }],
        generate: GenerateSettings { temperature: 1.0, top_p: 1.0, top_k: None, max_new_tokens: 32, samples_per_prompt: 1 },
        judges: vec![judge],
        compare: CompareSettings { judge: "pairwise".to_owned() },
        statistics: StatisticsSettings { level: 0.95, labels: None },
        checks: CheckSettings::default(),
        study: None,
        gate: GateSettings {
            golden: "golden.json".into(),
            margin: 0.05,
            curve_tolerance: 0.1,
            on_inconclusive: OnInconclusive::Pass,
        },
        report: ReportSettings { samples: 4 },
        base: std::path::PathBuf::new(),
        text: String::new(),
    }
}

#[derive(Clone, Default)]
pub(super) struct Rows {
    pub(super) completions: Vec<Completion>,
    pub(super) judgments: Vec<Judgment>,
    pub(super) pair_scores: Vec<PairScore>,
    pub(super) train_scores: Vec<PairScore>,
    pub(super) opposite_scores: Vec<PairScore>,
    pub(super) similarities: Vec<PairSimilarity>,
    pub(super) judge_trials: Vec<JudgeTrial>,
    pub(super) judge_probes: Vec<JudgeProbe>,
}

impl Rows {
    pub(super) fn evidence(&self) -> Evidence<'_> {
        Evidence {
            completions: &self.completions,
            judgments: &self.judgments,
            pair_scores: &self.pair_scores,
            train_scores: &self.train_scores,
            opposite_scores: &self.opposite_scores,
            similarities: &self.similarities,
            judge_trials: &self.judge_trials,
            judge_probes: &self.judge_probes,
        }
    }

    fn findings(&self) -> Vec<(String, Severity)> {
        self.inspected(&suite()).into_iter().map(|f| (f.id, f.severity)).collect()
    }

    fn inspected(&self, suite: &Suite) -> Vec<Finding> {
        self.looked_at(suite).findings
    }

    fn looked_at(&self, suite: &Suite) -> Inspected {
        inspect(suite, &self.evidence(), &summarise(&self.evidence(), 0.95), &[])
    }

    fn conclusion(&self) -> Conclusion {
        conclude(&suite(), &summarise(&self.evidence(), 0.95)).remove(0)
    }

    fn last(&mut self) -> impl Iterator<Item = &mut Completion> {
        self.completions.iter_mut().filter(|c| c.variant == "dpo" && c.checkpoint == 20)
    }
}

fn add(value: &mut Option<f64>, more: f64) {
    *value = value.map(|value| value + more);
}

/// So many nats further from the reference, by every estimator.
fn move_by(c: &mut Completion, nats: f64) {
    [&mut c.kl, &mut c.kl_k3, &mut c.policy_logp].into_iter().for_each(|value| add(value, nats));
}

/// Win rate about 0.7 by the judge and 0.85 by gold at both checkpoints, a fit judge, little KL.
fn healthy() -> Rows {
    let mut rows = Rows::default();
    for prompt in 0..PROMPTS {
        rows.completions.push(completion(REFERENCE, None, 0, prompt, 0));
        rows.judge_trials.push(trial("pairwise", prompt, if prompt % 5 == 0 { 0.3 } else { 0.8 }));
        for (seed, checkpoint) in [(1, 10), (1, 20), (2, 10), (2, 20)] {
            let mut stream = Stream::of(seed, "test/preference", prompt as u64 * 100 + checkpoint);
            let mut own = completion("dpo", Some(seed), checkpoint, prompt, 0);
            let less = own.kl.map(|kl| 0.875 * kl).unwrap();
            move_by(&mut own, -less);
            rows.completions.push(own);
            rows.judgments.push(judgment("pairwise", "dpo", seed, checkpoint, prompt, 0.4 + 0.6 * stream.uniform()));
            let gold = f64::from(u8::from(stream.bernoulli(0.85)));
            rows.judgments.push(judgment(GOLD, "dpo", seed, checkpoint, prompt, gold));
            let score = PairScore { chosen_tokens: 14, ..pair_score("dpo", seed, checkpoint, prompt, 1.0, -1.0) };
            rows.train_scores.push(PairScore { pair_id: format!("train-{prompt}"), ..score.clone() });
            rows.pair_scores.push(score);
        }
    }
    rows
}

fn ids(rows: &Rows) -> Vec<(String, Severity)> {
    rows.findings()
}

fn one(id: &str, severity: Severity) -> Vec<(String, Severity)> {
    vec![(id.to_owned(), severity)]
}

fn several(all: &[(&str, Severity)]) -> Vec<(String, Severity)> {
    all.iter().map(|(id, severity)| ((*id).to_owned(), *severity)).collect()
}

#[test]
fn healthy_rows_say_nothing() {
    assert_eq!(ids(&healthy()), []);
}

#[test]
fn kl_beyond_the_budget_warns_or_fails() {
    let mut rows = healthy();
    rows.last().for_each(|c| move_by(c, 12.0));
    assert_eq!(ids(&rows), several(&[("kl-budget", Severity::Warn), ("kl-per-token", Severity::Warn)]));
    rows.last().for_each(|c| move_by(c, 50.0));
    assert_eq!(ids(&rows), several(&[("kl-budget", Severity::Fail), ("kl-per-token", Severity::Warn)]));
    let found = &rows.inspected(&suite())[0];
    assert!(found.message.contains("win rate") && found.evidence.contains("80 prompts"), "{found:?}");
    assert_eq!((found.threshold, found.checkpoint, found.seed), (Some(50.0), Some(20), None));
}

#[test]
fn one_seed_beyond_the_budget_is_named() {
    let mut rows = healthy();
    let second = rows.last().filter(|c| c.seed == Some(2));
    second.for_each(|c| move_by(c, 12.0));
    let found = rows.inspected(&suite());
    assert_eq!((found.len(), found[0].id.as_str(), found[0].seed), (2, "kl-budget", Some(2)));
}

#[test]
fn estimators_of_kl_must_agree_where_they_estimate_the_same() {
    let mut rows = healthy();
    rows.last().for_each(|c| add(&mut c.policy_logp, 1.0));
    assert_eq!(ids(&rows), one("kl-disagreement", Severity::Warn));
    let mut rows = healthy();
    rows.last().for_each(|c| add(&mut c.kl_k3, 1.0));
    assert_eq!(ids(&rows), one("kl-disagreement", Severity::Warn));
    let greedy = Suite { generate: GenerateSettings { temperature: 0.0, ..suite().generate }, ..suite() };
    assert_eq!(rows.inspected(&greedy), []);
}

#[test]
fn chosen_likelihood_that_falls_too_far_is_found() {
    let mut rows = healthy();
    let fall = |rows: &mut Rows, by: f64| {
        let both = rows.pair_scores.iter_mut().chain(&mut rows.train_scores);
        both.filter(|p| p.checkpoint == 20).for_each(|p| p.policy_chosen -= by);
    };
    fall(&mut rows, 2.0);
    let fell = ("chosen-fell", Severity::Warn);
    assert_eq!(ids(&rows), several(&[("chosen-displacement", Severity::Warn), fell]));
    fall(&mut rows, 3.0);
    assert_eq!(ids(&rows), several(&[("chosen-displacement", Severity::Fail), fell]));
}

#[test]
fn lengths_that_drift_either_way_are_found() {
    let mut rows = healthy();
    rows.last().for_each(|c| c.tokens = c.tokens * 3 / 2);
    assert_eq!(ids(&rows), several(&[("length-drift", Severity::Warn), ("length-beyond-chosen", Severity::Fail)]));
    rows.last().for_each(|c| c.tokens /= 3);
    assert_eq!(ids(&rows), one("length-drift", Severity::Fail));
}

#[test]
fn completions_that_never_end_repeat_or_are_empty_are_found() {
    let mut rows = healthy();
    rows.last().for_each(|c| c.finished = c.prompt_id.ends_with('0'));
    assert_eq!(ids(&rows), one("no-eos", Severity::Fail));
    let mut rows = healthy();
    rows.last().for_each(|c| c.text = "good good good good good good good good".to_owned());
    let expected = ["distinct-collapse", "repetition", "loops"].map(|id| (id, Severity::Fail));
    assert_eq!(ids(&rows), several(&expected));
    let mut rows = healthy();
    rows.last().filter(|c| c.prompt_id.ends_with('3')).for_each(|c| c.text = " ".to_owned());
    assert_eq!(ids(&rows), one("empty", Severity::Fail));
}

#[test]
fn a_win_rate_that_falls_after_its_peak_is_a_hump() {
    let mut rows = healthy();
    rows.judgments
        .iter_mut()
        .filter(|j| j.judge == "pairwise" && j.checkpoint == 20)
        .for_each(|j| j.preference = (j.preference - 0.15).max(0.0));
    let found = rows.inspected(&suite());
    assert_eq!((found.len(), found[0].id.as_str(), found[0].severity), (1, "win-rate-hump", Severity::Fail));
    assert!(found[0].upper.unwrap() < 0.0 && found[0].message.contains("from checkpoint 10 to checkpoint 20"));
}

#[test]
fn a_judge_that_contradicts_gold_is_found() {
    let mut rows = healthy();
    rows.judgments.iter_mut().filter(|j| j.judge == GOLD).for_each(|j| j.preference = 1.0 - j.preference);
    assert_eq!(ids(&rows), one("judge-gold-disagreement", Severity::Fail));
}

#[test]
fn an_unfit_judge_voids_its_win_rates_and_an_unproven_one_warns() {
    let mut rows = healthy();
    rows.judge_trials = (0..PROMPTS).map(|p| trial("pairwise", p, if p % 2 == 0 { 0.3 } else { 0.8 })).collect();
    assert_eq!(ids(&rows), one("judge-unfit", Severity::Fail));
    let conclusion = rows.conclusion();
    assert_eq!(conclusion.answer, Answer::Void);
    assert!(conclusion.sentence.contains("50.0 %") && conclusion.sentence.contains("void"), "{}", conclusion.sentence);
    rows.judge_trials = (0..PROMPTS).map(|p| trial("pairwise", p, if p % 3 == 0 { 0.3 } else { 0.8 })).collect();
    assert_eq!(ids(&rows), one("judge-accuracy", Severity::Warn));
    assert_eq!(rows.conclusion().answer, Answer::Better);
    rows.judge_trials.clear();
    assert_eq!(ids(&rows), one("judge-accuracy", Severity::Warn));
}

#[test]
fn a_judge_that_favours_a_place_is_found() {
    let mut rows = healthy();
    rows.judge_trials.iter_mut().for_each(|t| t.position_effect = Some(-1.5));
    assert_eq!(ids(&rows), one("judge-position", Severity::Warn));
    assert!(rows.inspected(&suite())[0].message.contains("shown second"));
}

#[test]
fn a_judge_that_decides_and_labels_what_is_trained_on_is_told() {
    let labelled = |judge: &str| {
        let (reference, judge) = (RoundReference::Previous, judge.to_owned());
        let rounds = RoundSettings { rounds: 2, reference, judge, samples_per_prompt: 2, pairs_per_prompt: 1 };
        let policy = PolicySource::Train(Box::new(TrainSettings { rounds: Some(rounds), ..training() }));
        Suite { variants: vec![Variant { name: "dpo".to_owned(), policy }], ..suite() }
    };
    let found = healthy().inspected(&labelled("pairwise"));
    assert_eq!((found.len(), found[0].id.as_str(), found[0].severity), (1, "judge-labels", Severity::Warn));
    assert_eq!(healthy().inspected(&labelled("another")), []);
}

#[test]
fn a_judge_that_decides_and_rewards_what_is_trained_is_told() {
    let chosen = |judge: &str| {
        let policy = PolicySource::BestOfN(BestOfSettings { best_of_n: vec![10, 20], reward_model: judge.to_owned() });
        Suite { variants: vec![Variant { name: "dpo".to_owned(), policy }], ..suite() }
    };
    let found = |judge: &str| healthy().inspected(&chosen(judge)).iter().any(|f| f.id == "judge-rewards");
    assert!(found("pairwise") && !found("another"));
}

#[test]
fn conclusions_have_three_answers_with_a_number_when_undecided() {
    let mut rows = healthy();
    let better = rows.conclusion();
    assert_eq!((better.answer, better.prompts_needed), (Answer::Better, None));
    assert!(better.sentence.starts_with("`dpo` beats the reference: win rate 7"), "{}", better.sentence);
    assert!(better.sentence.contains("(gold: "));
    assert_eq!(better.win_rate.checkpoint, Some(20));
    rows.judgments.iter_mut().for_each(|j| j.preference = 1.0 - j.preference);
    assert_eq!(rows.conclusion().answer, Answer::Worse);
    rows.judgments.iter_mut().for_each(|j| j.preference = (j.preference + 0.19).min(1.0));
    let undecided = rows.conclusion();
    assert_eq!(undecided.answer, Answer::Undecided, "{}", undecided.sentence);
    assert!(undecided.prompts_needed.unwrap() > PROMPTS as u64);
    assert!(undecided.sentence.contains("80 prompts"), "{}", undecided.sentence);
}

mod decoded;
mod measures;
mod probes;

#[test]
fn evidence_names_the_prompts_that_show_it_most() {
    let mut rows = healthy();
    let grown =
        |prompt: &str| ["p007", "p031", "p005"].iter().position(|name| *name == prompt).map_or(12.0, |place| 40.0 - place as f64);
    rows.last().for_each(|c| {
        let by = grown(&c.prompt_id);
        move_by(c, by);
    });
    let found = rows.inspected(&suite());
    let budget = found.iter().find(|f| f.id == "kl-budget").unwrap();
    assert!(budget.evidence.ends_with("; furthest on `p007`, `p031`, `p005`"), "{}", budget.evidence);
}
