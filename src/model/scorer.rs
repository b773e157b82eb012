//! A model with one scalar output: reward models and pairwise judges (Hugging Face's `…ForSequenceClassification`).

use std::path::Path;

use crate::error::Result;
use crate::model::trunk::{self, Keep, Trunk};
use crate::model::{Gradients, Llama, LlamaConfig, Packed, Parameters, Tape, Tensor, fast, files};
use crate::numerics::buffer::Buffer;
use crate::numerics::linear;
use crate::suite::settings::Numerics;

#[derive(Debug, Clone)]
pub struct Scorer {
    pub config: LlamaConfig,
    /// The transformer's tensors, and `score.weight`: (1, hidden).
    pub parameters: Parameters,
    /// What it computes with: that of the model it was made from, strict if loaded.
    pub numerics: Numerics,
    /// As of the model that it was made from.
    pub recomputes: bool,
}

const HEAD: &str = "score.weight";

impl Scorer {
    /// The transformer of `base` under a new random head.
    pub fn from_llama(base: &Llama, seed: u64) -> Self {
        let mut parameters = base.parameters.clone();
        for part in ["weight", "bias"] {
            parameters.remove(&format!("{}.{part}", base.config.family.names().head));
        }
        let config = base.config.clone();
        parameters.insert(HEAD, Tensor::normal(&[1, config.hidden_size], config.initializer_range, seed, HEAD));
        Self { config, parameters, numerics: base.numerics, recomputes: base.recomputes }
    }

    /// The same weights with every token seeing its whole sequence.
    ///
    /// Windows are left out, so that a sequence longer than [`LlamaConfig::longest_in_both_directions`] is seen as no such model sees it.
    ///
    /// # Panics
    /// Its passes, where a sequence shares its beginning with another.
    pub fn in_both_directions(mut self) -> Self {
        self.config.block.bidirectional = true;
        self
    }

    /// A Hugging Face folder of a sequence classifier with one label.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = files::read_config(folder)?;
        let parameters = files::read_tensors(folder, config.family)?;
        let mut expected = config.trunk_tensors();
        expected.push((HEAD.to_owned(), vec![1, config.hidden_size]));
        parameters.check(&expected).map_err(|e| e.in_file(folder))?;
        Ok(Self { config, parameters, numerics: Numerics::Strict, recomputes: false })
    }

    pub fn save(&self, folder: &Path) -> Result<()> {
        files::write(folder, &self.config.scorer_json(), &self.parameters)
    }

    fn trunk(&self) -> Trunk<'_> {
        Trunk { config: &self.config, parameters: &self.parameters, prepared: None, adapter: None, dropout: None }
    }

    /// One score a row of `rows` (packed rows, usually each sequence's last), with what [`Self::backward`] needs.
    pub fn forward(&self, packed: &Packed, rows: &[usize]) -> (Vec<f32>, Tape) {
        let tape = match self.numerics {
            Numerics::Strict => Tape::Strict(self.trunk().forward(packed, rows.iter().copied(), Keep::of(self.recomputes))),
            Numerics::Fast => Tape::Fast(fast::Pass::new(&self.config, &self.parameters, packed, true)),
        };
        let scores = match &tape {
            Tape::Strict(tape) => self.scores(tape, rows),
            Tape::Fast(pass) => pass.scores(HEAD, rows),
        };
        (scores, tape)
    }

    /// One score a row of `rows`; keeps nothing.
    pub fn score(&self, packed: &Packed, rows: &[usize]) -> Vec<f32> {
        match self.numerics {
            Numerics::Strict => self.scores(&self.trunk().forward(packed, rows.iter().copied(), Keep::Nothing), rows),
            Numerics::Fast => fast::Pass::new(&self.config, &self.parameters, packed, false).scores(HEAD, rows),
        }
    }

    fn scores(&self, tape: &trunk::Tape, rows: &[usize]) -> Vec<f32> {
        let x = self.trunk().gather(&tape.hidden, &tape.places(rows.iter().copied()));
        let (normed, _) = self.trunk().final_normed(&x);
        let mut scores = vec![0.0; rows.len()];
        linear::forward(&normed, &self.parameters.get(HEAD).values, self.config.hidden_size, &mut scores, false);
        scores
    }

    /// Accumulates into `grads` the gradients of Σ dscores[i] · score(rows[i]).
    pub fn backward(&self, tape: Tape, packed: &Packed, rows: &[usize], dscores: &[f32], grads: &mut Gradients) {
        assert_eq!(rows.len(), dscores.len(), "one gradient a row");
        let tape = match tape {
            Tape::Strict(tape) => tape,
            Tape::Fast(pass) => return pass.score_backward(HEAD, rows, dscores, grads),
        };
        let (trunk, hidden) = (self.trunk(), self.config.hidden_size);
        let places = tape.places(rows.iter().copied());
        let x = trunk.gather(&tape.hidden, &places);
        let (normed, spread) = trunk.final_normed(&x);
        linear::backward_weight(dscores, &normed, hidden, grads.get_mut(HEAD));
        let mut dnormed = Buffer::unspecified(normed.len());
        linear::backward_input(dscores, &self.parameters.get(HEAD).values, hidden, &mut dnormed, false);
        let mut dx = Buffer::zeros(x.len());
        trunk.final_norm_backward(&x, &spread, &dnormed, &mut dx, grads);
        let mut dhidden = Buffer::zeros(tape.hidden.len());
        trunk.scatter_add(&dx, &places, &mut dhidden);
        trunk.backward(tape, packed, dhidden, grads);
    }
}
