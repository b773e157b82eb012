//! Trains a judge on labelled pairs and exports it.
//!
//! A pairwise judge learns to answer "is the first better?": the cross-entropy of σ(logit) with 1 when the chosen side stands
//! first and 0 when the rejected one does, averaged over both presentation orders of every pair. A reward model learns the
//! Bradley–Terry loss −log σ(s_chosen − s_rejected) (Ouyang et al. 2022, eq. 1). Both start from the transformer of a given
//! language model. A reward model reads its score at the last token; a pairwise judge reads one at the end of each text and
//! answers with the first minus the second: one score at the end of both learned nothing from a few thousand pairs.
//!
//! An encoder (`attention = "bidirectional"`) starts from the same weights, lets each token see its whole text, and reads the mean over a text's
//! tokens (BehnamGhader et al. 2024, "LLM2Vec", arXiv 2404.05961: what a causal model learnt serves an encoder after a short training).

mod reads;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;
use serde::Serialize;

use crate::data::Pair;
use crate::data::tokenize::TextTokenizer;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::judge::onnx::{classifier, external};
use crate::judge::reader::{Limits, Question, Reader};
use crate::judge::session::{KIND, MAX_POSITIONS, MODEL_FILE, Model};
use crate::model::{Gradients, Llama, LlamaConfig, Packed, Parameters, Scorer, Tape};
use crate::suite::one_or_many::OneOrMany;
use crate::suite::settings::{Attention, EncodingSettings, JudgeKind, JudgeSettings, TrainSettings};
use crate::train::objective::{logistic, softplus};
use crate::train::{BatchLoss, Metrics, Task, run};
use crate::watch::{Silent, Watch};
use reads::{Form, Reads};

/// What `judge.json` says: enough to ask the judge by itself, and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    pub name: String,
    pub kind: JudgeKind,
    pub template: OneOrMany<String>,
    pub max_length: usize,
    pub inputs: Vec<&'static str>,
    pub output: &'static str,
    pub seed: u64,
    /// Pairs it was trained on, and how many of their questions were too long.
    pub pairs: usize,
    pub truncated: usize,
    pub provenance: Provenance,
    /// What its tokens see and where its score is read, where that isn't a causal model's last token.
    #[serde(skip_serializing_if = "EncodingSettings::is_default")]
    pub encoding: EncodingSettings,
    /// The digest of `model.onnx`.
    pub onnx: Digest,
}

/// SHA-256 digests of what went in, and of the weights that came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Provenance {
    pub base_weights: Digest,
    pub tokenizer: Digest,
    pub training_pairs: Digest,
    pub training_settings: Digest,
    pub weights: Digest,
}

/// A finished judge.
#[derive(Debug, Clone)]
pub struct TrainedJudge {
    /// Holds `model.onnx`, `tokenizer.json`, `judge.json`, and the weights as a Hugging Face folder.
    pub folder: PathBuf,
    pub manifest: Manifest,
    pub metrics: Vec<Metrics>,
    /// The largest difference between ONNX Runtime's scores and ours on the questions compared at export.
    pub disagreement: f64,
}

/// ONNX Runtime and our kernels sum in different orders; more than this between them is an error of the export.
const TOLERANCE: f64 = 1e-5;

/// Where in the work folder a judge stands, and where its training does.
pub const FOLDER: &str = "judge";
pub const TRAINING: &str = "train";

/// Bytes of an ONNX file that protobuf reads for sure; weights of a larger model go into a file of their own.
const LARGEST: usize = 2_000_000_000;

/// Questions compared at export.
const COMPARED: usize = 32;

