//! `[study]`: the methods of a suite compared at equal distance from the reference, and its claims decided.
//!
//! A point is a checkpoint of a run: d = √KL and the reward above the reference's (gold where there is one, else the deciding judge's
//! win rate above one half). All points of a method are fitted together with R(d) = d (α − β log d), best-of-n with d (α − β d) (Gao et
//! al. 2022, arXiv 2210.10760; Rafailov et al. 2024, arXiv 2406.02900), prompts and runs resampled together.
//!
//! What is expected stands in the suite before anything runs, and each kind of claim has one rule:
//!
//! | kind | measured | supported | contradicted |
//! |---|---|---|---|
//! | `frontier` | mean difference of the fits over the distances that both reach | interval above 0, and the method significantly below nowhere | interval below 0 |
//! | `seed_variance` | ratio of the variances of the reward over seeds, pooled over strengths | interval below 1 | above 1 |
//! | `calibration` | difference in log-loss of the implicit rewards on held-out pairs, all runs alike | interval below 0 | above 0 |
//! | `over_optimisation` | mean difference of the fits of (deciding judge's win rate − gold's) | interval below 0 | above 0 |
//! | `kl_order` | fall of the KL from each variant to the next | all intervals above 0 | one interval below 0, Bonferroni |
//!
//! Anything else is undecided.

mod claims;
mod points;

use serde::{Deserialize, Serialize};

use super::Ranged;
use crate::estimates::summary::Evidence;
use crate::rlhf::OnlineStep;
use crate::statistics::bootstrap::Resampling;
use crate::statistics::frontier::{Frontier, Method, frontiers};
use crate::statistics::overoptimisation::{Checkpoint, Form};
use crate::suite::Suite;
use crate::suite::settings::{ClaimKind, MethodSettings, PolicySource};

use points::{Run, Table};

const RESAMPLES: usize = 1000;
/// Points of a drawn curve.
const DRAWN: usize = 40;

/// The methods, what each reaches, and the claims with their verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// What is reached, in words.
    pub reward: String,
    pub methods: Vec<MethodFit>,
    pub claims: Vec<ClaimResult>,
    pub points: Vec<StudyPoint>,
}

/// The frontier of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodFit {
    pub method: String,
    pub variants: Vec<String>,
    pub runs: usize,
    pub points: usize,
    pub prompts: usize,
    /// `d (α − β log d)`, or `d (α − β d)`.
    pub form: String,
    /// None where the points don't determine a fit.
    pub fit: Option<Fitted>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    pub alpha: Ranged,
    pub beta: Ranged,
    /// Root of the mean squared residual of a point.
    pub residual: f64,
    /// Smallest and largest distance of a point.
    pub reach: [f64; 2],
    /// Of the peak within reach, where the fit has one: its distance and reward, with intervals over the resamples that have one.
    pub peak: Option<[Ranged; 2]>,
    /// Share of the resamples that have a peak within reach.
    pub falls: f64,
    /// Distance, fitted reward, and the limits of its band.
    pub curve: Vec<[f64; 4]>,
}

/// A checkpoint of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyPoint {
    pub method: String,
    pub variant: String,
    pub seed: Option<u64>,
    pub checkpoint: u64,
    /// Nats a sequence.
    pub kl: f64,
    /// √KL.
    pub distance: f64,
    pub reward: f64,
    /// The deciding judge's.
    pub win_rate: Option<f64>,
    pub gold_win_rate: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Supported,
    Contradicted,
    Undecided,
}

/// A claim and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimResult {
    pub claim: String,
    pub kind: ClaimKind,
    pub method: String,
    pub against: Option<String>,
    pub expected: String,
    pub decision: Decision,
    /// What `value` is.
    pub measured: String,
    pub value: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub level: f64,
    pub prompts: usize,
    pub runs: usize,
    /// One sentence: what was found.
    pub found: String,
}

