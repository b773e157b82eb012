//! What `config.json` says of a model, under the names that Hugging Face has for a Llama.

use std::collections::BTreeSet;
use std::path::Path;

use super::block::{self, Block, Family, Norm, Positions};
use super::names::{QK_NORMS, Qkv};
use crate::error::{Error, Result};
use crate::numerics::attention::Heads;
use crate::suite::settings::FreshModel;

#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    pub family: Family,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    /// Of norms of every kind.
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub initializer_range: f64,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    /// Usually one; some chat models name several.
    pub eos_token_id: Vec<u32>,
    pub pad_token_id: Option<u32>,
    pub block: Block,
}

impl LlamaConfig {
    /// Reads the `config.json` of a folder.
    pub fn load(folder: &Path) -> Result<Self> {
        super::files::read_config(folder)
    }

    pub fn fresh(model: &FreshModel, vocab_size: usize, bos: u32, eos: u32) -> Self {
        Self {
            family: Family::Llama,
            vocab_size,
            hidden_size: model.hidden_size,
            intermediate_size: model.intermediate_size,
            num_hidden_layers: model.num_hidden_layers,
            num_attention_heads: model.num_attention_heads,
            num_key_value_heads: model.num_key_value_heads,
            head_dim: model.hidden_size / model.num_attention_heads,
            max_position_embeddings: model.max_position_embeddings,
            rms_norm_eps: model.rms_norm_eps,
            rope_theta: model.rope_theta,
            initializer_range: model.initializer_range,
            tie_word_embeddings: model.tie_word_embeddings,
            bos_token_id: Some(bos),
            eos_token_id: vec![eos],
            pad_token_id: None,
            block: Block::default(),
        }
    }

    pub fn from_json(text: &str) -> Result<Self> {
        super::keys::read(text)
    }

