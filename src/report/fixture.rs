//! A report such as a small suite would give, from addressed random streams: for the tests of the renderers.

use crate::checks::{Answer, CheckOutcome, CheckRow, Conclusion, Finding, HumpFit, Ranged, Severity};
use crate::digest::Digest;
use crate::estimates::Estimate;
use crate::generate::{Completion, REFERENCE};
use crate::judge::probes::{self, Answered, Probe};
use crate::judge::{GOLD, JudgeProbe, JudgeTrial, Judgment, Outcome};
use crate::rlhf::OnlineStep;
use crate::rng::Stream;
use crate::suite::settings::{GateSettings, Numerics, OnInconclusive};
use crate::train::chain::Abridged;
use crate::train::{EvalStep, PairScore, TrainStep};

use super::{CellRow, Fact, GateReport, GateRow, ReportData, SCHEMA, SuiteInfo, VariantInfo, Verdict};

const PROMPTS: usize = 40;
const STEPS: u64 = 60;
const CHECKPOINTS: [u64; 3] = [20, 40, 60];
const SEEDS: [u64; 2] = [11, 12];
/// Name, label, β, and how far it moves from the reference.
const VARIANTS: [(&str, &str, f64, f64); 2] = [("dpo-b0.1", "DPO, β = 0.1", 0.1, 1.0), ("dpo-b0.5", "DPO, β = 0.5", 0.5, 0.45)];
const PAIRWISE: &str = "pairwise";
const REWARD_MODEL: &str = "reward-model";

/// Everything present: gold, gate, seeds, trials, findings.
pub(crate) fn report() -> ReportData {
    let mut data = ReportData {
        schema: SCHEMA,
        suite: suite(),
        judge: PAIRWISE.to_owned(),
        conclusions: Vec::new(),
        estimates: Vec::new(),
        findings: findings(),
        checks: checks(),
        humps: humps(),
        study: None,
        decodings: vec![],
        audit: Vec::new(),
        gate: Some(gate()),
        gate_settings: GateSettings {
            golden: "golden/fixture.json".into(),
            margin: 0.03,
            curve_tolerance: 1e-6,
            on_inconclusive: OnInconclusive::Pass,
        },
        cells: cells(),
        provenance: provenance(),
        train_log: train_log(),
        online_log: online_log(),
        eval_log: eval_log(),
        chains: [("train/dpo/seed-1".to_owned(), Abridged { last: Digest::of_bytes(b"link"), links: "0a1b2c3d".into() })].into(),
        judged: Default::default(),
        pair_scores: pair_scores(),
        train_scores: Vec::new(),
        opposite_scores: Vec::new(),
        similarities: Vec::new(),
        completions: completions(),
        judgments: Vec::new(),
        judge_trials: trials(),
        judge_probes: probes(),
        labelled: None,
        sequential: Vec::new(),
        samples_shown: 3,
    };
    data.judgments = judgments(&data.completions);
    data.estimates = estimates(&data);
    data.conclusions = conclusions(&data);
    data
}

fn owned(text: &str) -> String {
    text.to_owned()
}

fn suite() -> SuiteInfo {
    let variants = VARIANTS.iter().map(|v| VariantInfo {
        name: owned(v.0),
        label: owned(v.1),
        seeds: SEEDS.to_vec(),
        checkpoints: CHECKPOINTS.to_vec(),
        best_of_n: false,
    });
    SuiteInfo {
        name: owned("fixture"),
        title: owned("A small world, for tests"),
        description: owned("Two strengths of DPO against the frozen SFT reference, judged by two learned judges and by gold."),
        digest: Digest::of_bytes(b"fixture suite"),
        numerics: Numerics::Strict,
        variants: variants.collect(),
    }
}

fn cells() -> Vec<CellRow> {
    let cell = |id: &str, stage: &str| CellRow {
        id: owned(id),
        stage: owned(stage),
        key: Digest::of_bytes(id.as_bytes()),
        output: Digest::of_bytes(format!("output of {id}").as_bytes()),
    };
    let mut cells = vec![cell("world", "data"), cell("tokenizer", "tokens"), cell("sft", "sft")];
    for (variant, ..) in VARIANTS {
        cells.extend(SEEDS.map(|seed| cell(&format!("train/{variant}/seed-{seed}"), "train")));
    }
    cells
}

