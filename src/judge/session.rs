//! A judge as ONNX Runtime runs it: opened and checked, asked in batches of like length, one session a worker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, TensorRef, ValueType};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::judge::onnx::llama::{ATTENTION_MASK, INPUT_IDS, LOGITS, TOKEN_TYPE_IDS};
use crate::judge::reader::{Question, Reader};
use crate::judge::runtime;
use crate::suite::settings::{JudgeKind, JudgeSettings};
use crate::watch::Watch;

/// The model's file in a judge's folder.
pub const MODEL_FILE: &str = "model.onnx";
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
/// The metadata entry that says how long a sequence the model can take.
pub(crate) const MAX_POSITIONS: &str = "dpo_eval.max_positions";

/// Sequences in a batch, and tokens in it with padding: large enough to fill a core, small enough for its cache.
const BATCH_ROWS: usize = 32;
const BATCH_TOKENS: usize = 4096;

/// A judge ready to be asked.
pub struct OnnxJudge {
    pub(crate) settings: JudgeSettings,
    pub(crate) reader: Reader,
    model: Model,
}

impl OnnxJudge {
    /// Opens `folder` (`model.onnx`, `tokenizer.json`) with `threads` workers. A model that can't judge is refused here.
    pub fn open(folder: &Path, settings: &JudgeSettings, threads: usize) -> Result<Self> {
        let tokenizer = folder.join(TOKENIZER_FILE);
        let reader = Reader::open(settings.kind, &settings.template, &tokenizer, settings.max_length)?;
        let model = Model::open(&folder.join(MODEL_FILE), threads)?;
        if let Some(positions) = model.max_positions().filter(|&p| settings.max_length > p) {
            return Err(Error::usage(format!(
                "judge {} has max_length = {}, but its model takes at most {positions} tokens",
                settings.name, settings.max_length
            ))
            .help(format!("set max_length to {positions} or less")));
        }
        Ok(Self { settings: settings.clone(), reader, model })
    }

    pub fn kind(&self) -> JudgeKind {
        self.settings.kind
    }

    /// The digest of `model.onnx`.
    pub fn model_digest(&self) -> Digest {
        self.model.digest
    }

    /// The model's answers (a logit or a score each), in the order of `questions`. Equal questions are asked once.
    pub(crate) fn ask(&mut self, questions: &[Question], watch: &dyn Watch) -> Result<Vec<f64>> {
        let mut distinct: BTreeMap<(&[u32], Option<usize>), usize> = BTreeMap::new();
        let mut asked: Vec<&Question> = Vec::new();
        let places: Vec<usize> = questions
            .iter()
            .map(|question| {
                *distinct.entry((&question.ids, question.split)).or_insert_with(|| {
                    asked.push(question);
                    asked.len() - 1
                })
            })
            .collect();
        let answers = self.model.answers(&asked, watch).map_err(|mut error| {
            error.message = format!("judge {}: {}", self.settings.name, error.message);
            error
        })?;
        Ok(places.into_iter().map(|place| f64::from(answers[place])).collect())
    }
}

/// A sequence classifier with one logit, as sessions of ONNX Runtime.
pub(crate) struct Model {
    path: PathBuf,
    digest: Digest,
    sessions: Vec<Session>,
}

impl Model {
    pub fn open(path: &Path, threads: usize) -> Result<Self> {
        let bytes = std::fs::read(path)
            .map_err(|e| Error::io("read", path, &e).help("a judge's folder holds model.onnx and tokenizer.json"))?;
        let sessions = (0..threads.max(1)).map(|_| session(&bytes, path)).collect::<Result<Vec<_>>>()?;
        check_signature(&sessions[0], path)?;
        Ok(Self { path: path.to_owned(), digest: Digest::of_bytes(&bytes), sessions })
    }

    fn max_positions(&self) -> Option<usize> {
        self.sessions[0].metadata().ok()?.custom(MAX_POSITIONS)?.parse().ok()
    }