    /// An error when the sizes contradict each other.
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::input(message));
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
            return wrong(format!("num_attention_heads = {heads} is no multiple of num_key_value_heads = {kv}"));
        }
        if self.head_dim == 0 || self.block.positions == Positions::Rotary && !self.head_dim.is_multiple_of(2) {
            return wrong(format!("head_dim = {} is not a positive even number", self.head_dim));
        }
        if let Positions::PartlyRotary { share } = self.block.positions
            && !(0.0 < share && share < 1.0 && self.turned() > 0 && self.turned().is_multiple_of(2))
        {
            return wrong(format!(
                "a share of {share} of head_dim = {} is not an even number of elements that rotary positions turn",
                self.head_dim
            ));
        }
        if self.rope_theta <= 0.0 || self.rms_norm_eps < 0.0 {
            return wrong("rope_theta must be positive and the norms' epsilon not negative".to_owned());
        }
        Ok(())
    }

    /// How many keys a query of this layer sees, its own included; none: all.
    pub(crate) fn window(&self, layer: usize) -> Option<usize> {
        self.block.windows.get(layer).copied().flatten()
    }

    /// The different windows of what the layers' queries see.
    pub(crate) fn windows(&self) -> BTreeSet<Option<usize>> {
        (0..self.num_hidden_layers).map(|layer| self.heads_in(layer).window).collect()
    }

    /// How long a text an encoder made of this model reads: in both directions a window would cut what a query sees at both ends, which
    /// isn't computed here, so that texts must fit into it.
    pub(crate) fn longest_in_both_directions(&self) -> usize {
        self.block.windows.iter().flatten().copied().chain([self.max_position_embeddings]).min().unwrap_or_default()
    }

    /// Of each head's elements how many, from the first on, are turned by position.
    pub(crate) fn turned(&self) -> usize {
        match self.block.positions {
            Positions::Rotary => self.head_dim,
            Positions::PartlyRotary { share } => (self.head_dim as f64 * share) as usize,
            Positions::Learned => 0,
        }
    }

    /// Whether layers with a window turn by other angles than those without.
    pub(crate) fn has_window_rope(&self) -> bool {
        self.block.window_rope_theta.is_some()
    }

    /// Radians a position for each pair of a head that is turned; `windowed`: in layers with a window, where they have their own.
    pub(crate) fn frequencies(&self, windowed: bool) -> Vec<f64> {
        match self.block.window_rope_theta.filter(|_| windowed) {
            Some(theta) => block::frequencies(self.turned(), theta, None),
            None => block::frequencies(self.turned(), self.rope_theta, self.block.rope_scaling.as_ref()),
        }
    }

    /// What token embeddings are multiplied by.
    pub(crate) fn embedding_scale(&self) -> Option<f32> {
        self.block.scaled_embeddings.then(|| (self.hidden_size as f64).sqrt() as f32)
    }

    /// What the queries of this layer see.
    pub(crate) fn heads_in(&self, layer: usize) -> Heads {
        Heads { window: self.window(layer).filter(|_| !self.block.bidirectional), ..self.heads() }
    }

    pub(crate) fn heads(&self) -> Heads {
        Heads {
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            window: None,
            bidirectional: self.block.bidirectional,
            scale: self.block.query_pre_attn_scalar.map(|scalar| (1.0 / scalar.sqrt()) as f32),
            cap: self.block.score_cap.map(|cap| cap as f32),
        }
    }

    /// Name and shape of every tensor of the transformer below its head.
    pub(crate) fn trunk_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, names, block) = (self.hidden_size, self.family.names(), &self.block);
        let mut tensors = vec![(format!("{}.weight", names.embedding), vec![self.vocab_size, hidden])];
        if block.positions == Positions::Learned {
            tensors.push((format!("{}.weight", names.positions), vec![self.max_position_embeddings, hidden]));
        }
        self.norm_tensors(names.final_norm.to_owned(), &mut tensors);
        for layer in 0..self.num_hidden_layers {
            for norm in self.norms_of_a_layer() {
                self.norm_tensors(names.in_layer(layer, norm), &mut tensors);
            }
            for norm in QK_NORMS.into_iter().filter(|_| block.qk_norm) {
                tensors.push((names.in_layer(layer, norm) + ".weight", vec![self.head_dim]));
            }
            for LinearPart { part, outputs, inputs, bias } in self.linears() {
                let shape = if self.family.stores_inputs_first() { [inputs, outputs] } else { [outputs, inputs] };
                tensors.push((names.in_layer(layer, part) + ".weight", shape.to_vec()));
                if bias {
                    tensors.push((names.in_layer(layer, part) + ".bias", vec![outputs]));
                }
            }
        }
        tensors
    }

    fn norm_tensors(&self, name: String, tensors: &mut Vec<(String, Vec<usize>)>) {
        tensors.push((format!("{name}.weight"), vec![self.hidden_size]));
        if self.block.norm == Norm::Layer {
            tensors.push((format!("{name}.bias"), vec![self.hidden_size]));
        }
    }

    /// Those over the whole width.
    fn norms_of_a_layer(&self) -> BTreeSet<&'static str> {
        let names = self.family.names();
        let branches = if self.block.residual == block::Residual::NormedBranches { &names.branch_norms[..] } else { &[] };
        [names.attention_norm, names.mlp_norm].into_iter().chain(branches.iter().copied()).collect()
    }

    /// The linear layers of a layer.
    pub(crate) fn linears(&self) -> Vec<LinearPart> {
        let (hidden, inner, names, block) = (self.hidden_size, self.intermediate_size, self.family.names(), &self.block);
        let (q, kv) = (self.heads().query_width(), self.heads().key_width());
        let part = |part, outputs, inputs, bias| LinearPart { part, outputs, inputs, bias };
        let mut parts = match names.qkv {
            Qkv::Apart(names) => {
                names.into_iter().zip([q, kv, kv]).map(|(name, outputs)| part(name, outputs, hidden, block.qkv_bias)).collect()
            }
            Qkv::Thirds(name) | Qkv::ByHead(name) => vec![part(name, q + 2 * kv, hidden, block.qkv_bias)],
        };
        parts.push(part(names.output, hidden, q, block.output_bias));
        parts.extend(names.mlp_in.iter().map(|name| part(*name, inner, hidden, block.mlp_bias)));
        parts.push(part(names.mlp_out, hidden, inner, block.mlp_bias));
        parts
    }
}

/// A linear layer of a transformer layer.
pub(crate) struct LinearPart {
    /// Where it stands in the layer.
    pub part: &'static str,
    pub outputs: usize,
    pub inputs: usize,
    pub bias: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2"#;

    #[test]
    fn a_configuration_survives_writing_and_reading() {
        let config = LlamaConfig::from_json(&format!("{SMALL}, \"eos_token_id\": [3, 4], \"head_dim\": 6}}")).unwrap();
        assert_eq!(config.num_key_value_heads, 2);
        assert_eq!(LlamaConfig::from_json(&config.causal_json()).unwrap(), config);
    }

