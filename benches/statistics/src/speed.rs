//! Seconds of resampling and of ratings, on data that `compare.py` wrote.

use std::path::Path;
use std::time::Instant;

use dpo_eval_statistics::bootstrap::{Bootstrap, ClusterMean, Resampling};
use dpo_eval_statistics::length_control::{Data, Item, Recipe};
use dpo_eval_statistics::mean::Clustered;
use dpo_eval_statistics::overoptimisation::{Checkpoint, Form, hump};
use dpo_eval_statistics::ratings::Comparison;
use dpo_eval_statistics::ratings::bradley_terry::fit;
use dpo_eval_statistics::ratings::matrix::Matrix;

const REPEATS: usize = 9;

fn seconds<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut times = Vec::with_capacity(REPEATS);
    let mut last = None;
    for _ in 0..REPEATS {
        let start = Instant::now();
        last = Some(work());
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    (times[REPEATS / 2], last.expect("at least one repeat"))
}

fn read<const N: usize>(path: &Path) -> Vec<[u8; N]> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes.as_chunks::<N>().0.to_vec()
}

/// A line each: name, median seconds, a number to compare.
pub fn print(folder: &Path) {
    let values: Vec<f64> = read::<8>(&folder.join("values.bin")).into_iter().map(f64::from_le_bytes).collect();
    let items = Clustered::new(values.iter().copied().enumerate());
    let mean = ClusterMean::new(&items);
    let resampling = Resampling { resamples: 10_000, seed: 1, purpose: "speed" };
    let (time, interval) = seconds(|| mean.bootstrap(resampling).expect("finite").percentile(0.95));
    println!("bootstrap-percentile {time} {}", interval.width());
    let (time, interval) = seconds(|| mean.bootstrap(resampling).expect("finite").bca(&mean.jackknife(), 0.95).expect("spread"));
    println!("bootstrap-bca {time} {}", interval.width());

    let lengths: Vec<f64> = read::<8>(&folder.join("lengths.bin")).into_iter().map(f64::from_le_bytes).collect();
    let item = |(prompt, (preference, difference)): (usize, (&f64, &f64))| Item {
        prompt,
        preference: Some(*preference),
        differences: vec![*difference],
        difficulty: 0.0,
    };
    let items: Vec<Item> = values.iter().zip(&lengths).enumerate().map(item).collect();
    // As AlpacaEval has them: two baselines made longer and shorter, which hardly win.
    let gamed = [1.0, -1.0].map(|side| {
        let of = |item: &Item| Item {
            preference: item.preference.map(|p| 0.2 * p),
            differences: vec![side * item.differences[0].abs()],
            ..item.clone()
        };
        items.iter().map(of).collect::<Vec<_>>()
    });
    let refits = Resampling { resamples: 1000, seed: 1, purpose: "speed/refits" };
    let recipes = [
        ("length-controlled-1000-refits", Recipe::Ridge { saturating: true }, &gamed[..0]),
        ("alpaca-eval-1000-refits", Recipe::AlpacaEval { c: 10.0 }, &gamed[..]),
    ];
    for (name, recipe, gamed) in recipes {
        let data = Data { items: &items, gamed, prompts: items.len() };
        let (time, spread) = seconds(|| {
            let fit = data.fit(recipe).expect("an optimum");
            let draws = data.resampled(recipe, &fit.coefficients, refits).expect("an optimum");
            Bootstrap::new(fit.win_rate, draws).expect("numbers").standard_error()
        });
        println!("{name} {time} {spread}");
    }

    let at = |bytes: &[u8; 12], i: usize| u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes"));
    let comparisons: Vec<Comparison> = read::<12>(&folder.join("comparisons.bin"))
        .iter()
        .enumerate()
        .map(|(i, c)| Comparison { left: at(c, 0), right: at(c, 1), outcome: f64::from(at(c, 2)) / 2.0, cluster: i as u32 / 2 })
        .collect();
    let players = comparisons.iter().map(|c| c.left.max(c.right) as usize + 1).max().expect("a comparison");
    let (time, found) = seconds(|| fit(&Matrix::new(players, &comparisons)).expect("connected"));
    println!("bradley-terry {time} {}", found.strengths()[0]);
    let (time, found) =
        seconds(|| fit(&Matrix::new(players, &comparisons)).expect("connected").clustered(&comparisons).expect("clusters"));
    println!("bradley-terry-clustered {time} {}", found.standard_error(0));

    let checkpoints: Vec<Checkpoint> = (1..=60)
        .map(|k| {
            let d = 0.1 * f64::from(k);
            let noise = |i: usize| values[i % values.len()] - 0.5;
            let reward = (0..500).map(|i| d * (0.4 - 0.2 * d.ln()) + noise(i + k as usize)).collect();
            Checkpoint { kl: (0..500).map(|i| d * d * (1.0 + 0.2 * noise(3 * i))).collect(), reward }
        })
        .collect();
    let resampling = Resampling { resamples: 1000, ..resampling };
    let (time, found) = seconds(|| hump(&checkpoints, Form::Learning, resampling).expect("a fit"));
    println!("hump-60-checkpoints-500-prompts {time} {}", found.fit.beta);
}
