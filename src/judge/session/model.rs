//! A sequence classifier as sessions of ONNX Runtime, one a worker, asked in batches of like length.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ort::ep;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue, SessionOutputs};
use ort::value::{Tensor, TensorElementType, ValueType};
use serde::{Deserialize, Serialize};

use super::meaning::Meaning;
use super::signature::{Input, Signature};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::judge::onnx::external;
use crate::judge::reader::Question;
use crate::judge::runtime;
use crate::suite::settings::{InputRole, JudgeKind, OnnxSettings, Provider, Side};
use crate::watch::Watch;

/// The metadata entries that say how long a sequence a judge of ours can take, and of which kind it is.
pub(crate) const MAX_POSITIONS: &str = "dpo_eval.max_positions";
pub(crate) const KIND: &str = "dpo_eval.kind";

/// Sequences in a batch, and tokens in it with padding: large enough to fill a core, small enough for its cache.
const BATCH_ROWS: usize = 32;
const BATCH_TOKENS: usize = 4096;

/// Threads that compute one answer: the order of sums could follow their number.
pub(super) const THREADS: usize = 1;

/// Which questions may share a batch without a bit of any answer changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Batching {
    /// Those of like length: the shorter ones are padded.
    Padded,
    /// Those of one length: padding changes answers.
    EqualLengths,
    /// None: an answer depends on what else is asked (weights quantised dynamically to int8, say).
    Alone,
}

/// What a shorter text of a batch is filled up with, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Padding {
    pub side: Side,
    pub token: u32,
}

impl Default for Padding {
    fn default() -> Self {
        Self { side: Side::Right, token: 0 }
    }
}

pub(crate) struct Model {
    pub(super) path: PathBuf,
    digest: Digest,
    sessions: Vec<Session>,
    pub(super) signature: Signature,
    pub(super) meaning: Meaning,
    pub(super) padding: Padding,
    pub(super) batching: Batching,
}

impl Model {
    /// A judge that we wrote: one logit, padding on the right with any token.
    pub fn open(path: &Path, kind: JudgeKind, threads: usize) -> Result<Self> {
        Self::with(path, &OnnxSettings::default(), Padding::default(), threads, |_| Ok(Meaning::one(kind)))
    }

    /// `meaning`: of an output of this signature.
    pub(super) fn with(
        path: &Path,
        settings: &OnnxSettings,
        padding: Padding,
        threads: usize,
        meaning: impl FnOnce(&Signature) -> Result<Meaning>,
    ) -> Result<Self> {
        let bytes = std::fs::read(path)
            .map_err(|e| Error::io("read", path, &e).help("a judge's folder holds model.onnx and tokenizer.json"))?;
        let digest = digest(&bytes, path)?;
        drop(bytes);
        let provider = settings.provider.unwrap_or(Provider::Cpu);
        let mut sessions = vec![session(path, provider)?];
        let here = |e: Error| if e.place.is_some() { e } else { e.in_file(path) };
        let signature = Signature::read(&sessions[0], settings).map_err(here)?;
        let meaning = meaning(&signature).map_err(here)?;
        // A GPU is one worker's: several would only wait for each other.
        let workers = if provider == Provider::Cuda { 1 } else { threads.max(1) };
        for _ in 1..workers {
            sessions.push(session(path, provider)?);
        }
        let batching = if signature.has(InputRole::AttentionMask) { Batching::Padded } else { Batching::EqualLengths };
        Ok(Self { path: path.to_owned(), digest, sessions, signature, meaning, padding, batching })
    }

    /// Of the model's file and of the files of its weights.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// A metadata entry of the model's file.
    pub(super) fn metadata(&self, key: &str) -> Option<String> {
        self.sessions[0].metadata().ok()?.custom(key)
    }

    /// One logit a sequence of token ids.
    #[cfg(test)]
    pub fn logits(&mut self, sequences: &[&[u32]], watch: &dyn Watch) -> Result<Vec<f64>> {
        let question = |ids: &&[u32]| Question { ids: ids.to_vec(), split: None, truncated: false };
        let questions: Vec<Question> = sequences.iter().map(question).collect();
        self.answers(&questions.iter().collect::<Vec<_>>(), watch)
    }