fn provenance() -> Vec<Fact> {
    let fact = |name: &str, value: String| Fact { name: owned(name), value };
    vec![
        fact("dpo-eval", owned("0.1.0")),
        fact("numerics", owned("strict")),
        fact("suite file", Digest::of_bytes(b"suite").to_string()),
        fact("reference model", Digest::of_bytes(b"reference").to_string()),
    ]
}

/// Every tenth step of the training log, as if it had been measured on held-out pairs.
fn online_log() -> Vec<OnlineStep> {
    let row = |ppo: bool| OnlineStep {
        variant: if ppo { "ppo" } else { "rloo" }.into(),
        seed: 1,
        step: 1,
        scores: 0.25,
        kl: 1.5,
        kl_coef: 0.05,
        rlhf_reward: 0.175,
        entropy: 20.5,
        mean_length: 18.25,
        clipped_ratio: 0.125,
        policy_loss: ppo.then_some(-0.01),
        value_loss: ppo.then_some(0.5),
        policy_clipped: ppo.then_some(0.1),
        value_clipped: ppo.then_some(0.2),
        approximate_kl: ppo.then_some(0.004),
        ratio: ppo.then_some(1.001),
    };
    vec![row(true), row(false)]
}

fn eval_log() -> Vec<EvalStep> {
    let row = |row: &TrainStep| {
        let fields = serde_json::to_value(row).unwrap();
        let renamed = fields.as_object().unwrap().iter().map(|(name, value)| {
            let own = ["variant", "seed", "step", "epoch"].contains(&name.as_str());
            (if own { name.clone() } else { format!("eval_{name}") }, value.clone())
        });
        serde_json::from_value(renamed.collect::<serde_json::Map<_, _>>().into()).unwrap()
    };
    train_log().iter().filter(|r| r.step.is_multiple_of(10)).map(row).collect()
}

fn train_log() -> Vec<TrainStep> {
    let mut rows = Vec::new();
    for (variant, _, beta, pull) in VARIANTS {
        for seed in SEEDS {
            let mut noise = Stream::of(seed, variant, 0);
            for step in 1..=STEPS {
                let t = step as f64 / STEPS as f64;
                let chosen = pull * (2.0 * t + 0.3 * noise.normal()) - 4.0 * pull * t * t;
                let rejected = -pull * (6.0 * t - 0.3 * noise.normal());
                let margin = beta * (chosen - rejected) * 4.0;
                rows.push(TrainStep {
                    variant: owned(variant),
                    seed,
                    step,
                    epoch: 2.0 * t,
                    loss: libm::log1p(libm::exp(-margin)),
                    rewards_chosen: Some(beta * chosen),
                    rewards_rejected: Some(beta * rejected),
                    rewards_margins: Some(margin),
                    rewards_accuracies: Some((0.5 + 0.3 * t + 0.05 * noise.normal()).clamp(0.0, 1.0)),
                    rewards_ties: Some(0.0),
                    logps_chosen: Some(-42.0 + chosen),
                    logps_rejected: Some(-45.0 + rejected),
                    logps_chosen_fell: Some(0.25),
                    kl_chosen: Some(chosen),
                    kl_rejected: Some(rejected),
                    kl: None,
                    nll_loss: None,
                    log_odds_ratio: None,
                    log_odds_chosen: None,
                    logits_chosen: Some(-1.2),
                    logits_rejected: Some(-1.3),
                    entropy: 2.1 - 0.3 * t,
                    grad_norm: 3.0 * (1.0 - 0.7 * t) + 0.2 * noise.uniform(),
                    learning_rate: 1e-4 * (1.0 - t),
                    num_tokens: step * 1200,
                });
            }
        }
    }
    rows
}