    #[test]
    fn both_generations_of_rope_keys_are_read() {
        let old = LlamaConfig::from_json(&format!("{SMALL}, \"rope_theta\": 5e5}}")).unwrap();
        let new = format!("{SMALL}, \"rope_parameters\": {{\"rope_theta\": 5e5, \"rope_type\": \"default\"}}}}");
        assert_eq!(old, LlamaConfig::from_json(&new).unwrap());
    }

    #[test]
    fn what_would_change_results_is_refused_by_name() {
        let cases = [
            ("\"attention_bias\": \"all\"", "attention_bias"),
            ("\"attention_dropout\": 0.1", "attention_dropout"),
            ("\"embedding_multiplier\": 12.0", "embedding_multiplier"),
            ("\"sliding_window\": 7", "sliding_window"),
            ("\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}", "dynamic"),
            ("\"rope_scaling\": {\"rope_type\": \"linear\"}", "factor"),
            ("\"rope_parameters\": {\"rope_type\": \"default\", \"mrope_section\": [1]}", "mrope_section"),
            ("\"hidden_act\": \"gelu\"", "hidden_act"),
            ("\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}", "low_freq_factor"),
            ("\"num_key_value_heads\": 3", "num_key_value_heads"),
            ("\"vocab_size\": -1", "vocab_size"),
            ("\"rms_norm_eps\": \"small\"", "rms_norm_eps"),
        ];
        for (line, key) in cases {
            let message = LlamaConfig::from_json(&format!("{SMALL}, {line}}}")).unwrap_err().message;
            assert!(message.contains(key), "{message}");
        }
    }

    /// Reads a configuration of this family with these further keys.
    fn of(family: &str, keys: &str) -> Result<LlamaConfig> {
        LlamaConfig::from_json(&format!("{}, \"num_key_value_heads\": 2{keys}}}", SMALL.replace("llama", family)))
    }

    #[test]
    fn every_family_survives_writing_and_reading_with_all_that_is_its_own() {
        let scaling = [
            "\"linear\"",
            "\"llama3\", \"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 32",
        ];
        let window = ", \"use_sliding_window\": true, \"sliding_window\": 3, \"max_window_layers\": 0";
        for rope in scaling.map(|kind| format!(", \"rope_scaling\": {{\"factor\": 2.5, \"rope_type\": {kind}}}")) {
            for (family, own) in [
                ("llama", ", \"attention_bias\": true, \"mlp_bias\": true"),
                ("mistral", ", \"sliding_window\": 3"),
                ("mistral", ", \"sliding_window\": null"),
                ("qwen2", ""),
                ("qwen2", window),
                ("qwen3", ", \"attention_bias\": true"),
                ("qwen3", window),
            ] {
                let config = of(family, &format!("{own}{rope}")).unwrap();
                assert_eq!(LlamaConfig::from_json(&config.causal_json()).unwrap(), config);
                let class = format!("\"{}\"", config.family.classes()[1]);
                assert!(config.scorer_json().contains(&class), "{class}");
            }
        }
    }

    #[test]
    fn windows_are_those_of_the_layers_that_have_them() {
        let layers = ", \"num_hidden_layers\": 3";
        let windows = |family: &str, keys: &str| of(family, &format!("{layers}{keys}")).unwrap().block.windows;
        assert_eq!(windows("mistral", ", \"sliding_window\": 9"), [Some(9); 3]);
        assert_eq!(windows("mistral", ", \"sliding_window\": null"), []);
        assert_eq!(windows("mistral", ""), [Some(4096); 3]);
        let used = ", \"use_sliding_window\": true, \"sliding_window\": 9";
        assert_eq!(windows("qwen2", &format!("{used}, \"max_window_layers\": 1")), [None, Some(9), Some(9)]);
        assert_eq!(windows("qwen2", ", \"sliding_window\": 9, \"max_window_layers\": 1"), []);
        let types = ", \"layer_types\": [\"sliding_attention\", \"full_attention\", \"full_attention\"]";
        assert_eq!(windows("qwen3", &format!("{used}{types}")), [Some(9), None, None]);
        assert!(of("qwen3", &format!("{layers}{types}")).unwrap_err().message.contains("layer_types"));
    }

