//! What a reference said of completions, kept in the store so that variants and seeds with the same reference ask it once.
//!
//! A file's name is the digest of everything that changes a log-probability: the weights, an adapter, the configuration, the tokens as they were
//! cut to `max_length`, the arithmetic and the engine's version. Its layout is a line of JSON (the header), the numbers as binary64 in
//! little-endian order, then the SHA-256 of all bytes before it. A file that is not whole, or has another digest, is made again with a
//! warning: the numbers can always be had anew, so there is nothing to stop a run for.
//!
//! Only the strict arithmetic is kept: the bits of the fast one also depend on the machine.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::completion::CompletionScore;
use super::policy::with_adapters;
use super::preference::PairOutput;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::model::Causal;
use crate::store::{Store, write_atomically};
use crate::suite::settings::Numerics;
use crate::watch::Watch;

const FORMAT: &str = "dpo-eval reference scores 2";
const DIGEST_BYTES: usize = 32;

/// Scores as numbers, a fixed count each.
pub(super) trait Numbers: Sized {
    const COUNT: usize;
    fn write(&self, numbers: &mut Vec<f64>);
    /// `numbers` has `COUNT`.
    fn read(numbers: &[f64]) -> Self;
}

impl Numbers for PairOutput {
    const COUNT: usize = 2 * CompletionScore::COUNT;

    /// References aren't asked about prompts.
    fn write(&self, numbers: &mut Vec<f64>) {
        let (chosen, rejected) = self.sides();
        chosen.write(numbers);
        rejected.write(numbers);
    }

    fn read(numbers: &[f64]) -> Self {
        let (chosen, rejected) = numbers.split_at(CompletionScore::COUNT);
        Self::of_sides(CompletionScore::read(chosen), CompletionScore::read(rejected))
    }
}

/// The store's kept scores, for an engine whose version is `engine`.
pub struct ScoreCache<'a> {
    store: &'a Store,
    engine: u32,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct Header {
    format: String,
    key: Digest,
    scores: usize,
}

impl<'a> ScoreCache<'a> {
    pub fn new(store: &'a Store, engine: u32) -> Self {
        Self { store, engine }
    }

    /// `count` scores of the completions whose digest is `tokens` under `model`: those that are kept, or else what `score` finds, which is
    /// then kept.
    pub(super) fn scores<S: Numbers>(
        &self,
        model: &dyn Causal,
        (tokens, count): (Digest, usize),
        watch: &dyn Watch,
        score: impl FnOnce() -> Result<Vec<S>>,
    ) -> Result<Vec<S>> {
        let Some(model) = model.own().filter(|model| model.numerics == Numerics::Strict) else { return score() };
        let (config, weights) = (model.config.causal_json(), model.parameters.digest());
        let key = Digest::of_value(&(FORMAT, self.engine, model.numerics, config, weights, tokens));
        let key = with_adapters(key, &[model]);
        let path = self.store.scores_path(key)?;
        // Whoever comes second waits for the first one's scores rather than making them as well.
        let _lease = self.store.lease(key, || watch.advance(0, count as u64, "waiting for reference log-probabilities"))?;
        let header = Header { format: FORMAT.to_owned(), key, scores: count };
        match fs::read(&path) {
            Ok(bytes) => match parse(&bytes, &header) {
                Ok(scores) => return Ok(scores),
                Err(why) => {
                    watch.warn(&format!("{}: the kept reference log-probabilities {why}; making them again", path.display()))
                }
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("read", &path, &e)),
        }
        let scores = score()?;
        save(&path, &header, &scores)?;
        Ok(scores)
    }
}

fn save<S: Numbers>(path: &Path, header: &Header, scores: &[S]) -> Result<()> {
    let mut numbers = Vec::with_capacity(scores.len() * S::COUNT);
    scores.iter().for_each(|score| score.write(&mut numbers));
    let mut bytes = serde_json::to_vec(header).expect("a header is plain data");
    bytes.push(b'\n');
    bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    let digest = Digest::of_bytes(&bytes);
    write_atomically(path, &[&bytes, digest.as_bytes()])
}

fn parse<S: Numbers>(bytes: &[u8], expected: &Header) -> std::result::Result<Vec<S>, String> {
    let split = bytes.len().checked_sub(DIGEST_BYTES).ok_or("are cut off")?;
    let (body, digest) = bytes.split_at(split);
    if Digest::of_bytes(body).as_bytes() != digest {
        return Err("don't have the SHA-256 that was written with them".into());
    }
    let end = body.iter().position(|&b| b == b'\n').ok_or("have no header")?;
    let header: Header = serde_json::from_slice(&body[..end]).map_err(|e| format!("have a header that can't be read ({e})"))?;
    let numbers: Vec<f64> =
        body[end + 1..].chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes"))).collect();
    if header != *expected || numbers.len() != S::COUNT * expected.scores {
        return Err("are of other completions".into());
    }
    Ok(numbers.chunks_exact(S::COUNT).map(S::read).collect())
}
