//! How long cells will take, for plans and progress bars. Estimates only: nothing here reaches a result.

use std::time::Instant;

use crate::judge::probes::Probe;
use crate::numerics::gemm::{MatRef, gemm};
use crate::run::plan::{Cell, Stage, variant_seeds};
use crate::suite::Suite;
use crate::suite::settings::{
    Dataset, FreshModel, JudgeKind, JudgeSource, ModelSource, PairsSettings, PolicySource, TrainSettings, Variant,
};

/// What small models reach of the machine's measured matrix-product rate, all overheads included.
const EFFICIENCY: f64 = 0.45;
/// Tokens of a text whose length isn't known yet.
const TYPICAL_TOKENS: f64 = 32.0;

/// Expected seconds of a cell on one thread at `rate` floating-point operations a second.
pub fn expected_seconds(suite: &Suite, cell: &Cell, rate: f64) -> f64 {
    let forward = 2.0 * parameter_count(suite);
    let sampled = |prompts: usize, samples: usize| (prompts * samples) as f64 * TYPICAL_TOKENS;
    let judged = |judge: &str, variant: &str, seeds: usize| {
        let completions = sampled(eval_prompts(suite), suite.generate.samples_per_prompt);
        judged_texts(suite, judge) * checkpoints(suite, variant) * completions * seeds as f64
    };
    let tokens = match &cell.stage {
        Stage::Data => 0.0,
        Stage::Reference => suite.sft.as_ref().map_or(0.0, |sft| passes(sft) * trained_tokens(sft, demonstrations(suite), 1.0)),
        Stage::Pairs => match &suite.dataset {
            Dataset::World(w) => sampled(w.train_prompts + w.heldout_prompts + w.judge_prompts, w.samples_per_prompt),
            Dataset::Pairs(_) => 0.0,
        },
        Stage::Judge { judge, .. } => suite.judges.iter().find(|j| &j.name == judge).map_or(0.0, |j| match &j.source {
            // Two texts a pair; a pairwise judge reads both of them in both orders.
            JudgeSource::Train(t) => {
                let texts = if j.kind == JudgeKind::Pairwise { 4.0 } else { 2.0 };
                passes(t) * trained_tokens(t, judge_pairs(suite), texts)
            }
            _ => 0.0,
        }),
        Stage::Probes { judge } => {
            let prompts = suite.judges.iter().find(|j| &j.name == judge).map_or(0, |j| j.fitness.probes);
            judged_texts(suite, judge) * sampled(prompts.min(eval_prompts(suite)), Probe::ALL.len())
        }
        Stage::RoundPairs { variant, .. } => training(suite, variant).and_then(|t| t.rounds.as_ref()).map_or(0.0, |rounds| {
            let pairs = sampled(train_prompts(suite), rounds.pairs_per_prompt);
            sampled(train_prompts(suite), rounds.samples_per_prompt) + judged_texts(suite, &rounds.judge) * pairs
        }),
        // The reference reads everything once; two completions a pair.
        Stage::Train { variant, .. } => training(suite, variant).map_or(0.0, |t| {
            if let Some(online) = &t.online {
                // Written, measured by both models and scored once, learnt from in each update's share.
                let epochs = online.ppo.as_ref().map_or(1, |ppo| ppo.num_ppo_epochs);
                let written = sampled(train_prompts(suite), online.num_generations);
                return (4.0 + 3.0 * epochs as f64) * passes(t) / 3.0 * written;
            }
            let sides = if suite.dataset.has_pairs() { 2 } else { 1 };
            let (examples, texts) = if t.objective.is_unpaired() { (sides, 1.0) } else { (1, 2.0) };
            (1.0 + passes(t)) * trained_tokens(t, examples * train_pairs(suite), texts)
        }),
        Stage::Evaluate { variant, .. } => {
            // The best of n is read at each n, and chosen from all that are written and scored.
            let policies = variant.as_ref().map_or(1.0, |name| checkpoints(suite, name) + most(suite, name));
            3.0 * policies * sampled(eval_prompts(suite), suite.generate.samples_per_prompt)
        }
        Stage::Judgments { judge, variant, .. } => judged(judge, variant, 1),
        // At most: it may stop early.
        Stage::Sequential { judge, variant, seeds, .. } => judged(judge, variant, seeds.len()),
    };
    0.1 + tokens * forward / rate
}

