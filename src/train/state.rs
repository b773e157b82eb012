//! The resume state: everything a killed run needs to go on with the same bits, in one file that is whole or absent.
//!
//! Layout of `state`: a line of JSON (the header), then the weights, the optimizer's moments and the reference if it moves, each a safetensors blob of
//! the length that the header states, then the SHA-256 of all bytes before it. The last two states are kept, so a file
//! that a disk damaged costs some steps and not the run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::evaluation::Evaluation;
use super::metrics::Metrics;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::model::Parameters;
use crate::store::write_atomically_with;
use crate::watch::Watch;

const FORMAT: &str = "dpo-eval training state 2";
const CURRENT: &str = "state";
const PREVIOUS: &str = "state.previous";
const DIGEST_BYTES: usize = 32;

/// Where a training run stands after some steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    /// Of the task, its settings and its seed.
    pub identity: Digest,
    /// One entry a finished step.
    pub metrics: Vec<Metrics>,
    /// Those made so far.
    pub evaluations: Vec<Evaluation>,
    /// Digests of the checkpoints left so far, by step: links of the digest chain.
    pub checkpoints: BTreeMap<u64, Digest>,
    /// The weights first, then the optimizer's moments in its own order, then the reference if it moves.
    pub tensors: Vec<Parameters>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    identity: Digest,
    metrics: Vec<Metrics>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    evaluations: Vec<Evaluation>,
    checkpoints: BTreeMap<u64, Digest>,
    blobs: Vec<usize>,
}

/// Writes the state; the one before it stays as `state.previous`.
pub(crate) fn save(
    work: &Path,
    identity: Digest,
    metrics: &[Metrics],
    evaluations: &[Evaluation],
    checkpoints: &BTreeMap<u64, Digest>,
    tensors: &[&Parameters],
) -> Result<()> {
    let header = Header {
        format: FORMAT.into(),
        identity,
        metrics: metrics.to_vec(),
        evaluations: evaluations.to_vec(),
        checkpoints: checkpoints.clone(),
        blobs: tensors.iter().map(|t| t.safetensors_length()).collect(),
    };
    let header = serde_json::to_vec(&header).expect("a header is plain data");
    let (current, previous) = (work.join(CURRENT), work.join(PREVIOUS));
    if current.exists() {
        fs::rename(&current, &previous).map_err(|e| Error::io("rename", &current, &e))?;
    }
    write_atomically_with(&current, |file| {
        let digest = Digest::of_written(file, |file| {
            file.write_all(&header)?;
            file.write_all(b"\n")?;
            tensors.iter().try_for_each(|t| t.write_safetensors(file))
        })?;
        file.write_all(digest.as_bytes())
    })
}

/// The latest intact state in `work`, or none if there is none at all.
///
/// A damaged one is passed over in favour of the one before it, with a message to `watch`; if nothing intact is left, or
/// the state belongs to another run, that is an error.
pub(crate) fn load(work: &Path, identity: Digest, watch: &dyn Watch) -> Result<Option<State>> {
    let mut damaged: Option<Error> = None;
    for name in [CURRENT, PREVIOUS] {
        let path = work.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("read", &path, &e)),
        };
        match parse(&bytes) {
            Ok(state) if state.identity != identity => {
                return Err(Error::input(
                    "this training state belongs to another run: its data, settings, seed or initial weights differ",
                )
                .in_file(path)
                .help(format!("remove the folder {} to train from the start", work.display())));
            }
            Ok(state) => {
                if damaged.is_some() {
                    // Else the next save would keep the damaged file and drop the intact one.
                    let current = work.join(CURRENT);
                    fs::remove_file(&current).map_err(|e| Error::io("remove", &current, &e))?;
                    let step = state.metrics.len() as u64;
                    watch.advance(step, step, &format!("the latest training state is damaged; going on from step {step}"));
                }
                return Ok(Some(state));
            }
            Err(reason) => {
                let error = Error::input(format!("this training state is damaged: {reason}"))
                    .in_file(path)
                    .help(format!("remove the folder {} to train from the start", work.display()));
                damaged.get_or_insert(error);
            }
        }
    }
    damaged.map_or(Ok(None), Err)
}

/// The weights in the current state, with the step after which they stood, whatever run left them.
pub(crate) fn weights_kept(work: &Path) -> Result<(u64, Parameters)> {
    let path = work.join(CURRENT);
    let bytes = fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
    let mut state = parse(&bytes).map_err(|reason| Error::input(reason).in_file(&path))?;
    Ok((state.metrics.len() as u64, state.tensors.swap_remove(0)))
}

fn parse(bytes: &[u8]) -> std::result::Result<State, String> {
    let split = bytes.len().checked_sub(DIGEST_BYTES).ok_or("it is too short")?;
    let (body, digest) = bytes.split_at(split);
    if Digest::of_bytes(body).as_bytes() != digest {
        return Err("its bytes don't have the SHA-256 that was written with them".into());
    }
    let end = body.iter().position(|&b| b == b'\n').ok_or("it has no header")?;
    let header: Header = serde_json::from_slice(&body[..end]).map_err(|e| format!("its header can't be read ({e})"))?;
    if header.format != FORMAT {
        return Err(format!("its format is \"{}\", not \"{FORMAT}\"", header.format));
    }
    let mut rest = &body[end + 1..];
    let mut tensors = Vec::new();
    for &length in &header.blobs {
        let (blob, tail) = rest.split_at_checked(length).ok_or("it ends within a tensor")?;
        tensors.push(Parameters::from_safetensors(blob).map_err(|e| e.message)?);
        rest = tail;
    }
    let Header { identity, metrics, evaluations, checkpoints, .. } = header;
    Ok(State { identity, metrics, evaluations, checkpoints, tensors })
}
