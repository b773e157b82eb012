//! The causal language model: token log-probabilities and their gradients.

use std::path::Path;

use crate::error::{Error, Result};
use crate::model::block::Norm;
use crate::model::dropout::{Masks, PassMasks};
use crate::model::lora::Applied;
use crate::model::norms::{Spread, Use};
use crate::model::trunk::{self, Keep, Trunk};
use crate::model::{Adapter, Gradients, LlamaConfig, Packed, Parameters, Tape, Target, Tensor, fast, files};
use crate::numerics::attention::Queries;
use crate::numerics::buffer::Buffer;
use crate::numerics::logprob::{self, TokenScore};
use crate::numerics::{linear, matrix, softcap};
use crate::suite::settings::{FreshModel, Numerics};

/// Target rows whose logits exist at one time.
const CHUNK: usize = 256;

/// (1, hidden): the value head of a policy that PPO trains, under the name that TRL gives it. It is no part of the model.
pub(crate) const VALUE_HEAD: &str = "v_head.weight";

fn rows_of(targets: &[Target]) -> impl Iterator<Item = usize> {
    targets.iter().map(|t| t.row)
}

fn tokens_of(targets: &[Target]) -> Vec<u32> {
    targets.iter().map(|t| t.token).collect()
}

#[derive(Debug, Clone)]
pub struct Llama {
    pub config: LlamaConfig,
    pub parameters: Parameters,
    /// What is trained in place of `parameters`, which it freezes; none as made or loaded.
    pub adapter: Option<Adapter>,
    /// What it computes with; strict as made or loaded.
    pub numerics: Numerics,
    /// Whether the backward pass computes layers again of which the forward pass kept the input alone, with the same bits.
    pub recomputes: bool,
}

impl Llama {
    /// A Llama of this shape with random weights.
    pub fn fresh(model: &FreshModel, vocab_size: usize, bos: u32, eos: u32, seed: u64) -> Self {
        Self::random(LlamaConfig::fresh(model, vocab_size, bos, eos), seed)
    }

    /// Random weights: norms 1, biases 0, everything else normal with standard deviation `initializer_range`.
    pub fn random(config: LlamaConfig, seed: u64) -> Self {
        let one = if config.block.norm == Norm::RmsOfOnePlus { 0.0 } else { 1.0 };
        let mut parameters = Parameters::new();
        for (name, shape) in Self::tensors(&config) {
            let tensor = match shape.len() {
                _ if name.ends_with(".bias") => Tensor::filled(&shape, 0.0),
                1 => Tensor::filled(&shape, one),
                _ => Tensor::normal(&shape, config.initializer_range, seed, &name),
            };
            parameters.insert(name, tensor);
        }
        Self { config, parameters, adapter: None, numerics: Numerics::Strict, recomputes: false }
    }

    /// Name and shape of every tensor.
    pub(super) fn tensors(config: &LlamaConfig) -> Vec<(String, Vec<usize>)> {
        let (mut tensors, head) = (config.trunk_tensors(), config.family.names().head);
        if !config.tie_word_embeddings {
            tensors.push((format!("{head}.weight"), vec![config.vocab_size, config.hidden_size]));
        }
        if config.block.head_bias {
            tensors.push((format!("{head}.bias"), vec![config.vocab_size]));
        }
        tensors
    }

