//! The fuzz targets under mutations of good inputs: a few seconds of them here, minutes with `DPO_EVAL_FUZZ_SECONDS`. libFuzzer, which learns
//! from what it reaches, runs the same targets (`tests/fuzz`).

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use dpo_eval::rng::Stream;

use crate::support::repository;

/// Mutations of each target that are always tried.
const ALWAYS: u64 = 400;

/// What turns up in good inputs, and what has broken readers elsewhere.
const WORDS: [&[u8]; 28] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\n",
    b"\0",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\xff\xfe",
    b"\\ud800",
    b"{% for i in range(99999) %}",
    b"{% endfor %}",
    b"{{",
    b"}}",
    b"{% if",
    b"%}",
    b" | tojson",
    b"[[",
    b"[dataset]\n",
    b"= nan\n",
    b"\xef\xbb\xbf",
    b"PAR1",
];

fn mutated(seeds: &[Vec<u8>], random: &mut Stream) -> Vec<u8> {
    let mut bytes = random.choose(seeds).clone();
    for _ in 0..=random.index(6) {
        let at = random.index(bytes.len() + 1);
        match random.index(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.index(8),
            1 if at < bytes.len() => bytes[at] = random.index(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + random.index(40)).min(bytes.len()))),
            4 => {
                let other = random.choose(seeds);
                let from = random.index(other.len() + 1);
                let part = other[from..(from + random.index(200)).min(other.len())].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let again = bytes[at..(at + random.index(60)).min(bytes.len())].repeat(1 + random.index(20));
                bytes.splice(at..at, again);
            }
            _ => drop(bytes.splice(at..at, random.choose(&WORDS).iter().copied())),
        }
    }
    bytes
}

fn attack(name: &str, target: fn(&[u8]), seeds: &[Vec<u8>]) {
    assert!(!seeds.is_empty(), "{name}");
    let allowed = std::env::var("DPO_EVAL_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (started, allowed) = (Instant::now(), Duration::from_secs(allowed.unwrap_or(0)));
    let first: u64 = std::env::var("DPO_EVAL_FUZZ_FROM").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    let mut done = 0;
    while done < ALWAYS || started.elapsed() < allowed {
        let mut random = Stream::of(0, &format!("test/fuzz/{name}"), first + done);
        let bytes = mutated(seeds, &mut random);
        let begun = Instant::now();
        let ended = catch_unwind(|| target(&bytes)).is_ok();
        let slow = begun.elapsed() > Duration::from_secs(20);
        if !ended || slow {
            let file = std::env::temp_dir().join(format!("dpo-eval-fuzz-{name}-{}", first + done));
            fs::write(&file, &bytes).unwrap();
            panic!("mutation {} of `{name}` {}: {}", first + done, if slow { "takes long" } else { "panics" }, file.display());
        }
        done += 1;
    }
    eprintln!("{name}: {done} mutations in {:.1} s", started.elapsed().as_secs_f64());
}

fn files(folder: &str, endings: &[&str]) -> Vec<Vec<u8>> {
    let folder = repository().join(folder);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let wanted = |path: &std::path::PathBuf| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending));
    paths.iter().filter(|path| wanted(path)).map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn mutated_rows_end_in_rows_or_errors() {
    let texts = [
        "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\", \"id\": 7}\n{\"prompt\": \"q\", \"chosen\": \"c\", \"rejected\": \"d\"}\n",
        "{\"chosen\": \"\\n\\nHuman: x\\n\\nAssistant: y\", \"rejected\": \"\\n\\nHuman: x\\n\\nAssistant: z\"}\n",
        "[{\"prompt\": \"p\", \"completion\": \"a\", \"label\": true}, {\"prompt\": \"p\", \"completion\": \"b\", \"label\": false}]",
        "{\"chosen\": [{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"y\"}], \"rejected\": [{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"z\"}]}",
        "{\"instruction\": \"why\", \"completions\": [{\"response\": \"a\", \"overall_score\": 7.5, \"annotations\": {\"honesty\": {\"Rating\": \"4\"}}}, {\"response\": \"b\", \"overall_score\": 2, \"annotations\": {\"honesty\": {\"Rating\": \"N/A\"}}}]}",
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"x\"}], \"chosen\": {\"from\": \"gpt\", \"value\": \"y\"}, \"rejected\": {\"from\": \"gpt\", \"value\": \"z\"}}",
        "prompt,chosen,rejected\np,\"a, b\",\"c\nd\"\n",
    ];
    let name = |text: &str| if text.starts_with("prompt,") { 1u8 } else { 0 };
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| [&[name(text)], text.as_bytes()].concat()).collect();
    let written = files("golden/data", &[".parquet", ".jsonl", ".json", ".gz", ".zst"]);
    seeds.extend(written.into_iter().map(|bytes| [vec![0], bytes].concat()));
    attack("rows", targets::rows, &seeds);
}

#[test]
fn mutated_templates_end_in_texts_or_errors() {
    let golden: serde_json::Value =
        serde_json::from_slice(&fs::read(repository().join("golden/chat/templates.json")).unwrap()).unwrap();
    let mut seeds = Vec::new();
    collect(&golden, &mut seeds);
    attack("template", targets::template, &seeds);
}

/// Every text that holds a tag of Jinja.
fn collect(value: &serde_json::Value, seeds: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::String(text) if text.contains("{%") => seeds.push(text.as_bytes().to_vec()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, seeds)),
        serde_json::Value::Object(map) => map.values().for_each(|item| collect(item, seeds)),
        _ => {}
    }
}

#[test]
fn mutated_weights_end_in_tensors_or_errors() {
    let file = |header: &str, data: usize| [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat();
    let seeds = [
        file(
            r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#,
            32,
        ),
        file(r#"{"__metadata__":{"format":"pt"},"x":{"dtype":"F16","shape":[],"data_offsets":[0,2]}}"#, 2),
        file("{}", 0),
    ];
    attack("weights", targets::weights, &seeds);
}

#[test]
fn mutated_suites_end_in_suites_or_errors() {
    let mut seeds = files("suites", &[".toml"]);
    seeds.extend(files("src/suite/templates", &[".toml"]));
    seeds.extend(files("tests/readme", &[".toml"]));
    attack("suite", targets::suite, &seeds);
}
