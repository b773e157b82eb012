//! What a CUDA device reaches in the strict arithmetic, as a table: products beside its own measured peak of multiply-adds, tokens a second
//! of preference training and of decoding.
//!
//! `dpo-eval-device-benches [NUMBER]` measures the CUDA device of that number (0). See `README.md` here.

use std::time::Instant;

use dpo_eval::data::TokenizedPair;
use dpo_eval::model::{Decoder, Llama, LlamaConfig};
use dpo_eval::numerics::buffer::Buffer;
use dpo_eval::numerics::device::{self, Device};
use dpo_eval::numerics::linear;
use dpo_eval::suite;
use dpo_eval::train::{self, PreferenceTask};
use dpo_eval::watch::Silent;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A measurement repeats its work for at least so many seconds.
const LONG_ENOUGH: f64 = 0.5;

/// Two of the sixteen layers of Llama 3.2 1B over a smaller vocabulary.
const SHAPE: &str = r#"{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 2,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 32000, "tie_word_embeddings": true,
    "max_position_embeddings": 2048, "rope_theta": 500000.0, "rms_norm_eps": 1e-5}"#;

fn main() {
    let number = std::env::args().nth(1).map_or(Ok(0), |number| number.parse());
    let device = number.map_err(|_| "usage: dpo-eval-device-benches [NUMBER]".to_owned());
    let device = device.and_then(|number| Device::open(number).map_err(|e| e.to_string()));
    let device = device.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        std::process::exit(2);
    });
    println!("{}\n\n| what | rate | share of the peak |\n|---|---|---|", device.name());
    device::pool(Some(device), 8).expect("a pool of threads").install(|| {
        let peak = rate(|| 2.0 * device.multiply_adds(1 << 14));
        println!("| multiply-adds in registers | {:.2} TFLOP/s | |", peak / 1e12);
        products(peak);
        let model = Llama::random(LlamaConfig::from_json(SHAPE).expect("a configuration"), 1);
        training(&model, peak);
        decoding(&model);
    });
}

/// Units of work a second, the best of several measurements; the first run is none of them.
fn rate(mut run: impl FnMut() -> f64) -> f64 {
    run();
    let (mut best, start) = (0.0f64, Instant::now());
    while start.elapsed().as_secs_f64() < LONG_ENOUGH {
        let began = Instant::now();
        let work = run();
        best = best.max(work / began.elapsed().as_secs_f64());
    }
    best
}

/// A linear layer's three products, for the rows of training and of decoding.
fn products(peak: f64) {
    for (rows, inputs, outputs) in
        [(8192, 2048, 8192), (8192, 8192, 2048), (8192, 2048, 512), (256, 2048, 32000), (64, 2048, 8192)]
    {
        let [x, weight, mut y] = [rows * inputs, outputs * inputs, rows * outputs].map(|n| Buffer::filled(n, 0.5));
        let (mut dx, mut dweight) = (Buffer::filled(rows * inputs, 0.0), Buffer::filled(outputs * inputs, 0.0));
        let work = 2.0 * (rows * inputs * outputs) as f64;
        let shown = |what: &str, rate: f64| {
            println!("| {what}, {rows} × {inputs} × {outputs} | {:.2} TFLOP/s | {:.0} % |", rate / 1e12, 100.0 * rate / peak);
        };
        shown(
            "y = x Wᵀ",
            rate(|| {
                linear::forward(&x, &weight, inputs, &mut y, false);
                work
            }),
        );
        if rows == 64 {
            continue;
        }
        shown(
            "dx = dy W",
            rate(|| {
                linear::backward_input(&y, &weight, inputs, &mut dx, false);
                work
            }),
        );
        shown(
            "dW = dyᵀ x",
            rate(|| {
                linear::backward_weight(&y, &x, inputs, &mut dweight);
                work
            }),
        );
    }
}

/// DPO over 24 pairs of 128 + 384 tokens, eight a step, the reference's scores computed before.
fn training(model: &Llama, peak: f64) {
    let ids = |n: usize, of: usize| -> Vec<u32> { (0..n).map(|i| (3 + (7919 * (i + 1) * (of + 1)) % 31_000) as u32).collect() };
    let pair = |i: usize| TokenizedPair {
        id: format!("pair-{i}"),
        prompt_id: format!("prompt-{i}"),
        prompt: ids(128, 3 * i),
        chosen: ids(384, 3 * i + 1),
        rejected: ids(384, 3 * i + 2),
    };
    let pairs: Vec<TokenizedPair> = (0..24).map(pair).collect();
    let suite = suite::parse(include_str!("../../training/recipe.toml"), std::path::Path::new("recipe.toml")).expect("a suite");
    let settings = suite.variants[0].training().expect("the recipe trains").clone();
    let mut task = PreferenceTask::new(model.clone(), model, &pairs, &settings, &Silent).expect("a task");
    let work = std::env::temp_dir().join(format!("dpo-eval-device-benches-{}", std::process::id()));
    train::run(&mut task, &settings, 0, &work, &Silent).expect("training");
    let log = std::fs::read_to_string(work.join("timing.jsonl")).expect("the training's times");
    let _ = std::fs::remove_dir_all(&work);
    let times = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of times"));
    let best = times.filter_map(|line| line["tokens_per_second"].as_f64()).fold(0.0, f64::max);
    // Forward, and the gradients of inputs and weights: six operations a weight and token; attention is left out.
    let flops = 6.0 * (Llama::size(&model.config) as f64) * best;
    println!("| DPO step, tokens (a prompt twice) | {best:.0} a second | {:.0} % |", 100.0 * flops / peak);
}

/// 64 sequences after prompts of 128 tokens.
fn decoding(model: &Llama) {
    let prompts: Vec<Vec<u32>> = (0..64).map(|i| (0..128).map(|p| 3 + (31 * i + p) % 31_000).collect()).collect();
    let mut decoder = Decoder::new(model, &prompts);
    let (next, alive) = (vec![5; prompts.len()], vec![true; prompts.len()]);
    let tokens = rate(|| {
        (0..8).for_each(|_| decoder.step(&next, &alive));
        8.0 * prompts.len() as f64
    });
    println!("| decoding, 64 sequences, tokens | {tokens:.0} a second | |");
    let reading = rate(|| {
        decoder.begin(&prompts);
        (128 * prompts.len()) as f64
    });
    println!("| prompts, tokens | {reading:.0} a second | |");
}