fn pair_scores() -> Vec<PairScore> {
    let mut rows = Vec::new();
    for (variant, _, beta, pull) in VARIANTS {
        for seed in SEEDS {
            for (c, checkpoint) in CHECKPOINTS.into_iter().enumerate() {
                let mut noise = Stream::of(seed, variant, 1 + c as u64);
                for pair in 0..PROMPTS {
                    let strength = pull * (c + 1) as f64;
                    let (chosen, rejected) = (-40.0 - 3.0 * noise.uniform(), -41.0 - 3.0 * noise.uniform());
                    rows.push(PairScore {
                        variant: owned(variant),
                        seed: Some(seed),
                        checkpoint,
                        pair_id: format!("pair-{pair:03}"),
                        prompt_id: format!("heldout-{:03}", pair / 2),
                        beta,
                        policy_chosen: chosen + strength * (0.2 + noise.normal()),
                        policy_rejected: rejected - strength * (1.0 + noise.normal()),
                        reference_chosen: chosen,
                        reference_rejected: rejected,
                        chosen_tokens: 20 + noise.index(8) as u32,
                        rejected_tokens: 20 + noise.index(8) as u32,
                    });
                }
            }
        }
    }
    rows
}

const NOUNS: [&str; 6] = ["kettle", "lamp", "radio", "jacket", "train ride", "novel"];
const GOOD: [&str; 4] = ["works well and looks lovely", "is very quiet", "feels sturdy", "was worth its price"];
const BAD: [&str; 4] = ["broke after a week", "is rather loud", "smells of glue", "was not worth its price"];

fn completions() -> Vec<Completion> {
    let mut rows = Vec::new();
    let mut policies = vec![(REFERENCE, 0.0, None, 0)];
    for (variant, _, _, pull) in VARIANTS {
        for seed in SEEDS {
            policies.extend(CHECKPOINTS.map(|c| (variant, pull * c as f64 / STEPS as f64, Some(seed), c)));
        }
    }
    for (variant, pull, seed, checkpoint) in policies {
        let mut draw = Stream::of(seed.unwrap_or(0), &format!("completions/{variant}"), checkpoint);
        for prompt in 0..PROMPTS {
            rows.push(completion(variant, pull, seed, checkpoint, prompt, &mut draw));
        }
    }
    rows
}

fn completion(variant: &str, pull: f64, seed: Option<u64>, checkpoint: u64, prompt: usize, draw: &mut Stream) -> Completion {
    let noun = NOUNS[prompt % NOUNS.len()];
    let clauses = 1 + draw.index(3) + usize::from(draw.bernoulli(pull * 0.6));
    let mut text = String::new();
    let mut gold = 0.0;
    for clause in 0..clauses {
        let good = draw.bernoulli(0.5 + 0.35 * pull);
        gold += if good { 1.0 } else { -1.0 };
        let phrase = *draw.choose(if good { &GOOD } else { &BAD });
        text += if clause == 0 { "The " } else { " It " };
        text += &if clause == 0 { format!("{noun} {phrase}.") } else { format!("{phrase}.") };
    }
    let tokens = (6 * clauses + draw.index(4)) as u32;
    let kl = pull * f64::from(tokens) * (0.08 + 0.03 * draw.uniform());
    Completion {
        variant: owned(variant),
        seed,
        checkpoint,
        prompt_id: format!("eval-{prompt:03}"),
        sample: 0,
        prompt: format!("Write a short review of a {noun}."),
        text,
        tokens,
        finished: draw.bernoulli(0.97),
        policy_logp: Some(-1.1 * f64::from(tokens) + kl),
        reference_logp: -1.1 * f64::from(tokens),
        kl: Some(kl),
        kl_k3: Some(1.02 * kl),
        entropy: Some(f64::from(tokens) * (1.2 - 0.3 * pull)),
        gold: Some(libm::tanh(gold / 2.0)),
    }
}

fn judgments(completions: &[Completion]) -> Vec<Judgment> {
    let reference = |id: &str| completions.iter().find(|c| c.variant == REFERENCE && c.prompt_id == id).expect("each prompt");
    let mut rows = Vec::new();
    for judge in [PAIRWISE, REWARD_MODEL, GOLD] {
        let mut noise = Stream::of(0, judge, 0);
        for policy in completions.iter().filter(|c| c.variant != REFERENCE) {
            rows.push(judgment(judge, policy, reference(&policy.prompt_id), &mut noise));
        }
    }
    rows
}