    /// How many weights a model of this shape has.
    pub fn size(config: &LlamaConfig) -> usize {
        Self::tensors(config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// A Hugging Face folder of a causal language model.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = files::read_config(folder)?;
        if config.block.bidirectional {
            return Err(Error::input("`is_causal` is false: a model whose tokens see those after them gives no next token")
                .in_file(folder.join("config.json"))
                .help("an encoder can't be a policy or its reference; give a causal language model"));
        }
        let mut parameters = files::read_tensors(folder, config.family)?;
        let names = config.family.names();
        let [head, embedding] = [names.head, names.embedding].map(|name| format!("{name}.weight"));
        if config.tie_word_embeddings
            && let Some(found) = parameters.remove(&head)
            && parameters.find(&embedding).is_some_and(|embedding| found != *embedding)
        {
            let message = format!("tie_word_embeddings is true, but {head} differs from {embedding}");
            return Err(Error::input(message).in_file(folder));
        }
        parameters.check(&Self::tensors(&config)).map_err(|e| e.in_file(folder))?;
        Ok(Self { config, parameters, adapter: None, numerics: Numerics::Strict, recomputes: false })
    }

    /// The same model in this arithmetic.
    pub fn with_numerics(self, numerics: Numerics) -> Self {
        Self { numerics, ..self }
    }

    /// The same base under another adapter; an error that names the tensors that don't fit.
    ///
    /// # Panics
    /// In the fast arithmetic, which has no adapters.
    pub fn with_adapter(self, adapter: Adapter) -> Result<Self> {
        assert_eq!(self.numerics, Numerics::Strict, "adapters are computed in the strict arithmetic");
        let adapter = adapter.of_family(self.config.family);
        adapter.check(&self.config)?;
        Ok(Self { adapter: Some(adapter), ..self })
    }

    /// The model without an adapter beside it: its weights are W + s · (B A).
    pub fn merged(self) -> Self {
        match self.adapter {
            None => self,
            Some(adapter) => Self { parameters: adapter.merged(&self.config, self.parameters), adapter: None, ..self },
        }
    }

    /// With a value head that says 0 of everything.
    pub fn with_value_head(mut self) -> Self {
        self.parameters.insert(VALUE_HEAD, Tensor::filled(&[1, self.config.hidden_size], 0.0));
        self
    }

    /// What training changes: the adapter's tensors where there is one, else all weights.
    pub fn trained(&self) -> &Parameters {
        self.adapter.as_ref().map_or(&self.parameters, |adapter| &adapter.parameters)
    }

    pub fn trained_mut(&mut self) -> &mut Parameters {
        match &mut self.adapter {
            Some(adapter) => &mut adapter.parameters,
            None => &mut self.parameters,
        }
    }

    /// Writes `config.json` and `model.safetensors`, of the base where there is an adapter.
    pub fn save(&self, folder: &Path) -> Result<()> {
        files::write(folder, &self.config.causal_json(), &self.parameters)
    }

    pub(super) fn trunk(&self) -> Trunk<'_> {
        self.trunk_under(&PassMasks { adapter: None, residual: None })
    }

    /// The trunk under dropout.
    fn trunk_under<'a>(&'a self, masks: &'a PassMasks) -> Trunk<'a> {
        let adapter =
            self.adapter.as_ref().map(|adapter| Applied { adapter, family: self.config.family, masks: masks.adapter.as_ref() });
        let dropout = masks.residual.as_ref();
        Trunk { config: &self.config, parameters: &self.parameters, prepared: None, adapter, dropout }
    }

    pub(super) fn head_name(&self) -> String {
        let names = self.config.family.names();
        format!("{}.weight", if self.config.tie_word_embeddings { names.embedding } else { names.head })
    }

    fn head_bias(&self) -> Option<(String, &[f32])> {
        let name = format!("{}.bias", self.config.family.names().head);
        self.config.block.head_bias.then(|| (name.clone(), &self.parameters.get(&name).values[..]))
    }

    fn logit_cap(&self) -> Option<f32> {
        self.config.block.logit_cap.map(|cap| cap as f32)
    }

    /// (rows, vocabulary) ← `normed`: (rows, hidden) through the head.
    pub(super) fn logits(&self, normed: &[f32]) -> Buffer {
        self.logits_by(self.trunk(), normed)
    }