    /// One logit a sequence of token ids.
    #[cfg(test)]
    pub fn logits(&mut self, sequences: &[&[u32]], watch: &dyn Watch) -> Result<Vec<f32>> {
        let question = |ids: &&[u32]| Question { ids: ids.to_vec(), split: None, truncated: false };
        let questions: Vec<Question> = sequences.iter().map(question).collect();
        self.answers(&questions.iter().collect::<Vec<_>>(), watch)
    }

    /// One logit a question, in the order given. Which questions share a batch, and on which worker, changes no bit.
    pub fn answers(&mut self, questions: &[&Question], watch: &dyn Watch) -> Result<Vec<f32>> {
        let batches = batches(questions);
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let path = &self.path;
        let work = |session: &mut Session| -> Result<Vec<(usize, f32)>> {
            let mut answers = Vec::new();
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                watch.check()?;
                let rows: Vec<&Question> = batch.iter().map(|&i| questions[i]).collect();
                let logits = run(session, &rows, path)?;
                answers.extend(batch.iter().copied().zip(logits));
                let done = done.fetch_add(batch.len(), Ordering::Relaxed) + batch.len();
                watch.advance(done as u64, questions.len() as u64, "");
            }
            Ok(answers)
        };
        let parts: Vec<Result<Vec<(usize, f32)>>> = std::thread::scope(|scope| {
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
}

fn session(bytes: &[u8], path: &Path) -> Result<Session> {
    let environment = runtime::environment()?;
    let refused = |why: String| Error::input(format!("ONNX Runtime can't load it: {}", one_line(&why))).in_file(path);
    Session::builder(&environment)
        .map_err(|e| refused(e.to_string()))?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(|e| refused(e.to_string()))?
        .with_intra_threads(1)
        .map_err(|e| refused(e.to_string()))?
        .with_inter_threads(1)
        .map_err(|e| refused(e.to_string()))?
        .commit_from_memory(bytes)
        .map_err(|e| refused(e.to_string()))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Two or three int64 inputs (batch, sequence) of free size, and one float output (batch, 1), by their names.
fn check_signature(session: &Session, path: &Path) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::input(format!("this model can't judge: {what}")).in_file(path).help(format!(
            "a judge has the inputs `{INPUT_IDS}`, `{ATTENTION_MASK}` and perhaps `{TOKEN_TYPE_IDS}`, int64 (batch, sequence), and \
             the output `{LOGITS}`, float (batch, 1)"
        )))
    };
    for needed in [INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS] {
        let Some(input) = session.inputs().iter().find(|i| i.name() == needed) else {
            if needed == TOKEN_TYPE_IDS {
                continue;
            }
            let names: Vec<_> = session.inputs().iter().map(|i| format!("`{}`", i.name())).collect();
            return refuse(format!("it has no input `{needed}`, only {}", names.join(", ")));
        };
        match input.dtype() {
            ValueType::Tensor { ty: TensorElementType::Int64, shape, .. } if shape.len() == 2 => {
                if shape.iter().any(|&d| d != -1) {
                    return refuse(format!("its input `{needed}` has the fixed shape {shape}"));
                }
            }
            other => return refuse(format!("its input `{needed}` is {}", described(other))),
        }
    }
    if let Some(extra) = session.inputs().iter().find(|i| ![INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS].contains(&i.name())) {
        return refuse(format!("it also asks for an input `{}`", extra.name()));
    }
    let Some(output) = session.outputs().iter().find(|o| o.name() == LOGITS) else {
        let names: Vec<_> = session.outputs().iter().map(|o| format!("`{}`", o.name())).collect();
        return refuse(format!("it has no output `{LOGITS}`, only {}", names.join(", ")));
    };
    match output.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } if shape.len() == 2 && [-1, 1].contains(&shape[1]) => {
            Ok(())
        }
        other => refuse(format!("its output `{LOGITS}` is {}", described(other))),
    }
}

fn described(value: &ValueType) -> String {
    match value {
        ValueType::Tensor { ty, shape, .. } => format!("{ty} with {} dimensions {shape}", shape.len()),
        _ => "no tensor".to_owned(),
    }
}

