//! The models of candle-transformers behind one face.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{
    glm4_new, helium, mixtral, olmo, olmo2, phi3, qwen2_moe, qwen3_moe, smol::smollm3, stable_lm, starcoder2,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::keys::evaluated::{EvaluatedConfig, Theirs};

/// A model with the keys and values of the tokens that it has read.
pub(super) trait Steps: Send {
    /// Reads `ids`: (sequences, tokens), of which `offset` were read before. Returns (sequences, 1, vocabulary): what follows the last ones.
    fn forward(&mut self, ids: &Tensor, offset: usize) -> Result<Tensor>;
}

macro_rules! steps {
    ($($model:ty),*) => {
        $(impl Steps for $model {
            fn forward(&mut self, ids: &Tensor, offset: usize) -> Result<Tensor> {
                <$model>::forward(self, ids, offset)
            }
        })*
    };
}

steps!(
    glm4_new::ModelForCausalLM,
    helium::Model,
    mixtral::Model,
    olmo::Model,
    olmo2::Model,
    phi3::Model,
    qwen2_moe::Model,
    qwen3_moe::ModelForCausalLM,
    smollm3::ModelForCausalLM,
    stable_lm::Model,
    starcoder2::Model
);

/// Makes a model that has read nothing. Not every one of them can forget.
pub(super) type Fresh = Box<dyn Fn() -> Result<Box<dyn Steps>> + Send + Sync>;

pub(super) fn open(config: &EvaluatedConfig, weights: VarBuilder<'static>) -> Result<Fresh> {
    let json = &config.json;
    Ok(match config.family {
        Theirs::Glm4 => cloned(glm4_new::ModelForCausalLM::new(&parsed(json)?, weights)?),
        Theirs::Helium => cloned(helium::Model::new(&parsed(json)?, weights)?),
        Theirs::Mixtral => {
            let mut json = json.clone();
            json["use_flash_attn"] = false.into();
            cloned(mixtral::Model::new(&parsed(&json)?, weights)?)
        }
        Theirs::Olmo => cloned(olmo::Model::new(&parsed(json)?, weights)?),
        Theirs::Olmo2 => cloned(olmo2::Model::new(&parsed(json)?, weights)?),
        Theirs::Phi3 => cloned(phi3::Model::new(&parsed(json)?, weights)?),
        Theirs::Qwen2Moe => cloned(qwen2_moe::Model::new(&parsed(json)?, weights)?),
        Theirs::Qwen3Moe => cloned(qwen3_moe::ModelForCausalLM::new(&parsed(json)?, weights)?),
        Theirs::SmolLm3 => cloned(smollm3::ModelForCausalLM::new(&parsed(json)?, weights)?),
        Theirs::StableLm => {
            // It can't be cloned, so it is built again out of the same tensors.
            let config: stable_lm::Config = parsed(json)?;
            stable_lm::Model::new(&config, weights.clone())?;
            Box::new(move || Ok(Box::new(stable_lm::Model::new(&config, weights.clone())?)))
        }
        Theirs::Starcoder2 => cloned(starcoder2::Model::new(&parsed(json)?, weights)?),
    })
}

/// `model` has read nothing; clones share its weights.
fn cloned<M: Steps + Clone + Sync + 'static>(model: M) -> Fresh {
    Box::new(move || Ok(Box::new(model.clone())))
}

fn parsed<C: DeserializeOwned>(json: &Value) -> Result<C> {
    serde_json::from_value(json.clone()).map_err(|e| candle_core::Error::Msg(format!("config.json: {e}")))
}

/// How many sequences go through a model together at most.
pub(super) fn together(family: Theirs) -> usize {
    match family {
        // It turns the heads of the first sequence alone.
        Theirs::Glm4 => 1,
        _ => 16,
    }
}