/// Measures this machine for a twentieth of a second: floating-point operations a second on one thread.
pub fn measured_rate() -> f64 {
    let (m, n, k) = (192, 256, 256);
    let (a, b, mut c) = (vec![0.5; m * k], vec![0.25; k * n], vec![0.0; m * n]);
    let started = Instant::now();
    let mut rounds = 0.0;
    while started.elapsed().as_secs_f64() < 0.05 {
        gemm(m, n, k, MatRef::rows(&a, k), MatRef::rows(&b, n), &mut c, n, false);
        rounds += 1.0;
    }
    EFFICIENCY * rounds * (2 * m * n * k) as f64 / started.elapsed().as_secs_f64()
}

/// Seconds until everything is done when the cells are shared out over `jobs` workers, stages that all wait for alone.
pub fn expected_total(suite: &Suite, cells: &[&Cell], rate: f64, threads: usize, jobs: usize) -> f64 {
    let shared = |c: &&&Cell| matches!(c.stage, Stage::Data | Stage::Reference | Stage::Pairs);
    let alone: f64 = cells.iter().filter(shared).map(|c| expected_seconds(suite, c, rate)).sum();
    let side_by_side: f64 = cells.iter().filter(|c| !shared(c)).map(|c| expected_seconds(suite, c, rate)).sum();
    // Several threads on one cell gain about two thirds of themselves. (A sum of nothing is -0; + 0 makes it 0.)
    let speedup = 1.0 + (threads.max(1) - 1) as f64 * 0.66;
    alone / speedup + side_by_side / jobs.max(1) as f64 + 0.0
}

fn parameter_count(suite: &Suite) -> f64 {
    match &suite.model {
        ModelSource::Fresh(model) => {
            let vocab = match &suite.dataset {
                Dataset::World(w) => w.vocab_size,
                Dataset::Pairs(_) => 0,
            };
            fresh_parameters(model, vocab)
        }
        ModelSource::Folder { path } => {
            let weights = std::fs::metadata(suite.locate(path).join("model.safetensors"));
            weights.map_or(1e8, |m| m.len() as f64 / 4.0)
        }
    }
}

fn fresh_parameters(model: &FreshModel, vocab: usize) -> f64 {
    let head = model.hidden_size / model.num_attention_heads;
    let attention = model.hidden_size * (2 * model.hidden_size + 2 * head * model.num_key_value_heads);
    let mlp = 3 * model.hidden_size * model.intermediate_size;
    (model.num_hidden_layers * (attention + mlp) + vocab * model.hidden_size) as f64
}

/// What a training step costs, in forward passes: a forward pass, the gradient of its inputs, and that of its weights unless they are
/// frozen under an adapter, whose own products are small beside them.
fn passes(settings: &TrainSettings) -> f64 {
    if settings.lora.is_some() { 2.0 } else { 3.0 }
}

fn trained_tokens(settings: &TrainSettings, examples: usize, texts: f64) -> f64 {
    let batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps;
    if let (true, Some(steps), Some(length)) = (settings.packing, settings.max_steps, settings.max_length) {
        return (steps as usize * batch * length) as f64;
    }
    let seen = match settings.max_steps {
        Some(steps) => (steps as usize * batch) as f64,
        None => examples as f64 * settings.num_train_epochs,
    };
    seen * texts * TYPICAL_TOKENS
}

/// How a variant is trained, if it is trained here.
fn training<'a>(suite: &'a Suite, variant: &str) -> Option<&'a TrainSettings> {
    suite.variant(variant)?.training()
}

/// Texts that a judge reads of two completions; gold, rules and records read none that count, and a panel's members have read theirs.
fn judged_texts(suite: &Suite, judge: &str) -> f64 {
    let settings = suite.judges.iter().find(|j| j.name == judge);
    settings.map_or(0.0, |j| match (&j.source, j.kind) {
        (JudgeSource::Rubric { .. } | JudgeSource::Replay { .. } | JudgeSource::Panel(_), _) => 0.0,
        (_, JudgeKind::Pairwise) => 4.0,
        (_, JudgeKind::RewardModel) => 2.0,
    })
}