/// Indices into `questions`, those of like length together, within the limits of a batch.
fn batches(questions: &[&Question]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..questions.len()).collect();
    // Longest first: the largest batch is the first, so memory doesn't grow later, and the tail of the work is small.
    order.sort_by_key(|&i| std::cmp::Reverse(questions[i].ids.len()));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for i in order {
        let fits = |batch: &Vec<usize>| {
            let longest = questions[batch[0]].ids.len();
            batch.len() < BATCH_ROWS && (batch.len() + 1) * longest <= BATCH_TOKENS
        };
        match batches.last_mut().filter(|b| fits(b)) {
            Some(batch) => batch.push(i),
            None => batches.push(vec![i]),
        }
    }
    batches
}

/// One batch, padded on the right with token 0 under a mask of 0.
fn run(session: &mut Session, rows: &[&Question], path: &Path) -> Result<Vec<f32>> {
    let (batch, length) = (rows.len(), rows.iter().map(|r| r.ids.len()).max().unwrap_or(0));
    let [mut ids, mut mask, mut types] = [(); 3].map(|()| vec![0i64; batch * length]);
    for (r, row) in rows.iter().enumerate() {
        if row.ids.is_empty() {
            return Err(Error::input("a judge was asked about an empty text, and its tokenizer adds nothing").in_file(path));
        }
        for (c, &id) in row.ids.iter().enumerate() {
            ids[r * length + c] = i64::from(id);
            mask[r * length + c] = 1;
            types[r * length + c] = i64::from(row.split.is_some_and(|split| c > split));
        }
    }
    let failed = |e: ort::Error| {
        Error::input(format!("ONNX Runtime can't run it on {batch} sequences of {length} tokens: {}", one_line(&e.to_string())))
            .in_file(path)
    };
    let ids = TensorRef::from_array_view(([batch, length], ids.as_slice())).map_err(failed)?;
    let mask = TensorRef::from_array_view(([batch, length], mask.as_slice())).map_err(failed)?;
    let mut inputs = ort::inputs![INPUT_IDS => ids, ATTENTION_MASK => mask];
    let types = TensorRef::from_array_view(([batch, length], types.as_slice())).map_err(failed)?;
    if session.inputs().iter().any(|i| i.name() == TOKEN_TYPE_IDS) {
        inputs.push((TOKEN_TYPE_IDS.into(), types.into()));
    }
    let outputs = session.run(inputs).map_err(failed)?;
    let missing = || Error::input(format!("the model gave no `{LOGITS}`")).in_file(path);
    let (shape, logits) = outputs.get(LOGITS).ok_or_else(missing)?.try_extract_tensor::<f32>().map_err(failed)?;
    if logits.len() != batch {
        return Err(Error::input(format!("the model gave `{LOGITS}` of shape {shape} for {batch} sequences")).in_file(path));
    }
    if let Some(bad) = logits.iter().position(|l| !l.is_finite()) {
        let what = format!("the model gave {} for a sequence of {} tokens", logits[bad], rows[bad].ids.len());
        return Err(Error::input(what)
            .in_file(path)
            .help("its weights or its export are damaged; a judge must give finite numbers"));
    }
    Ok(logits.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::onnx::graph::{Dim, Graph};
    use crate::judge::onnx::llama::tests::{bytes, config, random, sequences};
    use crate::judge::onnx::proto::DataType;
    use crate::judge::reader::tests::{PAIRWISE, tokenizer};
    use crate::suite::settings::JudgeSource;
    use crate::watch::Silent;
    use prost::Message;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MODEL_FILE);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn a_score_depends_neither_on_its_batch_nor_on_its_worker() {
        let (_folder, path) = written(&bytes(&random()));
        let mut sequences = sequences();
        let varied = |i: usize| sequences[i % 7].iter().map(|&id| (id + i as u32) % 300).collect();
        let more: Vec<Vec<u32>> = (0..90).map(varied).collect();
        sequences.extend(more);
        let rows: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let together = Model::open(&path, 3).unwrap().logits(&rows, &Silent).unwrap();
        let mut one = Model::open(&path, 1).unwrap();
        for (row, expected) in rows.iter().zip(&together) {
            assert_eq!(one.logits(&[row], &Silent).unwrap()[0].to_bits(), expected.to_bits());
        }
    }

    #[test]
    fn a_model_with_damaged_weights_is_an_error_and_no_score() {
        let mut model = random();
        model.parameters.get_mut("model.norm.weight").values[3] = f32::NAN;
        let (_folder, path) = written(&bytes(&model));
        let error = Model::open(&path, 1).unwrap().logits(&[&[1, 2, 3]], &Silent).unwrap_err();
        assert!(error.message.contains("gave NaN for a sequence of 3 tokens"), "{error}");
    }

    /// A model that sums an input of the given name and form.
    fn summing(input: &str, data_type: DataType, dims: &[Dim], output: &str) -> Vec<u8> {
        let mut g = Graph::default();
        let x = g.input(input, data_type, dims);
        let float = g.op_with("Cast", &[&x], &[("to", crate::judge::onnx::graph::Attribute::Int(1))]);
        let axis = g.ints("axis", &[-1]);
        let sum = g.op("ReduceSum", &[&float, &axis]);
        g.output(&sum, output, DataType::Float, &dims.iter().map(|_| Dim::Named("any")).collect::<Vec<_>>());
        g.into_model("summing", &BTreeMap::new()).encode_to_vec()
    }

    #[test]
    fn models_with_another_signature_are_refused_with_what_is_wrong() {
        use Dim::{Fixed, Named};
        let (batch, sequence) = (Named("batch"), Named("sequence"));
        let cases = [
            (summing("tokens", DataType::Int64, &[batch, sequence], LOGITS), "it has no input `input_ids`, only `tokens`"),
            (summing(INPUT_IDS, DataType::Int64, &[batch, sequence], LOGITS), "it has no input `attention_mask`"),
            (summing(INPUT_IDS, DataType::Int64, &[batch, sequence, sequence], LOGITS), "`input_ids` is i64 with 3 dimensions"),
            (summing(INPUT_IDS, DataType::Float, &[batch, sequence], LOGITS), "`input_ids` is f32 with 2 dimensions"),
            (summing(INPUT_IDS, DataType::Int64, &[Fixed(1), Fixed(8)], LOGITS), "`input_ids` has the fixed shape [1, 8]"),
        ];
        for (bytes, what) in cases {
            let (_folder, path) = written(&bytes);
            let error = Model::open(&path, 1).err().expect("a model that can't judge");
            assert!(error.message.contains(what), "{error}");
            assert!(error.help.as_ref().is_some_and(|h| h.contains("int64 (batch, sequence)")));
        }
    }

    #[test]
    fn a_file_that_is_no_model_is_refused_by_name() {
        let (_folder, path) = written(b"not a model");
        let error = Model::open(&path, 1).err().expect("no model");
        assert!(error.to_string().contains("model.onnx: ONNX Runtime can't load it"), "{error}");
    }

    #[test]
    fn a_judge_is_refused_a_longer_input_than_its_model_takes() {
        let (folder, _path) = written(&bytes(&random()));
        tokenizer().save(folder.path()).unwrap();
        let mut settings = JudgeSettings {
            name: "j".to_owned(),
            kind: JudgeKind::Pairwise,
            source: JudgeSource::Folder { path: folder.path().to_owned() },
            template: PAIRWISE.to_owned(),
            max_length: config().max_position_embeddings,
            tie_width: 0.0,
            min_accuracy: 0.5,
            fitness: Default::default(),
        };
        assert!(OnnxJudge::open(folder.path(), &settings, 1).is_ok());
        settings.max_length += 1;
        let error = OnnxJudge::open(folder.path(), &settings, 1).err().expect("too long");
        assert!(error.message.contains("takes at most 64 tokens"), "{error}");
    }

    #[test]
    fn batches_hold_like_lengths_and_every_sequence_once() {
        let question = |i: usize| Question { ids: vec![1; 1 + (i * 37) % 400], split: None, truncated: false };
        let questions: Vec<Question> = (0..300).map(question).collect();
        let rows: Vec<&Question> = questions.iter().collect();
        let batches = batches(&rows);
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..300).collect::<Vec<_>>());
        for batch in batches {
            let longest = batch.iter().map(|&i| rows[i].ids.len()).max().unwrap();
            assert!(batch.len() <= BATCH_ROWS && batch.len() * longest <= BATCH_TOKENS);
        }
    }
}