/// Trains the judge that `settings` describe on `pairs` and writes it to `work/judge`. The training itself lives in
/// `work/train`: a killed run goes on from there and ends with the same bytes.
///
/// `base`: the language model whose transformer the judge starts from.
#[allow(clippy::too_many_arguments)]
pub fn train_judge(
    settings: &JudgeSettings,
    training: &TrainSettings,
    base: &Llama,
    tokenizer: &TextTokenizer,
    pairs: &[Pair],
    seed: u64,
    work: &Path,
    watch: &dyn Watch,
) -> Result<TrainedJudge> {
    let Learnt { task, metrics } = learn(settings, training, base, tokenizer, pairs, seed, work, watch)?;
    let truncated = task.examples.iter().flat_map(|e| &e.questions).filter(|q| q.truncated).count();
    let folder = work.join(FOLDER);
    tokenizer.save(&folder)?;
    let provenance = Provenance {
        base_weights: base.parameters.digest(),
        tokenizer: tokenizer.digest(),
        training_pairs: Digest::of_value(pairs),
        training_settings: Digest::of_value(training),
        weights: task.model.parameters.digest(),
    };
    let questions: Vec<&Question> = task.examples.iter().flat_map(|e| &e.questions).collect();
    let (onnx, disagreement) =
        export(&task.model, Form::of(settings), &metadata(settings, &provenance), &compared(&questions), &folder)?;
    let mut inputs = vec![classifier::INPUT_IDS, classifier::ATTENTION_MASK];
    inputs.extend((settings.kind == JudgeKind::Pairwise).then_some(classifier::TOKEN_TYPE_IDS));
    let manifest = Manifest {
        name: settings.name.clone(),
        kind: settings.kind,
        template: settings.template.clone(),
        max_length: settings.max_length.unwrap_or(base.config.max_position_embeddings),
        inputs,
        output: classifier::LOGITS,
        seed,
        pairs: pairs.len(),
        truncated,
        provenance,
        encoding: settings.encoding,
        onnx,
    };
    write_manifest(&manifest, &folder)?;
    Ok(TrainedJudge { folder, manifest, metrics, disagreement })
}

/// A judge after its training, before its export.
pub(crate) struct Learnt {
    task: JudgeTask,
    metrics: Vec<Metrics>,
}

/// The training of [`train_judge`] without the export: leaves the weights as a Hugging Face folder in `work/judge`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn learn(
    settings: &JudgeSettings,
    training: &TrainSettings,
    base: &Llama,
    tokenizer: &TextTokenizer,
    pairs: &[Pair],
    seed: u64,
    work: &Path,
    watch: &dyn Watch,
) -> Result<Learnt> {
    check_length(settings, &base.config)?;
    if pairs.is_empty() {
        return Err(Error::input(format!("judge `{}` has no pairs to learn from", settings.name)));
    }
    let max_length = settings.max_length.unwrap_or(base.config.max_position_embeddings);
    let reader = Reader::new(settings.kind, &settings.template.0, tokenizer.json(), Limits::of(max_length))?;
    let mut model = Scorer { recomputes: training.gradient_checkpointing, ..Scorer::from_llama(base, seed) };
    if settings.encoding.attention == Attention::Bidirectional {
        model = model.in_both_directions();
    }
    let mut task = JudgeTask::new(Form::of(settings), model, &reader, pairs)?;
    let metrics = run(&mut task, training, seed, &work.join(TRAINING), watch)?;
    task.model.save(&work.join(FOLDER))?;
    Ok(Learnt { task, metrics })
}

/// An error where a judge that starts from such a model would read longer texts than it can.
pub(crate) fn check_length(settings: &JudgeSettings, base: &LlamaConfig) -> Result<()> {
    let encoder = settings.encoding.attention == Attention::Bidirectional;
    let context = base.max_position_embeddings;
    let most = if encoder { base.longest_in_both_directions() } else { context };
    let max_length = settings.max_length.unwrap_or(context);
    if max_length <= most {
        return Ok(());
    }
    let why = match most < context {
        true => {
            format!("the layers of a {} see {most} at a time, and attention in both directions has no window", base.family.name())
        }
        false => format!("the model it starts from takes at most {context} tokens"),
    };
    let message = format!("judge `{}` has max_length = {max_length}, but {why}", settings.name);
    Err(Error::usage(message).help(format!("set `max_length` in its [[judge]] table to {most} or less")))
}

fn write_manifest(manifest: &Manifest, folder: &Path) -> Result<()> {
    let path = folder.join("judge.json");
    let text = serde_json::to_string_pretty(manifest).expect("plain fields serialise") + "\n";
    std::fs::write(&path, text).map_err(|e| Error::io("write", &path, &e))
}

/// The provenance that travels inside the ONNX file.
fn metadata(settings: &JudgeSettings, provenance: &Provenance) -> BTreeMap<String, String> {
    let kind = serde_json::to_value(settings.kind).expect("a plain name");
    let entries = [
        (KIND, kind.as_str().unwrap_or_default().to_owned()),
        ("dpo_eval.template", settings.template.0.concat()),
        ("dpo_eval.base_weights", provenance.base_weights.to_string()),
        ("dpo_eval.tokenizer", provenance.tokenizer.to_string()),
        ("dpo_eval.training_pairs", provenance.training_pairs.to_string()),
        ("dpo_eval.training_settings", provenance.training_settings.to_string()),
        ("dpo_eval.weights", provenance.weights.to_string()),
    ];
    let encoding = serde_json::to_value(settings.encoding).expect("plain names");
    let own =
        ["attention", "pooling"].map(|key| (format!("dpo_eval.{key}"), encoding[key].as_str().unwrap_or_default().to_owned()));
    let own = own.into_iter().filter(|_| !settings.encoding.is_default());
    entries.into_iter().map(|(k, v)| (k.to_owned(), v)).chain(own).collect()
}