    /// One logit or score a question, in the order given. Which questions share a batch, and on which worker, changes no bit.
    pub fn answers(&mut self, questions: &[&Question], watch: &dyn Watch) -> Result<Vec<f64>> {
        let batches = batches(questions, self.batching);
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let asking = Asking { signature: &self.signature, meaning: &self.meaning, padding: self.padding, path: &self.path };
        let work = |session: &mut Session| -> Result<Vec<(usize, f64)>> {
            let mut answers = Vec::new();
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                watch.check()?;
                let rows: Vec<&Question> = batch.iter().map(|&i| questions[i]).collect();
                answers.extend(batch.iter().copied().zip(asking.run(session, &rows)?));
                let done = done.fetch_add(batch.len(), Ordering::Relaxed) + batch.len();
                watch.advance(done as u64, questions.len() as u64, "");
            }
            Ok(answers)
        };
        let parts: Vec<Result<Vec<(usize, f64)>>> = std::thread::scope(|scope| {
            let workers: Vec<_> = self.sessions.iter_mut().map(|s| scope.spawn(|| work(s))).collect();
            let defect = || Err(Error::unexpected("a judging worker failed"));
            workers.into_iter().map(|w| w.join().unwrap_or_else(|_| defect())).collect()
        });
        let mut logits = vec![0.0; questions.len()];
        for part in parts {
            for (i, logit) in part? {
                logits[i] = logit;
            }
        }
        Ok(logits)
    }

    /// The answers of one batch, whatever `batching` says.
    pub(super) fn together(&mut self, rows: &[&Question]) -> Result<Vec<f64>> {
        let asking = Asking { signature: &self.signature, meaning: &self.meaning, padding: self.padding, path: &self.path };
        asking.run(&mut self.sessions[0], rows)
    }
}

/// The digest of the model's file and of the files that hold its weights.
fn digest(bytes: &[u8], path: &Path) -> Result<Digest> {
    let own = Digest::of_bytes(bytes);
    let files = external::files(bytes);
    if files.is_empty() {
        return Ok(own);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let of = |name: &String| {
        let file = folder.join(name);
        if !file.is_file() {
            return Err(Error::input(format!("its weights are in a file of their own, and there is no {}", file.display()))
                .in_file(path)
                .help("copy it beside model.onnx under the name that it was exported with"));
        }
        Ok((name.clone(), Digest::of_file(&file)?))
    };
    Ok(Digest::of_value(&(own, files.iter().map(of).collect::<Result<Vec<_>>>()?)))
}

fn session(path: &Path, provider: Provider) -> Result<Session> {
    let environment = runtime::environment()?;
    let refused = |why: String| Error::input(format!("ONNX Runtime can't load it: {}", one_line(&why))).in_file(path);
    let builder = || -> std::result::Result<SessionBuilder, String> {
        Session::builder(&environment)
            .map_err(|e| e.to_string())?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|e| e.to_string())?
            .with_intra_threads(THREADS)
            .map_err(|e| e.to_string())?
            .with_inter_threads(1)
            .map_err(|e| e.to_string())
    };
    let mut builder = builder().map_err(refused)?;
    if provider == Provider::Cuda {
        builder = builder.with_execution_providers([ep::CUDA::default().build().error_on_failure()]).map_err(|e| {
            let info = runtime::ensure().map(|info| info.path.display().to_string()).unwrap_or_default();
            Error::input(format!("`provider = \"cuda\"`, but {info} can't compute on a GPU: {}", one_line(&e.to_string())))
                .in_file(path)
                .help("set ORT_DYLIB_PATH to the library of an ONNX Runtime built for CUDA (that of the onnxruntime-gpu wheel), or write provider = \"cpu\"")
        })?;
    }
    builder.commit_from_file(path).map_err(|e| refused(e.to_string()))
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Indices into `questions`, those of like length together, within the limits of a batch.
fn batches(questions: &[&Question], batching: Batching) -> Vec<Vec<usize>> {
    let length = |i: usize| questions[i].ids.len();
    let mut order: Vec<usize> = (0..questions.len()).collect();
    // Longest first: the largest batch is the first, so memory doesn't grow later, and the tail of the work is small.
    order.sort_by_key(|&i| std::cmp::Reverse(length(i)));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for i in order {
        let fits = |batch: &Vec<usize>| {
            let longest = length(batch[0]);
            let alike = match batching {
                Batching::Padded => true,
                Batching::EqualLengths => longest == length(i),
                Batching::Alone => false,
            };
            alike && batch.len() < BATCH_ROWS && (batch.len() + 1) * longest <= BATCH_TOKENS
        };
        match batches.last_mut().filter(|b| fits(b)) {
            Some(batch) => batch.push(i),
            None => batches.push(vec![i]),
        }
    }
    batches
}

/// How a batch is written and its answer read.
struct Asking<'a> {
    signature: &'a Signature,
    meaning: &'a Meaning,
    padding: Padding,
    path: &'a Path,
}