    /// [`Self::logits`] by a trunk of this model, prepared or not.
    pub(super) fn logits_by(&self, trunk: Trunk, normed: &[f32]) -> Buffer {
        let mut logits = Buffer::unspecified(normed.len() / self.config.hidden_size * self.config.vocab_size);
        let bias = self.head_bias();
        if let Some((_, bias)) = bias {
            matrix::fill_rows(bias, &mut logits);
        }
        trunk.product(&self.head_name(), normed, &mut logits, self.config.block.head_bias);
        if let Some(cap) = self.logit_cap() {
            softcap::forward(cap, &mut logits);
        }
        logits
    }

    /// The forward pass for `targets`, with everything that [`Self::backward`] needs.
    ///
    /// # Panics
    /// Here and below, when a token lies outside the vocabulary; see [`Packed::check`].
    pub fn forward(&self, packed: &Packed, targets: &[Target]) -> Tape {
        self.pass(packed, targets, true)
    }

    /// [`Self::forward`] under the dropout of the adapter, of what attention and MLP add to the residual stream, or of both. States: one a
    /// packed row, from which its masks are derived; `residual` has its share too. The backward pass applies the same masks.
    ///
    /// # Panics
    /// In the fast arithmetic, which has no dropout.
    pub fn forward_under_dropout(
        &self,
        packed: &Packed,
        targets: &[Target],
        adapter: Option<Vec<u64>>,
        residual: Option<(f64, Vec<u64>)>,
    ) -> Tape {
        assert_eq!(self.numerics, Numerics::Strict, "dropout is computed in the strict arithmetic");
        let asked = Queries::covering(packed.segments(), rows_of(targets));
        let of_adapter = self.adapter.as_ref().zip(adapter);
        let masks = PassMasks {
            adapter: of_adapter.map(|(adapter, states)| Masks::new(adapter.settings.lora_dropout, states, &asked)),
            residual: residual.map(|(share, states)| Masks::new(share, states, &asked)),
        };
        let mut tape = self.trunk_under(&masks).forward(packed, rows_of(targets), self.keep(true));
        tape.masks = masks;
        Tape::Strict(tape)
    }

    fn pass(&self, packed: &Packed, targets: &[Target], keep: bool) -> Tape {
        match self.numerics {
            Numerics::Strict => Tape::Strict(self.trunk().forward(packed, rows_of(targets), self.keep(keep))),
            Numerics::Fast => Tape::Fast(self.fast_pass(packed, keep)),
        }
    }

    fn keep(&self, keep: bool) -> Keep {
        if keep { Keep::of(self.recomputes) } else { Keep::Nothing }
    }

    fn fast_pass(&self, packed: &Packed, trained: bool) -> fast::Pass {
        fast::Pass::new(&self.config, &self.parameters, packed, trained)
    }

    /// One score a target; keeps nothing.
    pub fn score(&self, packed: &Packed, targets: &[Target]) -> Vec<TokenScore> {
        self.token_scores(&self.pass(packed, targets, false), targets)
    }

    /// [`Self::score`] and [`Self::values`] of one pass.
    pub fn score_valued(&self, packed: &Packed, targets: &[Target]) -> (Vec<TokenScore>, Vec<f32>) {
        let tape = self.pass(packed, targets, false);
        (self.token_scores(&tape, targets), self.values(&tape, targets))
    }

    /// One score a target. Logits exist for target rows only, a chunk at a time.
    pub fn token_scores(&self, tape: &Tape, targets: &[Target]) -> Vec<TokenScore> {
        match tape {
            Tape::Strict(tape) => targets.chunks(CHUNK).flat_map(|chunk| self.chunk_scores(tape, chunk)).collect(),
            Tape::Fast(pass) => pass.token_scores(&self.head_name(), targets),
        }
    }

    /// (targets, hidden): the last layer's states, after the final norm, from which each target is predicted. In the strict arithmetic
    /// whatever the model computes with.
    pub fn hidden_states(&self, packed: &Packed, targets: &[Target]) -> Buffer {
        let trunk = self.trunk();
        let tape = trunk.forward(packed, rows_of(targets), Keep::Nothing);
        trunk.final_normed(&trunk.gather(&tape.hidden, &tape.places(rows_of(targets)))).0
    }

