//! Seconds of judging a file of pairs: what `compare.py` runs beside onnxruntime in Python.
//!
//! `dpo-eval-judging-benches FOLDER PAIRS THREADS ROUNDS`: a pairwise judge's folder, and JSON Lines of `prompt`, `chosen`, `rejected`. Each
//! round asks about every pair in both orders. Prints one JSON object: the seconds of each round, tokenisation included, of opening, and the
//! preferences of the last round.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dpo_eval::data::files::read_pairs;
use dpo_eval::error::Result;
use dpo_eval::judge::asking::Asking;
use dpo_eval::judge::protocol;
use dpo_eval::judge::session::OnnxJudge;
use dpo_eval::suite::one_or_many::OneOrMany;
use dpo_eval::suite::settings::{
    EncodingSettings, FitnessSettings, JudgeKind, JudgeSettings, JudgeSource, OnnxSettings, PairsFormat,
};
use dpo_eval::watch::Silent;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, pairs, threads, rounds] = &arguments[..] else {
        eprintln!("usage: dpo-eval-judging-benches FOLDER PAIRS THREADS ROUNDS");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse().expect("THREADS and ROUNDS are numbers");
    match judging(Path::new(folder), Path::new(pairs), number(threads), number(rounds)) {
        Ok(result) => println!("{result}"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

fn judging(folder: &Path, pairs: &Path, threads: usize, rounds: usize) -> Result<Value> {
    let settings = JudgeSettings {
        name: "bench".to_owned(),
        kind: JudgeKind::Pairwise,
        source: JudgeSource::Folder { path: PathBuf::from(folder) },
        template: OneOrMany(["{prompt} {a}", "{prompt} {b}"].map(str::to_owned).to_vec()),
        max_length: None,
        tie_width: 0.0,
        min_accuracy: 0.0,
        encoding: EncodingSettings::default(),
        onnx: OnnxSettings::default(),
        fitness: FitnessSettings::default(),
    };
    let pairs = read_pairs(pairs, PairsFormat::Explicit, None)?.rows;
    let start = Instant::now();
    let judge = OnnxJudge::open(folder, &settings, threads)?;
    let session = judge.record()?;
    let mut judge = Asking::new(&settings.name, judge, 0.0, None);
    let opening = start.elapsed().as_secs_f64();
    let (mut seconds, mut preferences) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        let trials = protocol::trials(&mut judge, "bench", &pairs, &Silent)?;
        seconds.push(start.elapsed().as_secs_f64());
        preferences = trials.iter().map(|trial| trial.preference).collect();
    }
    Ok(json!({
        "opening": opening,
        "seconds": seconds,
        "preferences": preferences,
        "session": session,
    }))
}
