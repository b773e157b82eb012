//! Training curves: the mean over seeds as a line, smallest to largest as a band.

use std::collections::BTreeMap;

use crate::rlhf::OnlineStep;
use crate::train::TrainStep;

use super::super::ReportData;
use super::super::chart::{self, Axis, Plot};
use super::{Figure, safe};

/// Longer logs are shown as means over equal runs of steps, so that the page stays small.
const MOST_POINTS: u64 = 200;

/// A row of a log of training.
trait Logged {
    /// Variant, seed and step.
    fn place(&self) -> (&str, u64, u64);
}

impl Logged for TrainStep {
    fn place(&self) -> (&str, u64, u64) {
        (&self.variant, self.seed, self.step)
    }
}

impl Logged for OnlineStep {
    fn place(&self) -> (&str, u64, u64) {
        (&self.variant, self.seed, self.step)
    }
}

type Field<R> = fn(&R) -> Option<f64>;

struct Panel<R: 'static> {
    title: &'static str,
    unit: &'static str,
    /// The second, where there is one, is dashed.
    fields: &'static [Field<R>],
    caption: &'static str,
}

const PANELS: [Panel<TrainStep>; 6] = [
    Panel { title: "loss", unit: "nats", fields: &[|r| Some(r.loss)], caption: "" },
    Panel { title: "rewards/margins", unit: "β × nats", fields: &[|r| r.rewards_margins], caption: "" },
    Panel { title: "rewards/accuracies", unit: "share of pairs", fields: &[|r| r.rewards_accuracies], caption: "" },
    Panel { title: "grad_norm", unit: "before clipping", fields: &[|r| Some(r.grad_norm)], caption: "" },
    Panel {
        title: "rewards/chosen and rewards/rejected",
        unit: "β × nats",
        fields: &[|r| r.rewards_chosen, |r| r.rewards_rejected],
        caption: "Solid: chosen. Dashed: rejected.",
    },
    Panel {
        title: "logps/chosen and logps/rejected",
        unit: "nats a sequence",
        fields: &[|r| r.logps_chosen, |r| r.logps_rejected],
        caption: "Solid: chosen. Dashed: rejected.",
    },
];

/// Of training on what the policy writes.
const ONLINE: [Panel<OnlineStep>; 6] = [
    Panel { title: "objective/scores", unit: "reward", fields: &[|r| Some(r.scores)], caption: "What the reward model gives." },
    Panel { title: "objective/kl", unit: "nats a completion", fields: &[|r| Some(r.kl)], caption: "" },
    Panel { title: "objective/kl_coef", unit: "β", fields: &[|r| Some(r.kl_coef)], caption: "Moves where a KL is aimed at." },
    Panel { title: "objective/entropy", unit: "nats a completion", fields: &[|r| Some(r.entropy)], caption: "" },
    Panel { title: "completions/mean_length", unit: "tokens", fields: &[|r| Some(r.mean_length)], caption: "" },
    Panel { title: "loss/value_avg", unit: "halved squares", fields: &[|r| r.value_loss], caption: "PPO's value head." },
];

/// One curve: at a step, the mean, smallest and largest over seeds.
type Curve = Vec<(f64, [f64; 3])>;

/// None for more variants than lines can be told apart.
pub(super) fn figures(data: &ReportData) -> Vec<Figure> {
    if super::many(data) {
        return Vec::new();
    }
    let online = panels(data, &data.online_log, &ONLINE, PANELS.len());
    panels(data, &data.train_log, &PANELS, 0).into_iter().chain(online).collect()
}

/// `first`: the number of the first picture.
fn panels<R: Logged>(data: &ReportData, log: &[R], panels: &'static [Panel<R>], first: usize) -> Vec<Figure> {
    let width = log.iter().map(|r| r.place().2).max().unwrap_or(1).div_ceil(MOST_POINTS).max(1);
    // Objectives on single examples have no accuracies, say.
    let any = |panel: &&Panel<R>| panel.fields.iter().any(|field| log.iter().any(|row| field(row).is_some()));
    panels.iter().filter(any).enumerate().map(|(number, panel)| figure(data, log, first + number, panel, width)).collect()
}

fn figure<R: Logged>(data: &ReportData, log: &[R], number: usize, panel: &Panel<R>, width: u64) -> Figure {
    let variants = &data.suite.variants;
    let curves: Vec<Vec<Curve>> =
        variants.iter().map(|v| panel.fields.iter().map(|f| curve(log, &v.name, *f, width)).collect()).collect();
    let all = || curves.iter().flatten().flatten();
    let x = Axis::fit("optimizer step", all().map(|p| p.0).chain([0.0]), 5);
    let y = Axis::fit(panel.unit, all().flat_map(|p| p.1), 5);
    let about = format!("{} over optimizer steps, a line a variant.", panel.title);
    let mut plot = Plot::new(&format!("curve-{number}"), panel.title, &about, (340.0, 230.0), x, y);
    for (series, curves) in curves.iter().enumerate() {
        for curve in curves {
            let band: Vec<_> = curve.iter().map(|&(x, [_, low, high])| (x, low, high)).collect();
            plot.band(&chart::colour(series), &band);
        }
    }
    for (series, curves) in curves.iter().enumerate() {
        for (field, curve) in curves.iter().enumerate() {
            draw(&mut plot, data.label(&variants[series].name), series, field, curve);
        }
    }
    let mean = if width > 1 { format!(" Means over {width} steps.") } else { String::new() };
    let caption = format!("{}{mean}", panel.caption).trim().to_owned();
    Figure { title: panel.title.to_owned(), svg: safe(plot.finish()), narrow: None, caption }
}

fn draw(plot: &mut Plot, name: &str, series: usize, field: usize, curve: &Curve) {
    let class = chart::colour(series);
    let dashed = if field > 0 { " dashed" } else { "" };
    let line: Vec<_> = curve.iter().map(|&(x, [mean, ..])| (x, mean)).collect();
    plot.line(&format!("{class}{dashed}"), &line);
    if let Some(&(x, mean)) = line.last() {
        plot.point(series, &class, (x, mean), &format!("{name}, step {x}: {}", super::format::fixed(mean, 4)));
    }
}

/// A point for every `width` steps. A seed counts with the mean of its steps there.
fn curve<R: Logged>(log: &[R], variant: &str, field: Field<R>, width: u64) -> Curve {
    let mut bins: BTreeMap<u64, BTreeMap<u64, Vec<f64>>> = BTreeMap::new();
    for row in log {
        let (own, seed, step) = row.place();
        if let Some(value) = field(row).filter(|_| own == variant) {
            bins.entry(step.div_ceil(width) * width).or_default().entry(seed).or_default().push(value);
        }
    }
    let point = |(step, seeds): (u64, BTreeMap<u64, Vec<f64>>)| {
        let means: Vec<f64> = seeds.values().map(|v| mean(v)).collect();
        let low = means.iter().copied().fold(f64::INFINITY, f64::min);
        let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (step as f64, [mean(&means), low, high])
    };
    bins.into_iter().map(point).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