/// What the two learned judges and gold say of a few probes; the pairwise one likes length.
fn probes() -> Vec<JudgeProbe> {
    let answers: Vec<Answered> =
        [("eval-000", "It is bright. I like it."), ("eval-001", "Dull."), ("eval-002", "The lamp is fine.")]
            .map(|(prompt_id, text)| Answered { prompt_id, prompt: "Review of a lamp:", text })
            .to_vec();
    let mut rows = Vec::new();
    for (judge, likes) in [(PAIRWISE, 0.01), (REWARD_MODEL, -0.01), (GOLD, f64::NEG_INFINITY)] {
        for shown in probes::make(&answers, 3) {
            let length_difference = shown.text.len() as i64 - shown.against.text.len() as i64;
            let preference = if length_difference == 0 { 0.5 } else { 1.0 / (1.0 + (-likes * length_difference as f64).exp()) };
            rows.push(JudgeProbe {
                judge: owned(judge),
                probe: shown.probe,
                prompt_id: owned(shown.against.prompt_id),
                preference: if judge == GOLD && length_difference != 0 { 0.0 } else { preference },
                outcome: if preference > 0.5 { Outcome::Win } else { Outcome::Loss },
                position_effect: (judge == PAIRWISE).then_some(0.25),
                length_difference,
                truncated: false,
            });
        }
    }
    rows
}

fn judgment(judge: &str, policy: &Completion, reference: &Completion, noise: &mut Stream) -> Judgment {
    let (ours, theirs) = (policy.gold.expect("gold"), reference.gold.expect("gold"));
    let same = policy.text == reference.text;
    let opinion = if same { 0.0 } else { 1.6 * (ours - theirs) + if judge == GOLD { 0.0 } else { 0.8 * noise.normal() } };
    let bias = 0.25 + 0.1 * noise.normal();
    let pairwise = judge == PAIRWISE && !same;
    let scores = judge != PAIRWISE;
    let preference = match judge {
        GOLD => 0.5 + 0.5 * f64::from(i8::from(ours > theirs) - i8::from(ours < theirs)),
        _ => 1.0 / (1.0 + libm::exp(-opinion)),
    };
    Judgment {
        judge: owned(judge),
        variant: policy.variant.clone(),
        seed: policy.seed,
        checkpoint: policy.checkpoint,
        prompt_id: policy.prompt_id.clone(),
        sample: policy.sample,
        logit_policy_first: pairwise.then_some(opinion + bias),
        logit_reference_first: pairwise.then_some(bias - opinion),
        score_policy: scores.then_some(if judge == GOLD { ours } else { opinion }),
        score_reference: scores.then_some(if judge == GOLD { theirs } else { 0.0 }),
        preference,
        outcome: match preference {
            p if (p - 0.5).abs() < 0.02 => Outcome::Tie,
            p if p > 0.5 => Outcome::Win,
            _ => Outcome::Loss,
        },
        position_effect: pairwise.then_some(bias),
        asked: !same,
        truncated: false,
    }
}

fn trials() -> Vec<JudgeTrial> {
    let mut rows = Vec::new();
    for judge in [PAIRWISE, REWARD_MODEL] {
        let mut noise = Stream::of(1, judge, 0);
        for pair in 0..PROMPTS {
            let better = noise.uniform();
            rows.push(JudgeTrial {
                judge: owned(judge),
                pair_id: format!("judge-pair-{pair:03}"),
                prompt_id: format!("judge-{:03}", pair / 2),
                preference: 1.0 / (1.0 + libm::exp(-0.9 - noise.normal())),
                position_effect: (judge == PAIRWISE).then(|| 0.25 + 0.1 * noise.normal()),
                gold_better: Some(better),
                gold_worse: Some(better - 0.5 * noise.uniform()),
                length_difference: noise.index(60) as i64 - 30,
            });
        }
    }
    rows
}

/// A mean with a normal interval: the fixture needs plausible numbers, not good ones.
#[derive(Clone, Copy)]
struct Address<'a>(&'a str, &'a str, Option<u64>, Option<u64>, Option<&'a str>);

