//! Seconds and memory of preference training and of decoding: what `compare.py` runs beside TRL and transformers.
//!
//! `training train|train-precomputed|train-lora|train-lora-precomputed|train-lora-all|train-lora-all-precomputed|resume|decode|write DIR`: all
//! weights, an adapter of rank 16 on q_proj and v_proj, or one on all linear layers, the reference within each step, or before; what
//! going on with a broken-off training costs; sampling; and what PPO's steps write a second beside sampling alone, its texts scored and read by
//! policy and reference. DIR holds `model/` and `data.jsonl`. Prints one JSON object. Threads:
//! `RAYON_NUM_THREADS`, else all.

use std::cell::Cell;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use dpo_eval::data::files::read_pairs;
use dpo_eval::data::tokenize::TextTokenizer;
use dpo_eval::data::{Prompt, TokenizedPair};
use dpo_eval::digest::Digest;
use dpo_eval::generate;
use dpo_eval::model::{Adapter, Decoder, Gradients, Llama, LlamaConfig};
use dpo_eval::rlhf::{OnlineTask, Reward};
use dpo_eval::suite;
use dpo_eval::suite::settings::{
    GenerateSettings, Linear, LoraSettings, OnlineSettings, PairsFormat, PpoSettings, TrainSettings,
};
use dpo_eval::train::{self, BatchLoss, PreferenceTask, Task};
use dpo_eval::watch::{Silent, Watch};
use serde_json::{Value, json};

#[allow(dead_code, reason = "only the peak is asked for here")]
#[path = "../../kernels/src/machine.rs"]
mod machine;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Within a pool, as a suite runs its cells.
    let pool = rayon::ThreadPoolBuilder::new().build().expect("a pool of threads");
    let result = pool.install(|| match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["train", folder] => Some(training(Path::new(folder), false, &[])),
        ["train-precomputed", folder] => Some(training(Path::new(folder), true, &[])),
        ["train-lora", folder] => Some(training(Path::new(folder), false, &QUERIES_AND_VALUES)),
        ["train-lora-precomputed", folder] => Some(training(Path::new(folder), true, &QUERIES_AND_VALUES)),
        ["train-lora-all", folder] => Some(training(Path::new(folder), false, &Linear::ALL)),
        ["train-lora-all-precomputed", folder] => Some(training(Path::new(folder), true, &Linear::ALL)),
        ["resume", folder] => Some(resuming(Path::new(folder))),
        ["decode", folder] => Some(decoding(Path::new(folder))),
        ["write", folder] => Some(writing(Path::new(folder))),
        _ => None,
    });
    match result {
        Some(result) => println!("{result}"),
        None => eprintln!("usage: dpo-eval-training-benches train[-lora[-all]][-precomputed]|resume|decode|write DIR"),
    }
}

/// What PEFT adapts in a Llama unless told otherwise.
const QUERIES_AND_VALUES: [Linear; 2] = [Linear::QProj, Linear::VProj];

/// A task that adds up where its time goes.
struct Timed {
    task: PreferenceTask,
    forward: Cell<f64>,
    /// The reference's forward pass, where it runs within the step, and the objective.
    loss: Cell<f64>,
    backward: Cell<f64>,
}

/// Runs `work` and adds its seconds to `sum`.
fn timed<T>(sum: &Cell<f64>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    sum.set(sum.get() + start.elapsed().as_secs_f64());
    result
}

impl Task for Timed {
    type Learner = <PreferenceTask as Task>::Learner;
    type Pass = <PreferenceTask as Task>::Pass;
    type Output = <PreferenceTask as Task>::Output;
    type Gradient = <PreferenceTask as Task>::Gradient;

    fn learner(&self) -> &Self::Learner {
        self.task.learner()
    }
    fn learner_mut(&mut self) -> &mut Self::Learner {
        self.task.learner_mut()
    }
    fn identity(&self) -> Digest {
        self.task.identity()
    }
    fn examples(&self) -> usize {
        self.task.examples()
    }
    fn held_out(&self) -> usize {
        self.task.held_out()
    }
    fn example_id(&self, example: usize) -> String {
        self.task.example_id(example)
    }
    fn forward(&self, examples: &[usize]) -> (Self::Pass, Vec<Self::Output>) {
        timed(&self.forward, || self.task.forward(examples))
    }
    fn loss(&self, examples: &[usize], outputs: &[Self::Output]) -> BatchLoss<Self::Gradient> {
        timed(&self.loss, || self.task.loss(examples, outputs))
    }
    fn held_out_loss(&self, examples: &[usize], outputs: &[Self::Output]) -> BatchLoss<Self::Gradient> {
        self.task.held_out_loss(examples, outputs)
    }
    fn recall(&mut self, last: &train::Metrics) {
        self.task.recall(last);
    }
    fn check_first_step(&self, examples: &[usize], outputs: &[Self::Output], loss: f64) -> dpo_eval::error::Result<()> {
        self.task.check_first_step(examples, outputs, loss)
    }
    fn backward(&self, pass: Self::Pass, examples: &[usize], gradients: &[Self::Gradient], grads: &mut Gradients) {
        timed(&self.backward, || self.task.backward(pass, examples, gradients, grads));
    }
}