fn train_prompts(suite: &Suite) -> usize {
    match &suite.dataset {
        Dataset::World(w) => w.train_prompts,
        Dataset::Pairs(p) => file_rows(p),
    }
}

/// Rows that are read, as far as the suite tells: nobody has counted those of the files.
fn file_rows(settings: &PairsSettings) -> usize {
    const TYPICAL: usize = 1000;
    match settings.sources.as_slice() {
        [] => settings.limit.unwrap_or(TYPICAL),
        sources => sources.iter().map(|source| (source.limit.unwrap_or(TYPICAL) as f64 * source.weight) as usize).sum(),
    }
}

fn demonstrations(suite: &Suite) -> usize {
    match &suite.dataset {
        Dataset::World(w) => w.demonstrations,
        Dataset::Pairs(_) => 0,
    }
}

fn train_pairs(suite: &Suite) -> usize {
    match &suite.dataset {
        Dataset::World(w) => w.train_prompts * w.pairs_per_prompt,
        Dataset::Pairs(p) => file_rows(p),
    }
}

fn judge_pairs(suite: &Suite) -> usize {
    match &suite.dataset {
        Dataset::World(w) => w.judge_prompts * w.pairs_per_prompt,
        Dataset::Pairs(p) => (file_rows(p) as f64 * p.judge_share) as usize,
    }
}

/// Prompts that every policy completes; of a file as many as are asked for.
pub fn eval_prompts(suite: &Suite) -> usize {
    match &suite.dataset {
        Dataset::World(w) => w.eval_prompts,
        Dataset::Pairs(p) => p.eval_prompts,
    }
}

/// Completions that a variant chooses one from; none where it doesn't choose.
fn most(suite: &Suite, variant: &str) -> f64 {
    match suite.variant(variant).map(|v| &v.policy) {
        Some(PolicySource::BestOfN(best)) => best.most() as f64,
        _ => 0.0,
    }
}

fn checkpoints(suite: &Suite, variant: &str) -> f64 {
    if let Some(PolicySource::BestOfN(best)) = suite.variant(variant).map(|v| &v.policy) {
        return best.best_of_n.len() as f64;
    }
    let Some(t) = training(suite, variant) else { return 1.0 };
    let of_a_round = match (t.max_steps, t.save_steps) {
        _ if t.evaluation.selects() => 1.0,
        (Some(steps), Some(save)) => steps.div_ceil(save.max(1)) as f64,
        (None, Some(_)) => 3.0,
        (_, None) => 1.0,
    };
    of_a_round * t.rounds() as f64
}

/// The cells that are still to be run.
pub fn open_cells<'a>(cells: &'a [Cell], finished: &dyn Fn(&Cell) -> bool) -> Vec<&'a Cell> {
    cells.iter().filter(|c| !finished(c)).collect()
}

/// Training runs a suite makes, each round one: for one-line summaries.
pub fn training_runs(suite: &Suite) -> usize {
    let rounds = |v: &Variant| training(suite, &v.name).map_or(0, |t| t.rounds() as usize);
    suite.variants.iter().map(|v| rounds(v) * variant_seeds(suite, v).len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::run::plan;

    #[test]
    fn a_step_of_an_adapter_is_expected_to_take_three_quarters_of_a_full_one() {
        let text = include_str!("../suite/templates/world.toml").to_owned() + "\n[[variant]]\nname = \"adapter\"\nlora_r = 8\n";
        let suite = crate::suite::parse(&text, std::path::Path::new("suite.toml")).unwrap();
        assert!(suite.variants[0].training().is_some_and(|settings| settings.lora.is_none()));
        let plan = plan::plan(&suite, Digest::of_bytes(b"no runtime")).unwrap();
        let seconds = |id: String| expected_seconds(&suite, plan.cell(&id).unwrap(), 1e9) - 0.1;
        let seed = suite.seeds[0];
        let [full, adapter] = [&suite.variants[0].name, "adapter"].map(|name| seconds(plan::train_id(name, seed, 1)));
        assert!((adapter / full - 0.75).abs() < 1e-9, "{adapter} {full}");
    }
}