fn mean(address: Address, values: &[f64]) -> Estimate {
    let Address(metric, variant, checkpoint, seed, judge) = address;
    let n = values.len() as f64;
    let value = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - value) * (v - value)).sum::<f64>() / (n - 1.0);
    let half = 1.96 * (variance / n).sqrt();
    Estimate {
        metric: owned(metric),
        variant: owned(variant),
        checkpoint,
        seed,
        judge: judge.map(owned),
        slice: None,
        value,
        lower: value - half,
        upper: value + half,
        level: 0.95,
        n: values.len(),
        clusters: PROMPTS,
        method: owned(crate::statistics::mean::CLUSTER_T),
    }
}

fn estimates(data: &ReportData) -> Vec<Estimate> {
    let mut rows = Vec::new();
    for judge in [PAIRWISE, REWARD_MODEL] {
        let trials: Vec<_> = data.judge_trials.iter().filter(|t| t.judge == judge).collect();
        let of = |f: &dyn Fn(&JudgeTrial) -> f64| trials.iter().map(|t| f(t)).collect::<Vec<_>>();
        let at = |metric| Address(metric, "", None, None, Some(judge));
        rows.push(mean(at("judge_accuracy"), &of(&|t| f64::from(t.preference > 0.5))));
        let by_label = mean(at("judge_accuracy"), &of(&|t| f64::from(t.preference > 0.45)));
        rows.push(Estimate { slice: Some(owned("labels")), ..by_label });
        rows.push(mean(at("judge_brier"), &of(&|t| (1.0 - t.preference) * (1.0 - t.preference))));
        rows.push(mean(at("judge_longer_preference"), &of(&|t| f64::from((t.length_difference > 0) == (t.preference > 0.5)))));
        if judge == PAIRWISE {
            rows.push(mean(at("judge_position_effect"), &of(&|t| t.position_effect.expect("pairwise"))));
        }
    }
    let reference: Vec<_> = data.completions.iter().filter(|c| c.variant == REFERENCE).collect();
    for (metric, of) in COMPLETION_METRICS.iter().filter(|m| !m.0.starts_with("kl")) {
        rows.push(mean(Address(metric, REFERENCE, Some(0), None, None), &reference.iter().map(|c| of(c)).collect::<Vec<_>>()));
    }
    let reference_tokens = reference.iter().map(|c| f64::from(c.tokens)).sum::<f64>() / reference.len() as f64;
    for judge in [PAIRWISE, REWARD_MODEL, GOLD] {
        for probe in Probe::ALL {
            let of = data.judge_probes.iter().filter(|p| p.judge == judge && p.probe == probe);
            let (metric, from) = match probe {
                Probe::Null | Probe::Empty => (format!("probe_{}_win_rate", probe.name()), 0.0),
                Probe::Identical => ("probe_identical_bias".to_owned(), 0.5),
                _ => (format!("probe_{}_gain", probe.name()), 0.5),
            };
            let values: Vec<f64> = of.map(|p| p.preference - from).collect();
            rows.push(mean(Address(&metric, "", None, None, Some(judge)), &values));
        }
    }
    for (variant, ..) in VARIANTS {
        for checkpoint in CHECKPOINTS {
            for seed in [Some(SEEDS[0]), Some(SEEDS[1]), None] {
                policy_estimates(data, reference_tokens, Address("", variant, Some(checkpoint), seed, None), &mut rows);
            }
        }
    }
    rows
}

type OfCompletion = fn(&Completion) -> f64;
const COMPLETION_METRICS: [(&str, OfCompletion); 5] = [
    ("kl_per_sequence", |c| c.kl.expect("KL")),
    ("kl_per_token", |c| c.kl.expect("KL") / f64::from(c.tokens)),
    ("kl_k1_per_sequence", |c| c.policy_logp.expect("a log-probability") - c.reference_logp),
    ("gold_reward", |c| c.gold.expect("gold")),
    ("no_eos_rate", |c| f64::from(!c.finished)),
];

type OfPair = fn(&PairScore) -> f64;
const PAIR_METRICS: [(&str, OfPair); 5] = [
    ("implicit_reward_accuracy", |p| f64::from(margin(p) > 0.0)),
    ("implicit_reward_margin", |p| p.beta * margin(p)),
    ("chosen_logp_change", |p| p.policy_chosen - p.reference_chosen),
    ("rejected_logp_change", |p| p.policy_rejected - p.reference_rejected),
    ("chosen_logp_change_per_token", |p| (p.policy_chosen - p.reference_chosen) / f64::from(p.chosen_tokens)),
];