/// Notes when each step ended, and breaks off after the last one.
#[derive(Default)]
struct Stopwatch {
    ends: Mutex<Vec<Instant>>,
    last_step: Option<u64>,
}

impl Watch for Stopwatch {
    fn advance(&self, _: u64, _: u64, _: &str) {
        self.ends.lock().expect("no thread panicked").push(Instant::now());
    }

    fn last_step(&self) -> Option<u64> {
        self.last_step
    }
}

/// The recipe's, its paths taken from `folder`.
fn settings(folder: &Path) -> TrainSettings {
    let suite = suite::parse(include_str!("../recipe.toml"), &folder.join("recipe.toml")).expect("the recipe is a suite");
    suite.variants[0].training().expect("the recipe trains").clone()
}

/// `adapted`: the layers that an adapter is trained on; none: all weights are trained.
fn training(folder: &Path, precompute: bool, adapted: &[Linear]) -> Value {
    let (model, tokenizer) = open(folder);
    let pairs = read_pairs(&folder.join("data.jsonl"), PairsFormat::Explicit, None).expect("pairs").rows;
    let pairs: Vec<_> = pairs.iter().map(|p| tokenizer.pair(p)).collect();
    let mut settings = settings(folder);
    settings.objective.precompute_ref_log_probs = precompute;
    let work = folder.join("work");
    // What an earlier run left would be resumed.
    let _ = std::fs::remove_dir_all(&work);
    // Of a training of all weights: frozen ones need two thirds of it.
    let flop = operations(&model.config, &pairs);
    let start = Instant::now();
    let mut policy = model.clone();
    if !adapted.is_empty() {
        let target_modules = adapted.to_vec();
        let lora = LoraSettings { r: 16, lora_alpha: 32.0, lora_dropout: 0.0, target_modules, use_rslora: false };
        policy = policy.with_adapter(Adapter::fresh(&model.config, &lora, 0)).expect("a fresh adapter fits");
    }
    let task = PreferenceTask::new(policy, &model, &pairs, &settings, &Silent).expect("a task");
    drop(model);
    let reference = start.elapsed().as_secs_f64();
    let mut task = Timed { task, forward: Cell::new(0.0), loss: Cell::new(0.0), backward: Cell::new(0.0) };
    let watch = Stopwatch::default();
    let start = Instant::now();
    let log = train::run(&mut task, &settings, 0, &work, &watch).expect("training");
    let mut ends = vec![start];
    ends.extend(watch.ends.into_inner().expect("no thread panicked"));
    let mut seconds: Vec<f64> = ends.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
    let all: f64 = seconds.iter().sum();
    let each = seconds.clone();
    seconds.sort_by(f64::total_cmp);
    let steps = seconds.len();
    let [forward, loss, backward] = [&task.forward, &task.loss, &task.backward].map(|sum| sum.get() / steps as f64);
    json!({
        "steps": steps, "threads": rayon::current_num_threads(),
        "reference_s": reference, "s_of_steps": each, "s_per_step_min": seconds[0], "s_per_step_median": seconds[steps / 2],
        "s_per_step_max": seconds[steps - 1], "s_per_step_mean": all / steps as f64, "forward_s": forward, "loss_s": loss, "backward_s": backward,
        "optimizer_and_other_s": all / steps as f64 - forward - loss - backward, "peak_mb": peak_memory(),
        "gflop_per_step": flop / 1e9 / steps as f64, "peak_gflops": peak_gflops(),
        "losses": log.iter().map(|m| m.loss).collect::<Vec<_>>(),
    })
}

/// Seconds that a training of all weights, broken off after two steps, needs until it goes on, beside those of loading its model.
fn resuming(folder: &Path) -> Value {
    let (mut settings, work) = (settings(folder), folder.join("work"));
    // A suite's cache has the reference's scores.
    settings.objective.precompute_ref_log_probs = false;
    let _ = std::fs::remove_dir_all(&work);
    let part = |last_step: u64| {
        let start = Instant::now();
        let (model, tokenizer) = open(folder);
        let loaded = Instant::now();
        let pairs = read_pairs(&folder.join("data.jsonl"), PairsFormat::Explicit, None).expect("pairs").rows;
        let pairs: Vec<_> = pairs.iter().map(|p| tokenizer.pair(p)).collect();
        let mut task = PreferenceTask::new(model.clone(), &model, &pairs, &settings, &Silent).expect("a task");
        let watch = Stopwatch { last_step: Some(last_step), ..Stopwatch::default() };
        train::run(&mut task, &settings, 0, &work, &watch).expect_err("a training that is broken off");
        let ends = watch.ends.into_inner().expect("no thread panicked");
        (loaded - start, ends[0] - loaded, ends[1] - ends[0])
    };
    part(2);
    let (load, first, step) = part(4);
    json!({ "load_s": load.as_secs_f64(), "until_going_on_s": first.as_secs_f64() - step.as_secs_f64() })
}