/// The shortest and longest question and evenly many between them.
fn compared<'a>(questions: &[&'a Question]) -> Vec<&'a Question> {
    let mut by_length: Vec<&Question> = questions.to_vec();
    by_length.sort_by_key(|q| q.ids.len());
    let (last, n) = (by_length.len() - 1, COMPARED.min(by_length.len()));
    (0..n).map(|i| by_length[i * last / (n - 1).max(1)]).collect()
}

/// Writes `model` as `folder/model.onnx` and holds ONNX Runtime's answers to `questions` against our own. Returns the file's
/// digest and the largest difference. A file that disagrees is not left behind.
fn export(
    model: &Scorer,
    form: Form,
    metadata: &BTreeMap<String, String>,
    questions: &[&Question],
    folder: &Path,
) -> Result<(Digest, f64)> {
    let mut metadata = metadata.clone();
    metadata.insert(MAX_POSITIONS.to_owned(), model.config.max_position_embeddings.to_string());
    let mut written = classifier::sequence_classifier(model, form.kind, form.encoding.pooling, &metadata);
    let path = folder.join(MODEL_FILE);
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).map_err(|e| Error::io("write", path, &e));
    if written.encoded_len() > LARGEST {
        let name = format!("{MODEL_FILE}.data");
        write(&folder.join(&name), &external::moved_out(&mut written, &name))?;
    }
    write(&path, &written.encode_to_vec())?;
    drop(written);
    disagreement(model, form, questions, &path).inspect_err(|_| {
        let _ = std::fs::remove_file(&path);
    })
}

fn disagreement(model: &Scorer, form: Form, questions: &[&Question], path: &Path) -> Result<(Digest, f64)> {
    let mut opened = Model::open(path, form.kind, 1)?;
    let theirs = opened.answers(questions, &Silent)?;
    let (mut packed, mut reads) = (Packed::new(), Reads::new(form));
    questions.iter().for_each(|question| reads.push(&mut packed, question));
    let ours = reads.answers(&model.score(&packed, &reads.rows));
    let mut largest = 0.0f64;
    for (&a, &b) in ours.iter().zip(&theirs) {
        let difference = (f64::from(a) - b).abs();
        if !difference.is_finite() || difference > TOLERANCE {
            return Err(Error::unexpected(format!(
                "the exported judge gives {b} in ONNX Runtime where the trained one gives {a}: more than {TOLERANCE} apart"
            ))
            .in_file(path)
            .help("this is a defect of the export or of this ONNX Runtime; `dpo-eval doctor` shows which one runs"));
        }
        largest = largest.max(difference);
    }
    Ok((opened.digest(), largest))
}

/// A pair as the judge reads it: two questions whose answers are compared.
struct Example {
    pair_id: String,
    /// Pairwise: chosen first, rejected first. Reward model: chosen, rejected.
    questions: [Question; 2],
}

struct JudgeTask {
    form: Form,
    model: Scorer,
    examples: Vec<Example>,
    identity: Digest,
}

/// What is kept between forward and backward: the batch, the rows that are scored, the activations.
struct Pass {
    packed: Packed,
    reads: Reads,
    tape: Tape,
}

impl JudgeTask {
    fn new(form: Form, model: Scorer, reader: &Reader, pairs: &[Pair]) -> Result<Self> {
        let example = |pair: &Pair| {
            let (prompt, chosen, rejected) = (pair.prompt.as_str(), pair.chosen.as_str(), pair.rejected.as_str());
            let questions = match form.kind {
                JudgeKind::Pairwise => [reader.read(&[prompt, chosen, rejected])?, reader.read(&[prompt, rejected, chosen])?],
                JudgeKind::RewardModel => [reader.read(&[prompt, chosen])?, reader.read(&[prompt, rejected])?],
            };
            Ok(Example { pair_id: pair.id.clone(), questions })
        };
        let examples = pairs.iter().map(example).collect::<Result<Vec<Example>>>()?;
        let ids: Vec<&[u32]> = examples.iter().flat_map(|e| &e.questions).map(|q| q.ids.as_slice()).collect();
        let mut identity = Digest::of_value(&("judge", form.kind, model.numerics, model.parameters.digest(), ids));
        if !form.encoding.is_default() {
            identity = Digest::of_value(&(identity, form.encoding));
        }
        Ok(Self { form, model, examples, identity })
    }
}