impl Asking<'_> {
    fn run(&self, session: &mut Session, rows: &[&Question]) -> Result<Vec<f64>> {
        let (batch, length) = (rows.len(), rows.iter().map(|r| r.ids.len()).max().unwrap_or(0));
        if rows.iter().any(|row| row.ids.is_empty()) {
            return Err(Error::input("a judge was asked about an empty text, and its tokenizer adds nothing").in_file(self.path));
        }
        let failed = |e: ort::Error| {
            let why = one_line(&e.to_string());
            Error::input(format!("ONNX Runtime can't run it on {batch} sequences of {length} tokens: {why}")).in_file(self.path)
        };
        let inputs = self.signature.inputs.iter().map(|input| -> ort::Result<(String, SessionInputValue)> {
            let values = self.values(input.role, rows, length);
            Ok((input.name.clone(), tensor(input, [batch, length], values)?))
        });
        let inputs: Vec<(String, SessionInputValue)> = inputs.collect::<ort::Result<_>>().map_err(failed)?;
        let outputs = session.run(inputs).map_err(failed)?;
        let values = self.extracted(&outputs)?;
        let classes = self.meaning.labels.len();
        if values.len() != batch * classes {
            let what = format!("the model gave {} numbers of `{}` for {batch} sequences", values.len(), self.signature.output);
            return Err(Error::input(what).in_file(self.path));
        }
        let answer = |(row, values): (&&Question, &[f64])| {
            let told = |what: String| {
                Error::input(format!("the model {what} for a sequence of {} tokens", row.ids.len())).in_file(self.path)
            };
            if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                return Err(
                    told(format!("gave {bad}")).help("its weights or its export are damaged; a judge must give finite numbers")
                );
            }
            self.meaning
                .answer(values)
                .map_err(|what| told(what).help("if these are logits, write `values = \"logits\"` in its [[judge]] table"))
        };
        rows.iter().zip(values.chunks_exact(classes)).map(answer).collect()
    }

    /// (batch, length), row by row.
    fn values(&self, role: InputRole, rows: &[&Question], length: usize) -> Vec<i64> {
        let pad = match role {
            InputRole::InputIds => i64::from(self.padding.token),
            InputRole::AttentionMask | InputRole::TokenTypeIds => 0,
            // As transformers fills them up for generation.
            InputRole::PositionIds => 1,
        };
        let mut values = vec![pad; rows.len() * length];
        for (row, values) in rows.iter().zip(values.chunks_exact_mut(length)) {
            let start = if self.padding.side == Side::Left { length - row.ids.len() } else { 0 };
            for (at, (value, &id)) in values[start..].iter_mut().zip(&row.ids).enumerate() {
                *value = match role {
                    InputRole::InputIds => i64::from(id),
                    InputRole::AttentionMask => 1,
                    InputRole::TokenTypeIds => i64::from(row.split.is_some_and(|split| at > split)),
                    InputRole::PositionIds => at as i64,
                };
            }
        }
        values
    }

    fn extracted(&self, outputs: &SessionOutputs) -> Result<Vec<f64>> {
        let name = self.signature.output.as_str();
        let output = outputs.get(name).ok_or_else(|| Error::input(format!("the model gave no `{name}`")).in_file(self.path))?;
        let unreadable =
            |e: ort::Error| Error::input(format!("its `{name}` can't be read: {}", one_line(&e.to_string()))).in_file(self.path);
        let ty = match output.dtype() {
            ValueType::Tensor { ty, .. } => *ty,
            _ => TensorElementType::Float32,
        };
        Ok(match ty {
            TensorElementType::Float16 => {
                let (_, values) = output.try_extract_tensor::<half::f16>().map_err(unreadable)?;
                values.iter().map(|v| v.to_f64()).collect()
            }
            TensorElementType::Bfloat16 => {
                let (_, values) = output.try_extract_tensor::<half::bf16>().map_err(unreadable)?;
                values.iter().map(|v| v.to_f64()).collect()
            }
            TensorElementType::Float64 => output.try_extract_tensor::<f64>().map_err(unreadable)?.1.to_vec(),
            _ => {
                let (_, values) = output.try_extract_tensor::<f32>().map_err(unreadable)?;
                values.iter().map(|&v| f64::from(v)).collect()
            }
        })
    }
}

fn tensor(input: &Input, shape: [usize; 2], values: Vec<i64>) -> ort::Result<SessionInputValue<'static>> {
    Ok(if input.narrow {
        Tensor::from_array((shape, values.into_iter().map(|v| v as i32).collect::<Vec<i32>>()))?.into()
    } else {
        Tensor::from_array((shape, values))?.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_like_lengths_and_every_sequence_once() {
        let question = |i: usize| Question { ids: vec![1; 1 + (i * 37) % 400], split: None, truncated: false };
        let questions: Vec<Question> = (0..300).map(question).collect();
        let rows: Vec<&Question> = questions.iter().collect();
        for batching in [Batching::Padded, Batching::EqualLengths, Batching::Alone] {
            let batches = batches(&rows, batching);
            let mut all: Vec<usize> = batches.concat();
            all.sort_unstable();
            assert_eq!(all, (0..300).collect::<Vec<_>>());
            for batch in batches {
                let longest = batch.iter().map(|&i| rows[i].ids.len()).max().unwrap();
                assert!(batch.len() <= BATCH_ROWS && batch.len() * longest <= BATCH_TOKENS);
                assert!(batching == Batching::Padded || batch.iter().all(|&i| rows[i].ids.len() == longest));
                assert!(batching != Batching::Alone || batch.len() == 1);
            }
        }
    }
}