/// Multiply-adds of the policy's products with weights, forward and backward, twice each; attention's own products are left out.
/// The last layer's queries and MLP, and the head, see only the rows that predict a completion's token.
fn operations(c: &LlamaConfig, pairs: &[TokenizedPair]) -> f64 {
    let (hidden, inner) = (c.hidden_size as f64, c.intermediate_size as f64);
    let width = |heads: usize| (heads * c.head_dim) as f64;
    let keys = 2.0 * hidden * width(c.num_key_value_heads);
    let others = 2.0 * hidden * width(c.num_attention_heads) + 3.0 * hidden * inner;
    let layers = c.num_hidden_layers as f64;
    let forward: f64 = pairs
        .iter()
        .map(|p| {
            let targets = (p.chosen.len() + p.rejected.len()) as f64;
            let rows = p.prompt.len() as f64 + targets;
            rows * (layers * keys + (layers - 1.0) * others) + targets * (others + hidden * c.vocab_size as f64)
        })
        .sum();
    3.0 * 2.0 * forward
}

/// The most that all threads together do in registers, billions of operations a second.
fn peak_gflops() -> f64 {
    let isa = dpo_eval::numerics::isa::active();
    let best = (0..20).map(|_| {
        let start = Instant::now();
        machine::peak(isa);
        start.elapsed().as_secs_f64()
    });
    rayon::current_num_threads() as f64 * machine::PEAK_FLOPS / 1e9 / best.fold(f64::MAX, f64::min)
}

/// Tokens a second for 32 prompts of the recipe, 64 new tokens each.
fn decoding(folder: &Path) -> Value {
    let (model, tokenizer) = open(folder);
    let pairs = read_pairs(&folder.join("data.jsonl"), PairsFormat::Explicit, Some(32)).expect("pairs").rows;
    let prompts: Vec<Prompt> = pairs.into_iter().map(|p| Prompt { id: p.id, text: p.prompt }).collect();
    let settings = GenerateSettings { temperature: 1.0, top_p: 1.0, top_k: None, max_new_tokens: 64, samples_per_prompt: 1 };
    let mut best = 0.0f64;
    for seed in 0..5 {
        let start = Instant::now();
        let sampled = generate::sample(&model, &tokenizer, &prompts, &settings, seed, "bench", &Silent).expect("samples");
        let tokens: usize = sampled.iter().map(|s| s.ids.len()).sum();
        best = best.max(tokens as f64 / start.elapsed().as_secs_f64());
    }
    let starts: Vec<Vec<u32>> = prompts.iter().map(|p| tokenizer.prompt(&p.text)).collect();
    let mut decoder = Decoder::of(&model);
    let mut reading = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        decoder.begin(&starts);
        reading = reading.min(start.elapsed().as_secs_f64());
    }
    let prompt_tokens: usize = starts.iter().map(Vec::len).sum();
    json!({
        "tokens_per_s": best, "prompt_tokens_per_s": prompt_tokens as f64 / reading, "threads": rayon::current_num_threads(),
        "peak_mb": peak_memory(),
    })
}

/// PPO's first part of a step: what it writes, and all that it must know of it before it learns.
fn writing(folder: &Path) -> Value {
    let (model, tokenizer) = open(folder);
    let pairs = read_pairs(&folder.join("data.jsonl"), PairsFormat::Explicit, Some(32)).expect("pairs").rows;
    let prompts: Vec<Prompt> = pairs.into_iter().map(|p| Prompt { id: p.id, text: p.prompt }).collect();
    let batch: Vec<usize> = (0..prompts.len()).collect();
    let online = OnlineSettings {
        reward_model: "gold".to_owned(),
        num_generations: 1,
        missing_eos_penalty: 0.0,
        target_kl: None,
        ppo: Some(PpoSettings::default()),
    };
    let reward = Reward::Gold(|_, text| text.len() as f64);
    let settings = GenerateSettings { temperature: 1.0, top_p: 1.0, top_k: None, max_new_tokens: 64, samples_per_prompt: 1 };
    let mut task =
        OnlineTask::new(model.clone(), &model, &tokenizer, reward, prompts.clone(), &online, 0.1, settings.max_new_tokens);
    let (mut alone, mut within) = (0.0f64, 0.0f64);
    for step in 1..=5 {
        let start = Instant::now();
        let sampled = generate::sample(&model, &tokenizer, &prompts, &settings, step, "bench", &Silent).expect("samples");
        let tokens: usize = sampled.iter().map(|s| s.ids.len()).sum();
        alone = alone.max(tokens as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        let said = task.begin(1, step, &batch).expect("a step");
        let tokens = said["completions/mean_length"] * batch.len() as f64;
        within = within.max(tokens / start.elapsed().as_secs_f64());
    }
    json!({"generation_tokens_per_s": alone, "ppo_tokens_per_s": within, "ratio": within / alone})
}

fn open(folder: &Path) -> (Llama, TextTokenizer) {
    let model = folder.join("model");
    (Llama::load(&model).expect("a model"), TextTokenizer::load(&model).expect("a tokenizer"))
}

/// The most memory that this process held, MB; none where the system doesn't tell.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}