    #[test]
    fn what_would_change_results_in_the_other_families_is_refused_by_name() {
        let gpt2 = r#"{"model_type": "gpt2", "vocab_size": 8, "n_embd": 8, "n_layer": 1, "n_head": 2"#.to_owned();
        let sized = |family: &str| SMALL.replace("llama", family);
        let kv = ", \"num_key_value_heads\": 2";
        for (json, keys, name) in [
            (gpt2.clone(), "\"scale_attn_by_inverse_layer_idx\": true", "scale_attn_by_inverse_layer_idx"),
            (gpt2.clone(), "\"scale_attn_weights\": false", "scale_attn_weights"),
            (gpt2.clone(), "\"add_cross_attention\": true", "add_cross_attention"),
            (gpt2.clone(), "\"activation_function\": \"relu\"", "activation_function"),
            (gpt2.clone(), "\"head_dim\": 3", "head_dim"),
            (gpt2.replace("\"n_head\": 2", "\"n_head\": 3"), "\"n_inner\": 3", "multiple of 3"),
            (sized("gpt_neox"), "\"rotary_pct\": 0.3", "0.3"),
            (sized("gpt_neox"), "\"rotary_pct\": 0.5, \"partial_rotary_factor\": 1.0", "partial_rotary_factor"),
            (sized("gpt_neox"), "\"hidden_act\": \"silu\"", "hidden_act"),
            (sized("gpt_neox"), "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}", "dynamic"),
            (sized("gpt_neox"), "\"rms_norm_eps\": 1e-5", "rms_norm_eps"),
            (sized("phi"), "\"qk_layernorm\": true", "qk_layernorm"),
            (sized("gemma") + kv, "\"hidden_activation\": \"gelu\"", "hidden_activation"),
            (sized("gemma") + kv, "\"attn_logit_softcapping\": 5.0", "attn_logit_softcapping"),
            (sized("gemma2") + kv, "\"use_bidirectional_attention\": true", "use_bidirectional_attention"),
            (sized("gemma2") + kv, "\"attn_logit_softcapping\": -5.0", "attn_logit_softcapping"),
            (sized("gemma2") + kv, "\"layer_types\": [\"chunked_attention\"]", "layer_types"),
            (sized("gemma3_text") + kv, "\"rope_parameters\": {\"full_attention\": {}, \"other\": {}}", "other"),
            (sized("gemma3_text") + kv, "\"attn_logit_softcapping\": 5.0", "attn_logit_softcapping"),
            (sized("gemma3"), "\"text_config\": {}", "gemma3"),
        ] {
            let message = LlamaConfig::from_json(&format!("{json}, {keys}}}")).unwrap_err().message;
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn both_generations_of_gemma3s_and_neoxs_rope_keys_are_read() {
        let read = |family: &str, keys: &str| {
            let wide = SMALL.replace("llama", family).replace("\"hidden_size\": 8", "\"hidden_size\": 16");
            LlamaConfig::from_json(&format!("{wide}{keys}}}")).unwrap()
        };
        let old = ", \"num_key_value_heads\": 2, \"rope_theta\": 1000, \"rope_local_base_freq\": 50, \
            \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8}";
        let new = ", \"num_key_value_heads\": 2, \"rope_parameters\": {\"sliding_attention\": {\"rope_theta\": 50}, \
            \"full_attention\": {\"rope_type\": \"linear\", \"factor\": 8, \"rope_theta\": 1000}}";
        assert_eq!(read("gemma3_text", old), read("gemma3_text", new));
        assert_eq!(read("gemma3_text", old).block.window_rope_theta, Some(50.0));
        let old = ", \"rotary_pct\": 0.5, \"rotary_emb_base\": 500";
        let new = ", \"rope_parameters\": {\"rope_theta\": 500, \"partial_rotary_factor\": 0.5, \"rope_type\": \"default\"}";
        assert_eq!(read("gpt_neox", old), read("gpt_neox", new));
        assert_eq!(
            (read("gpt_neox", "").rope_theta, read("gpt_neox", "").block.positions),
            (1e4, Positions::PartlyRotary { share: 0.25 })
        );
    }

    #[test]
    fn a_key_of_another_family_and_an_unknown_family_are_refused_by_name() {
        for (family, keys, name) in [
            ("mistral", ", \"attention_bias\": true", "attention_bias"),
            ("qwen2", ", \"mlp_bias\": true", "mlp_bias"),
            ("olmo", "", "olmo"),
        ] {
            assert!(of(family, keys).unwrap_err().message.contains(name));
        }
        let missing = LlamaConfig::from_json(&format!("{}}}", SMALL.replace("llama", "mistral"))).unwrap_err();
        assert!(missing.message.contains("num_key_value_heads"));
        assert_eq!(of("qwen3", "").unwrap().head_dim, 128);
    }
}
