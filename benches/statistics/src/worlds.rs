//! Made-up data whose truth is known: what judges, verdicts, lengths and divergences look like, prompts shared by samples.

use dpo_eval_rng::Stream;
use dpo_eval_statistics::logistic::logistic;

/// Values with their prompt.
pub type Items = Vec<(usize, f64)>;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A judge's preference σ(shift + prompt + sample).
    Soft,
    /// A verdict drawn with that chance.
    Hard,
    /// A log-probability difference: a normal prompt, a normal sample.
    Margin,
    /// A divergence: positive, its prompt's level log-normal.
    Divergence,
}

#[derive(Debug, Clone, Copy)]
pub struct World {
    pub name: &'static str,
    pub kind: Kind,
    pub shift: f64,
    pub prompt_spread: f64,
    pub sample_spread: f64,
    pub samples: usize,
}

const fn world(name: &'static str, kind: Kind, shift: f64, prompt_spread: f64, sample_spread: f64, samples: usize) -> World {
    World { name, kind, shift, prompt_spread, sample_spread, samples }
}

/// The judges of the quickstart spread their logits by 0.5 to 1.5; large ones are nearly always sure (`sharp`).
pub const WORLDS: [World; 16] = [
    world("even judge", Kind::Soft, 0.0, 1.0, 0.7, 2),
    world("even judge (one sample)", Kind::Soft, 0.0, 1.0, 0.7, 1),
    world("judge that leans", Kind::Soft, 1.0, 1.0, 0.7, 2),
    world("judge that leans far", Kind::Soft, 2.0, 1.0, 0.7, 2),
    world("judge that leans far (one sample)", Kind::Soft, 2.0, 1.5, 1.0, 1),
    world("judge that leans very far", Kind::Soft, 3.0, 1.0, 0.7, 2),
    world("sharp even judge", Kind::Soft, 0.0, 5.0, 3.0, 2),
    world("sharp judge that leans", Kind::Soft, 3.0, 5.0, 3.0, 2),
    world("sharp judge that leans far (one sample)", Kind::Soft, 7.0, 5.0, 3.0, 1),
    world("even verdicts", Kind::Hard, 0.0, 1.0, 0.7, 2),
    world("even verdicts (one sample)", Kind::Hard, 0.0, 1.0, 0.7, 1),
    world("verdicts that lean", Kind::Hard, 1.5, 1.0, 0.7, 4),
    world("verdicts that lean far (one sample)", Kind::Hard, 2.0, 1.0, 0.7, 1),
    world("margins", Kind::Margin, 0.3, 1.0, 2.0, 2),
    world("divergences", Kind::Divergence, 0.0, 0.4, 0.3, 2),
    world("divergences of one sample", Kind::Divergence, 0.0, 0.4, 0.3, 1),
];

impl World {
    fn value(&self, logit: f64, stream: &mut Stream) -> f64 {
        match self.kind {
            Kind::Soft => logistic(logit),
            Kind::Hard => f64::from(u8::from(stream.bernoulli(logistic(logit)))),
            Kind::Margin => logit,
            Kind::Divergence => libm::exp(logit),
        }
    }

    pub fn draw(&self, prompts: usize, stream: &mut Stream) -> Items {
        let mut items = Vec::with_capacity(prompts * self.samples);
        for prompt in 0..prompts {
            let level = self.shift + self.prompt_spread * stream.normal();
            for _ in 0..self.samples {
                let logit = level + self.sample_spread * stream.normal();
                items.push((prompt, self.value(logit, stream)));
            }
        }
        items
    }

    /// The mean over all prompts and samples, by the trapezoid rule over the normal density.
    pub fn truth(&self) -> f64 {
        let spread = (self.prompt_spread * self.prompt_spread + self.sample_spread * self.sample_spread).sqrt();
        let at = |x: f64| match self.kind {
            Kind::Soft | Kind::Hard => logistic(self.shift + spread * x),
            Kind::Margin => self.shift + spread * x,
            Kind::Divergence => libm::exp(self.shift + spread * x),
        };
        (-10_000..=10_000)
            .map(|i| f64::from(i) / 1000.0)
            .map(|x| 0.001 * libm::exp(-x * x / 2.0) / (2.0 * std::f64::consts::PI).sqrt() * at(x))
            .sum()
    }
}