    /// What the value head says at the rows of `targets`, one number each: of the text before the target's token.
    ///
    /// # Panics
    /// Without such a head, and in the fast arithmetic, which has none.
    pub fn values(&self, tape: &Tape, targets: &[Target]) -> Vec<f32> {
        let Tape::Strict(tape) = tape else { panic!("the fast arithmetic has no value head") };
        let mut values = vec![0.0; targets.len()];
        for (chunk, values) in targets.chunks(CHUNK).zip(values.chunks_mut(CHUNK)) {
            let x = self.trunk().gather(&tape.hidden, &tape.places(rows_of(chunk)));
            let (normed, _) = self.trunk().final_normed(&x);
            linear::forward(&normed, &self.parameters.get(VALUE_HEAD).values, self.config.hidden_size, values, false);
        }
        values
    }

    /// What the value head says of a text whose last state, after the final norm, is `state`: (hidden,). The bits are those of
    /// [`Self::values`].
    ///
    /// # Panics
    /// Without such a head.
    pub fn value_of(&self, state: &[f32]) -> f32 {
        let mut value = [0.0];
        linear::forward(state, &self.parameters.get(VALUE_HEAD).values, self.config.hidden_size, &mut value, false);
        value[0]
    }

    fn chunk_logits(&self, tape: &trunk::Tape, chunk: &[Target]) -> Buffer {
        let x = self.trunk().gather(&tape.hidden, &tape.places(rows_of(chunk)));
        self.logits(&self.trunk().final_normed(&x).0)
    }

    fn chunk_scores(&self, tape: &trunk::Tape, chunk: &[Target]) -> Vec<TokenScore> {
        self.scores_of(&self.chunk_logits(tape, chunk), chunk)
    }

    /// One score a target from its row of `logits`: (targets, vocabulary).
    fn scores_of(&self, logits: &[f32], chunk: &[Target]) -> Vec<TokenScore> {
        logprob::scores(logits, self.config.vocab_size, &tokens_of(chunk))
    }

    /// Accumulates into `grads` the gradients of Σ dlogps[i] · logp(targets[i]) for every weight. Weight gradients continue
    /// their chains over packed rows (over targets, for the head), so several calls equal one undivided batch.
    ///
    /// Under an adapter the gradients are its own, and no other weight has any.
    pub fn backward(&self, tape: Tape, packed: &Packed, targets: &[Target], dlogps: &[f32], grads: &mut Gradients) {
        self.backward_valued(tape, packed, targets, dlogps, None, grads);
    }

    /// [`Self::backward`] of Σ dlogps[i] · logp(targets[i]) + Σ dvalues[i] · value(targets[i]), see [`Self::values`].
    ///
    /// # Panics
    /// With `dvalues` in the fast arithmetic, which has no value head.
    pub fn backward_valued(
        &self,
        tape: Tape,
        packed: &Packed,
        targets: &[Target],
        dlogps: &[f32],
        dvalues: Option<&[f32]>,
        grads: &mut Gradients,
    ) {
        assert!(dvalues.is_none_or(|dvalues| dvalues.len() == targets.len()), "one gradient a target");
        assert_eq!(targets.len(), dlogps.len(), "one gradient a target");
        let mut tape = match tape {
            Tape::Strict(tape) => tape,
            Tape::Fast(pass) => {
                assert!(dvalues.is_none(), "the fast arithmetic has no value head");
                return pass.token_backward(&self.head_name(), targets, dlogps, grads);
            }
        };
        let mut dhidden = Buffer::zeros(tape.hidden.len());
        for (at, (chunk, dlogps)) in targets.chunks(CHUNK).zip(dlogps.chunks(CHUNK)).enumerate() {
            let dvalues = dvalues.map(|dvalues| &dvalues[at * CHUNK..][..chunk.len()]);
            self.chunk_backward(&tape, chunk, dlogps, dvalues, &mut dhidden, grads);
        }
        let masks = std::mem::take(&mut tape.masks);
        self.trunk_under(&masks).backward(tape, packed, dhidden, grads);
    }

