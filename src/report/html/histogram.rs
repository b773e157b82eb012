//! Histograms: lengths of completions, and position effects of judges.

use minijinja::Value;

use crate::generate::{Completion, REFERENCE};

use super::super::ReportData;
use super::super::chart::{self, Axis, Key, KeyKind, Plot};
use super::{Figure, safe};

const BINS: usize = 20;

/// Shares of the values in each bin between the axis' ends: `(from, to, share)`.
fn shares(values: &[f64], low: f64, width: f64, bins: usize) -> Vec<(f64, f64, f64)> {
    let mut counts = vec![0usize; bins];
    for &value in values.iter().filter(|v| v.is_finite()) {
        let bin = ((value - low) / width).floor().max(0.0) as usize;
        counts[bin.min(bins - 1)] += 1;
    }
    let total = values.len().max(1) as f64;
    let bar = |(i, count): (usize, usize)| (low + i as f64 * width, low + (i + 1) as f64 * width, count as f64 / total);
    counts.into_iter().enumerate().map(bar).collect()
}

fn lengths_of<'a>(completions: impl Iterator<Item = &'a Completion>) -> Vec<f64> {
    completions.map(|c| f64::from(c.tokens)).collect()
}

/// One picture a variant, on common axes: the policy's lengths at its last checkpoint over those of the reference.
pub(super) fn lengths(data: &ReportData) -> Vec<Figure> {
    let reference = lengths_of(data.completions.iter().filter(|c| c.variant == REFERENCE));
    let variants: Vec<Vec<f64>> = data
        .suite
        .variants
        .iter()
        .map(|v| {
            let last = data.last_checkpoint(&v.name);
            lengths_of(data.completions.iter().filter(|c| c.variant == v.name && Some(c.checkpoint) == last))
        })
        .collect();
    if variants.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    let longest = variants.iter().flatten().chain(&reference).copied().fold(1.0, f64::max);
    let width = (longest / BINS as f64).ceil();
    let bins = (longest / width).floor() as usize + 1;
    let reference = shares(&reference, 0.0, width, bins);
    let bars: Vec<_> = variants.iter().map(|v| shares(v, 0.0, width, bins)).collect();
    let tallest = bars.iter().flatten().chain(&reference).map(|b| b.2).fold(0.0, f64::max);
    let figure = |(series, bars): (usize, &Vec<(f64, f64, f64)>)| {
        let name = data.label(&data.suite.variants[series].name);
        let about = format!("Histogram of completion lengths of {name}, with that of the reference as an outline.");
        let x = Axis::fit("tokens", [0.0, bins as f64 * width], 5);
        let y = Axis::fit("share of completions", [0.0, tallest], 4);
        let mut plot = Plot::new(&format!("length-{series}"), name, &about, (340.0, 220.0), x, y);
        plot.bars(&chart::colour(series), bars);
        plot.outline("ref", &reference);
        Figure { title: name.to_owned(), svg: safe(plot.finish()), narrow: None, caption: String::new() }
    };
    bars.iter().enumerate().map(figure).collect()
}

pub(super) fn lengths_legend(data: &ReportData) -> Value {
    let bar = |(series, v): (usize, &super::super::VariantInfo)| Key {
        series,
        kind: KeyKind::Bar,
        name: data.label(&v.name).to_owned(),
    };
    let mut keys: Vec<Key> = data.suite.variants.iter().enumerate().map(bar).collect();
    keys.push(Key { series: 0, kind: KeyKind::Outline, name: REFERENCE.to_owned() });
    super::legend(keys)
}

/// How much being shown first is worth to a judge, over the items it was asked about.
pub(super) fn position_effects(number: usize, judge: &str, effects: &[f64]) -> Option<Figure> {
    if effects.is_empty() {
        return None;
    }
    let x = Axis::fit("position effect, logits", effects.iter().copied().chain([0.0]), 6);
    let width = (x.high - x.low) / BINS as f64;
    let bars = shares(effects, x.low, width, BINS);
    let y = Axis::fit("share of items", bars.iter().map(|b| b.2).chain([0.0]), 4);
    let title = format!("Position effect of {judge}");
    let about = "Histogram of the position effect, item by item; zero is a judge that doesn't mind the order.";
    let mut plot = Plot::new(&format!("position-{number}"), &title, about, (340.0, 220.0), x, y);
    plot.bars("neutral", &bars);
    plot.upright_rule(0.0);
    let caption =
        "Right of the line the side shown first gains. Both orders are judged and the effect cancels in the preference."
            .to_owned();
    Some(Figure { title, svg: safe(plot.finish()), narrow: None, caption })
}