fn margin(p: &PairScore) -> f64 {
    p.policy_chosen - p.reference_chosen - p.policy_rejected + p.reference_rejected
}

fn policy_estimates(data: &ReportData, reference_tokens: f64, address: Address, rows: &mut Vec<Estimate>) {
    let Address(_, variant, checkpoint, seed, _) = address;
    let at = |metric, judge| Address(metric, variant, checkpoint, seed, judge);
    let here = |v: &str, c: u64, s: Option<u64>| v == variant && Some(c) == checkpoint && (seed.is_none() || s == seed);
    for judge in [PAIRWISE, REWARD_MODEL, GOLD] {
        let judged = data.judgments.iter().filter(|j| j.judge == judge && here(&j.variant, j.checkpoint, j.seed));
        let judged: Vec<_> = judged.collect();
        rows.push(mean(at("win_rate", Some(judge)), &judged.iter().map(|j| j.preference).collect::<Vec<_>>()));
        let ties: Vec<_> = judged.iter().map(|j| f64::from(j.outcome == Outcome::Tie)).collect();
        rows.push(mean(at("tie_rate", Some(judge)), &ties));
        if judge == PAIRWISE {
            let effects: Vec<_> = judged.iter().filter_map(|j| j.position_effect).collect();
            rows.push(mean(at("position_effect", Some(judge)), &effects));
            let same = |j: &&Judgment| Some(f64::from(j.logit_policy_first? * j.logit_reference_first? < 0.0));
            rows.push(mean(at("order_consistency", Some(judge)), &judged.iter().filter_map(same).collect::<Vec<_>>()));
        }
    }
    let completions = data.completions.iter().filter(|c| here(&c.variant, c.checkpoint, c.seed));
    let completions: Vec<_> = completions.collect();
    for (metric, of) in COMPLETION_METRICS {
        rows.push(mean(at(metric, None), &completions.iter().map(|c| of(c)).collect::<Vec<_>>()));
    }
    let ratios: Vec<_> = completions.iter().map(|c| f64::from(c.tokens) / reference_tokens).collect();
    rows.push(mean(at("length_ratio", None), &ratios));
    let pairs: Vec<_> = data.pair_scores.iter().filter(|p| here(&p.variant, p.checkpoint, p.seed)).collect();
    for (metric, of) in PAIR_METRICS {
        rows.push(mean(at(metric, None), &pairs.iter().map(|p| of(p)).collect::<Vec<_>>()));
    }
}

fn conclusions(data: &ReportData) -> Vec<Conclusion> {
    let of = |(variant, label, ..): (&str, &str, f64, f64)| {
        let win_rate = |judge| data.estimate("win_rate", variant, Some(STEPS), None, Some(judge)).expect("estimated").clone();
        let (by_judge, by_gold) = (win_rate(PAIRWISE), win_rate(GOLD));
        let answer = if by_judge.lower > 0.5 { Answer::Better } else { Answer::Undecided };
        let words = if answer == Answer::Better { "beats the reference" } else { "can't be told apart from the reference" };
        Conclusion {
            variant: owned(variant),
            answer,
            sentence: format!("{label} {words} at step {STEPS}: win rate {:.3} by the judge `{PAIRWISE}`.", by_judge.value),
            win_rate: by_judge,
            gold_win_rate: Some(by_gold),
            prompts_needed: (answer == Answer::Undecided).then_some(420),
        }
    };
    VARIANTS.map(of).to_vec()
}