    fn chunk_backward(
        &self,
        tape: &trunk::Tape,
        chunk: &[Target],
        dlogps: &[f32],
        dvalues: Option<&[f32]>,
        dhidden: &mut [f32],
        grads: &mut Gradients,
    ) {
        let (trunk, hidden) = (self.trunk(), self.config.hidden_size);
        let places = tape.places(rows_of(chunk));
        let x = trunk.gather(&tape.hidden, &places);
        let (normed, spread): (Buffer, Spread) = trunk.final_normed(&x);
        let mut dlogits = self.logits(&normed);
        let capped = self.logit_cap().map(|cap| (cap, Buffer::copy_of(&dlogits)));
        logprob::backward_rows(&mut dlogits, self.config.vocab_size, &tokens_of(chunk), dlogps);
        if let Some((cap, logits)) = capped {
            softcap::backward(cap, &logits, &mut dlogits);
        }
        let head = self.head_name();
        if self.adapter.is_none() {
            let of = if self.config.tie_word_embeddings { Use::Second } else { Use::First };
            linear::backward_weight(&dlogits, &normed, hidden, grads.of_use(&head, of));
            if let Some((bias, _)) = self.head_bias() {
                linear::backward_bias(&dlogits, grads.get_mut(&bias));
            }
        }
        let mut dnormed = Buffer::unspecified(normed.len());
        linear::backward_input(&dlogits, &self.parameters.get(&head).values, hidden, &mut dnormed, false);
        if let Some(dvalues) = dvalues {
            linear::backward_weight(dvalues, &normed, hidden, grads.get_mut(VALUE_HEAD));
            linear::backward_input(dvalues, &self.parameters.get(VALUE_HEAD).values, hidden, &mut dnormed, true);
        }
        let mut dx = Buffer::zeros(x.len());
        trunk.final_norm_backward(&x, &spread, &dnormed, &mut dx, grads);
        trunk.scatter_add(&dx, &places, dhidden);
    }
}

/// What two models say about the same targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub policy: Vec<TokenScore>,
    pub reference: Vec<TokenScore>,
    /// KL(policy ‖ reference) over the whole vocabulary at each target's row, nats; the targets' tokens don't enter.
    pub kl: Vec<f32>,
}

/// Both models' scores of every target, and the divergence of their next-token distributions there.
///
/// # Panics
/// When the two models have different vocabularies or arithmetics.
pub fn compare(policy: &Llama, reference: &Llama, packed: &Packed, targets: &[Target]) -> Comparison {
    let vocabulary = policy.config.vocab_size;
    assert_eq!(vocabulary, reference.config.vocab_size, "policy and reference have one vocabulary");
    let (tape, tape_ref) = match (policy.pass(packed, targets, false), reference.pass(packed, targets, false)) {
        (Tape::Strict(p), Tape::Strict(r)) => (p, r),
        (Tape::Fast(p), Tape::Fast(r)) => {
            let heads = [policy.head_name(), reference.head_name()];
            let kl = p.token_kl(&r, [&heads[0], &heads[1]], targets);
            return Comparison { policy: p.token_scores(&heads[0], targets), reference: r.token_scores(&heads[1], targets), kl };
        }
        _ => panic!("policy and reference compute alike"),
    };
    let mut all = Comparison { policy: Vec::new(), reference: Vec::new(), kl: vec![0.0; targets.len()] };
    for (chunk, kls) in targets.chunks(CHUNK).zip(all.kl.chunks_mut(CHUNK)) {
        let (p, r) = (policy.chunk_logits(&tape, chunk), reference.chunk_logits(&tape_ref, chunk));
        logprob::kls(&p, &r, vocabulary, kls);
        all.policy.extend(policy.scores_of(&p, chunk));
        all.reference.extend(reference.scores_of(&r, chunk));
    }
    all
}