impl Task for JudgeTask {
    type Learner = Parameters;
    type Pass = Pass;
    /// The answers to an example's two questions.
    type Output = [f64; 2];
    type Gradient = [f64; 2];

    fn identity(&self) -> Digest {
        self.identity
    }

    fn examples(&self) -> usize {
        self.examples.len()
    }

    fn example_id(&self, example: usize) -> String {
        self.examples[example].pair_id.clone()
    }

    fn learner(&self) -> &Parameters {
        &self.model.parameters
    }

    fn learner_mut(&mut self) -> &mut Parameters {
        &mut self.model.parameters
    }

    fn forward(&self, examples: &[usize]) -> (Pass, Vec<[f64; 2]>) {
        let (mut packed, mut reads) = (Packed::new(), Reads::new(self.form));
        examples.iter().for_each(|&example| reads.push_both(&mut packed, &self.examples[example].questions));
        let (scores, tape) = self.model.forward(&packed, &reads.rows);
        let outputs = reads.answers(&scores).chunks_exact(2).map(|a| [f64::from(a[0]), f64::from(a[1])]).collect();
        (Pass { packed, reads, tape }, outputs)
    }

    fn loss(&self, examples: &[usize], outputs: &[[f64; 2]]) -> BatchLoss<[f64; 2]> {
        let n = outputs.len() as f64;
        let evaluated: Vec<(f64, [f64; 2])> = outputs.iter().map(|o| loss(self.form.kind, o)).collect();
        let right = outputs.iter().filter(|[a, b]| a > b).count();
        let mean = |value: fn(&[f64; 2]) -> f64| outputs.iter().map(value).sum::<f64>() / n;
        let mut metrics =
            BTreeMap::from([("accuracy".to_owned(), right as f64 / n), ("margin".to_owned(), mean(|[a, b]| a - b))]);
        if self.form.kind == JudgeKind::Pairwise {
            metrics.insert("position_effect".to_owned(), mean(|[a, b]| (a + b) / 2.0));
        }
        let tokens: usize = examples.iter().flat_map(|&i| &self.examples[i].questions).map(|q| q.ids.len()).sum();
        BatchLoss {
            loss: evaluated.iter().map(|(loss, _)| loss).sum::<f64>() / n,
            losses: evaluated.iter().map(|(loss, _)| *loss).collect(),
            gradients: evaluated.iter().map(|(_, gradient)| gradient.map(|g| g / n)).collect(),
            tokens: tokens as u64,
            metrics,
        }
    }

    fn backward(&self, pass: Pass, _: &[usize], gradients: &[[f64; 2]], grads: &mut Gradients) {
        let dscores = pass.reads.gradients(gradients.iter().flatten().copied());
        self.model.backward(pass.tape, &pass.packed, &pass.reads.rows, &dscores, grads);
        // What is left of it is rounding, which an optimizer that scales by size would take for a gradient.
        if let Some(bias) = self.final_bias() {
            grads.get_mut(&bias).fill(0.0);
        }
    }

    fn is_free_of(&self, tensor: &str) -> bool {
        self.final_bias().is_some_and(|bias| bias == tensor)
    }
}

impl JudgeTask {
    /// The bias of the norm before the head: it adds the same to all scores, and only differences of scores enter the losses.
    fn final_bias(&self) -> Option<String> {
        let bias = format!("{}.bias", self.model.config.family.names().final_norm);
        self.model.parameters.find(&bias).map(|_| bias)
    }
}

/// The loss of one pair, nats, and its gradient by the two answers.
fn loss(kind: JudgeKind, [first, second]: &[f64; 2]) -> (f64, [f64; 2]) {
    match kind {
        JudgeKind::Pairwise => {
            let loss = (softplus(-first) + softplus(*second)) / 2.0;
            (loss, [-logistic(-first) / 2.0, logistic(*second) / 2.0])
        }
        JudgeKind::RewardModel => {
            let margin = first - second;
            (softplus(-margin), [-logistic(-margin), logistic(-margin)])
        }
    }
}

#[cfg(test)]
mod tests;