fn findings() -> Vec<Finding> {
    let finding = |id: &str, severity, variant: &str, message: &str, hint: &str| Finding {
        id: owned(id),
        check: if variant.is_empty() { String::new() } else { owned("O8") },
        severity,
        variant: owned(variant),
        checkpoint: (!variant.is_empty()).then_some(STEPS),
        seed: None,
        message: owned(message),
        value: Some(1.19),
        lower: Some(1.08),
        upper: Some(1.3),
        threshold: Some(1.15),
        n: 80,
        evidence: owned("40 prompts, 2 seeds"),
        hint: owned(hint),
        claim: if variant.is_empty() { String::new() } else { format!("the win rate of `{variant}` by judge `{PAIRWISE}`") },
    };
    vec![
        finding(
            "length-ratio",
            Severity::Warn,
            "dpo-b0.1",
            "Completions are 1.19 times as long as the reference's, interval [1.08, 1.30], above 1.15.",
            "Compare at equal length before trusting the win rate.",
        ),
        finding("split-overlap", Severity::Info, "", "Training and evaluation share none of 120 prompts.", "Nothing to do."),
    ]
}

/// One that warns, one within its limit, one that couldn't be made; and a judge's.
fn checks() -> Vec<CheckRow> {
    let row = |check: &str, id: &str, title: &str, outcome, value: Option<f64>, message: &str| CheckRow {
        check: owned(check),
        id: owned(id),
        title: owned(title),
        variant: owned(VARIANTS[0].0),
        checkpoint: Some(STEPS),
        judge: None,
        outcome,
        value,
        lower: value.map(|v| v - 0.1),
        upper: value.map(|v| v + 0.1),
        threshold: value.map(|_| 1.15),
        n: 80,
        message: owned(message),
    };
    let mut rows = vec![
        row("O3", "kl-budget", "KL to the reference, nats a sequence", CheckOutcome::Pass, Some(0.9), ""),
        row("O8", "length-ratio", "Length over the reference's", CheckOutcome::Warn, Some(1.19), ""),
        row(
            "O11",
            "self-bleu",
            "Rise of self-BLEU",
            CheckOutcome::Unchecked,
            None,
            "not checked, because there is one sample a prompt",
        ),
    ];
    let judge = row("O14", "judge-null", "Probe `null`", CheckOutcome::Pass, Some(0.04), "");
    rows.push(CheckRow { variant: String::new(), checkpoint: None, judge: Some(owned(PAIRWISE)), ..judge });
    rows
}

fn humps() -> Vec<HumpFit> {
    let ranged = |value| Some(Ranged { value, lower: 0.9 * value, upper: 1.1 * value });
    let at = |d: f64| 0.5 + d * (0.2 - 0.15 * libm::log(d));
    let curve = (1..=20).map(|i| 0.1 * f64::from(i)).map(|d| [d, at(d), at(d) - 0.03, at(d) + 0.03]);
    vec![HumpFit {
        variant: owned(VARIANTS[0].0),
        judge: owned(PAIRWISE),
        best_of_n: false,
        alpha: 0.2,
        beta: 0.15,
        last_distance: 2.0,
        peak_distance: ranged(1.4),
        peak_win_rate: ranged(0.71),
        drop: ranged(0.02),
        falls: 0.97,
        quadratic_peak: Some(1.3),
        recommended_stop: CHECKPOINTS[1],
        checkpoints: 5,
        prompts: PROMPTS,
        curve: curve.collect(),
    }]
}

fn gate() -> GateReport {
    let digest = |name: &str| Digest::of_bytes(name.as_bytes()).to_string();
    let row = |kind: &str, name: &str, verdict, golden: String, found: String, message: &str| GateRow {
        kind: owned(kind),
        name: owned(name),
        verdict,
        golden,
        found,
        difference: None,
        lower: None,
        upper: None,
        margin: None,
        prompts_needed: None,
        message: owned(message),
    };
    let mut win_rate = row(
        "win-rate",
        "dpo-b0.1 by pairwise",
        Verdict::Inconclusive,
        owned("0.690"),
        owned("0.672"),
        "The difference may lie on either side of the margin.",
    );
    win_rate.difference = Some(-0.018);
    win_rate.lower = Some(-0.052);
    win_rate.upper = Some(0.016);
    win_rate.margin = Some(0.03);
    win_rate.prompts_needed = Some(140);
    GateReport {
        golden: digest("golden"),
        golden_reason: owned("First accepted run."),
        verdict: Verdict::Inconclusive,
        rows: vec![
            row(
                "digest",
                "train/dpo-b0.1/seed-11",
                Verdict::Pass,
                digest("a"),
                digest("a"),
                "The bits are those of the golden run.",
            ),
            win_rate,
        ],
    }
}