/// None where the suite has no `[study]`.
pub fn study(suite: &Suite, evidence: &Evidence, online: &[OnlineStep]) -> Option<Study> {
    let settings = suite.study.as_ref()?;
    let table = Table::new(suite, evidence);
    let resampling = Resampling { resamples: RESAMPLES, seed: suite.seed, purpose: "study" };
    let methods: Vec<Compared> = settings.method.iter().map(|method| Compared::new(suite, &table, method)).collect();
    let fitted = frontiers(&methods.iter().map(|m| m.of(|stop| &stop.reward)).collect::<Vec<_>>(), resampling);
    let ground = claims::Ground { suite, table: &table, evidence, online, methods: &methods, frontiers: &fitted, resampling };
    Some(Study {
        reward: table.reward.clone(),
        claims: settings.claim.iter().map(|claim| claims::decide(claim, &ground)).collect(),
        points: methods.iter().flat_map(Compared::points).collect(),
        methods: methods
            .iter()
            .zip(&fitted)
            .map(|(method, fit)| method.described(&table, fit.as_ref(), suite.statistics.level))
            .collect(),
    })
}

/// A method with the runs of its variants.
struct Compared<'a> {
    settings: &'a MethodSettings,
    form: Form,
    runs: Vec<&'a Run<'a>>,
}

impl<'a> Compared<'a> {
    fn new(suite: &Suite, table: &'a Table<'a>, settings: &'a MethodSettings) -> Self {
        let chooses = |name: &String| suite.variant(name).is_some_and(|v| matches!(v.policy, PolicySource::BestOfN(_)));
        let form = if settings.variants.iter().any(chooses) { Form::BestOfN } else { Form::Learning };
        let runs =
            settings.variants.iter().flat_map(|variant| table.runs.iter().filter(move |run| run.variant == variant)).collect();
        Self { settings, form, runs }
    }

    /// What is fitted, with whatever is measured at a checkpoint as its reward.
    fn of(&self, reward: impl Fn(&points::Stop) -> &Vec<f64>) -> Method {
        let checkpoint = |stop: &points::Stop| Checkpoint { kl: stop.kl.clone(), reward: reward(stop).clone() };
        Method { form: self.form, runs: self.runs.iter().map(|run| run.stops.iter().map(checkpoint).collect()).collect() }
    }

    fn points(&self) -> Vec<StudyPoint> {
        let point = |run: &Run, stop: &points::Stop| {
            let mean = |values: &Vec<f64>| (!values.is_empty()).then(|| points::mean(values));
            let kl = points::mean(&stop.kl);
            StudyPoint {
                method: self.settings.name.clone(),
                variant: run.variant.to_owned(),
                seed: run.seed,
                checkpoint: stop.checkpoint,
                kl,
                distance: kl.max(0.0).sqrt(),
                reward: points::mean(&stop.reward),
                win_rate: mean(&stop.win_rate),
                gold_win_rate: mean(&stop.gold_win_rate),
            }
        };
        self.runs.iter().flat_map(|run| run.stops.iter().map(move |stop| point(run, stop))).collect()
    }

    fn described(&self, table: &Table, frontier: Option<&Frontier>, level: f64) -> MethodFit {
        MethodFit {
            method: self.settings.name.clone(),
            variants: self.settings.variants.clone(),
            runs: self.runs.len(),
            points: self.runs.iter().map(|run| run.stops.len()).sum(),
            prompts: table.prompts,
            form: match self.form {
                Form::Learning => "d (α − β log d)".to_owned(),
                Form::BestOfN => "d (α − β d)".to_owned(),
            },
            fit: frontier.map(|frontier| fitted(frontier, level)),
        }
    }
}

fn fitted(frontier: &Frontier, level: f64) -> Fitted {
    let [alpha, beta] = frontier.parameters();
    let peak = frontier.peak();
    let drawn = |i: usize| {
        let d = frontier.reach[1] * (i + 1) as f64 / DRAWN as f64;
        frontier.at(d, level).map(|(value, band)| [d, value, band.lower, band.upper])
    };
    Fitted {
        alpha: Ranged::of(frontier.fit.alpha, alpha.as_ref(), level),
        beta: Ranged::of(frontier.fit.beta, beta.as_ref(), level),
        residual: frontier.residual(),
        reach: frontier.reach,
        falls: frontier.falls(),
        peak: peak.map(|(peak, distance, reward)| {
            [Ranged::of(peak.d, distance.as_ref(), level), Ranged::of(peak.reward, reward.as_ref(), level)]
        }),
        curve: (0..DRAWN).filter_map(drawn).collect(),
    }
}

#[cfg(test)]
mod tests;
