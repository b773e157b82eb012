//! Models of candle-transformers, for evaluation alone: they have no gradients, and say what follows a text and nothing of its inside. So
//! they are scored by decoding: a completion costs what writing it costs.

mod candle;
mod decode;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

use super::causal::score_decoding;
use super::files;
use super::keys::evaluated::{self, EvaluatedConfig};
use crate::error::{Error, Result};
use crate::model::{Causal, Decoder, Limits, Llama, Packed, Parameters, Target, TokenScore};

pub use decode::Stepper;

pub struct Evaluated {
    limits: Limits,
    fresh: candle::Fresh,
    /// Sequences that go through it together.
    together: usize,
}

impl Evaluated {
    /// What the folder's `config.json` says; none for models of other kinds.
    pub(super) fn config(folder: &Path) -> Result<Option<EvaluatedConfig>> {
        evaluated::read(&files::config_text(folder)?).map_err(|e| e.in_file(folder.join(files::CONFIG)))
    }

    /// A Hugging Face folder of a model that is evaluated alone.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = Self::config(folder)?.ok_or_else(|| Error::unexpected("a model of another kind"))?;
        Self::of(&config, Self::tensors(folder)?).map_err(|e| e.in_file(folder))
    }

    /// Its weights, widened.
    pub(super) fn tensors(folder: &Path) -> Result<Parameters> {
        files::read_named(folder, &|name| (!name.ends_with(".rotary_emb.inv_freq")).then(|| name.to_owned()))
    }

    fn of(config: &EvaluatedConfig, mut parameters: Parameters) -> Result<Self> {
        let mut problems: Vec<String> = Vec::new();
        if config.tie_word_embeddings
            && let Some(head) = parameters.remove(HEAD)
            && parameters.find(EMBEDDING) != Some(&head)
        {
            problems.push(format!("`{HEAD}` differs from `{EMBEDDING}`, though tie_word_embeddings is true"));
        }
        let unsound = |(name, tensor): (&str, &super::Tensor)| {
            tensor.values.iter().any(|v| !v.is_finite()).then(|| format!("`{name}` has a value that isn't finite"))
        };
        problems.extend(parameters.iter().filter_map(unsound));
        let named = |(name, tensor): (String, super::Tensor)| {
            Ok((name, Tensor::from_vec(tensor.values.to_vec(), tensor.shape, &Device::Cpu)?))
        };
        let tensors: candle_core::Result<BTreeMap<String, Tensor>> = parameters.into_iter().map(named).collect();
        let weights = Arc::new(Weights { tensors: tensors.map_err(failed)?, asked: Mutex::default() });
        let builder = VarBuilder::from_backend(Box::new(Shared(weights.clone())), DType::F32, Device::Cpu);
        let fresh = candle::open(config, builder).map_err(failed)?;
        problems.extend(weights.misfits());
        if !problems.is_empty() {
            return Err(Error::input(format!("the tensors don't fit the configuration: {}", problems.join("; ")))
                .help("config.json and the weights must belong to one model"));
        }
        let model = Self { limits: config.limits, fresh, together: candle::together(config.family) };
        model.try_out()?;
        Ok(model)
    }

    /// A model whose operations don't fit each other fails here, by an error.
    fn try_out(&self) -> Result<()> {
        let mut model = (self.fresh)().map_err(failed)?;
        for (offset, tokens) in [(0, 2), (2, 1)].into_iter().filter(|(offset, tokens)| offset + tokens <= self.limits.context) {
            let ids = Tensor::zeros((self.together.min(2), tokens), DType::U32, &Device::Cpu).map_err(failed)?;
            let logits = model.forward(&ids, offset).and_then(|logits| logits.flatten_all()?.to_vec1::<f32>()).map_err(failed)?;
            if logits.len() != self.together.min(2) * self.limits.vocab_size || logits.iter().any(|x| !x.is_finite()) {
                return Err(Error::input("the model doesn't give a finite logit for every token of its vocabulary"));
            }
        }
        Ok(())
    }
}

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

fn failed(error: candle_core::Error) -> Error {
    Error::input(format!("candle-transformers can't compute this model: {error}"))
}

impl Causal for Evaluated {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn decoder(&self) -> Decoder<'_> {
        Decoder::Stepper(Box::new(Stepper::of(self)))
    }

    fn score(&self, packed: &Packed, targets: &[Target]) -> Vec<TokenScore> {
        score_decoding(self, packed, targets)
    }

    fn own(&self) -> Option<&Llama> {
        None
    }
}

/// A model's tensors, and what was asked of them: candle itself doesn't say what it passes over.
struct Weights {
    tensors: BTreeMap<String, Tensor>,
    /// By name; a sentence where it didn't fit.
    asked: Mutex<BTreeMap<String, Option<String>>>,
}

impl Weights {
    fn misfits(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("nobody panics while it is held");
        let unused =
            self.tensors.keys().filter(|name| !asked.contains_key(*name)).map(|name| format!("`{name}` is not expected"));
        asked.values().flatten().cloned().chain(unused).collect()
    }
}

struct Shared(Arc<Weights>);

impl SimpleBackend for Shared {
    /// Zeros for what isn't there, so that all misfits come to light at once.
    fn get(&self, shape: Shape, name: &str, _: candle_nn::Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let found = self.0.tensors.get(name);
        // A tied head is the embeddings.
        let found = found.or_else(|| self.0.tensors.get(EMBEDDING).filter(|_| name == HEAD));
        let (tensor, problem) = match found {
            Some(tensor) if *tensor.shape() == shape => (tensor.clone(), None),
            Some(tensor) => {
                let problem = format!("`{name}` has shape {:?}, not {:?}", tensor.dims(), shape.dims());
                (Tensor::zeros(shape, dtype, device)?, Some(problem))
            }
            None => (Tensor::zeros(shape, dtype, device)?, Some(format!("`{name}` is missing"))),
        };
        self.0.asked.lock().expect("nobody panics while it is held").insert(name.to_owned(), problem);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        self.0.tensors.get(name).cloned().ok_or_else(|| candle_core::Error::Msg(format!("`{name}` is missing")))
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.tensors.contains_key(name)
    }
}
