//! Win rates: the forest plot at the last checkpoint, and the way there over √KL.

use minijinja::Value;
use serde::Serialize;

use crate::checks::{HumpFit, Ranged};
use crate::estimates::Estimate;
use crate::judge::GOLD;

use super::super::chart::{self, Axis, ForestRow, Layout, Plot};
use super::super::{ReportData, format};
use super::{Figure, Number, safe};

#[derive(Serialize)]
pub(super) struct Section {
    forest: Option<Figure>,
    frontier: Vec<Figure>,
    legend: Value,
    spread: Spread,
}

/// Where preferences spread: a row a variant and judge, a column a source that any row has.
#[derive(Serialize)]
struct Spread {
    columns: Vec<String>,
    rows: Vec<SpreadRow>,
}

#[derive(Serialize)]
struct SpreadRow {
    variant: String,
    judge: String,
    numbers: Vec<Option<Number>>,
}

pub(super) fn section(data: &ReportData) -> Section {
    let shown = if super::many(data) { Vec::new() } else { data.judges() };
    let shown = shown.into_iter().filter(|j| *j == data.judge || *j == GOLD);
    let frontier = shown.enumerate().filter_map(|(i, judge)| frontier(data, i, judge)).collect();
    Section { forest: forest(data), frontier, legend: super::legend(super::variant_keys(data)), spread: spread(data) }
}

fn spread(data: &ReportData) -> Spread {
    let variances = || data.estimates.iter().filter(|e| e.metric == "win_rate_variance");
    let (mut columns, mut places): (Vec<String>, Vec<(&str, Option<&str>)>) = Default::default();
    for e in variances() {
        let (column, place) = (e.slice.clone().unwrap_or_default(), (e.variant.as_str(), e.judge.as_deref()));
        if !columns.contains(&column) {
            columns.push(column);
        }
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let row = |(variant, judge): (&str, Option<&str>)| {
        let of = |column: &String| {
            let own = |e: &&Estimate| e.variant == variant && e.judge.as_deref() == judge && e.slice.as_ref() == Some(column);
            variances().find(own).map(Number::of)
        };
        SpreadRow {
            variant: data.label(variant).to_owned(),
            judge: judge.unwrap_or("all of them").to_owned(),
            numbers: columns.iter().map(of).collect(),
        }
    };
    Spread { rows: places.into_iter().map(row).collect(), columns }
}

fn forest(data: &ReportData) -> Option<Figure> {
    let mut rows = Vec::new();
    for (series, variant) in data.suite.variants.iter().enumerate() {
        let mut heading = Some(data.label(&variant.name).to_owned());
        for judge in data.judges() {
            let seeds = if super::many(data) { &[][..] } else { &variant.seeds[..] };
            for seed in std::iter::once(None).chain(seeds.iter().copied().map(Some)) {
                let checkpoint = data.last_checkpoint(&variant.name);
                let Some(e) = data.estimate("win_rate", &variant.name, checkpoint, seed, Some(judge)) else { continue };
                rows.push(row(e, series, judge, heading.take()));
                let controlled = data.estimate("win_rate_length_controlled", &variant.name, checkpoint, seed, Some(judge));
                rows.extend(controlled.map(|e| at_equal_length(e, series)));
            }
        }
    }
    if rows.is_empty() {
        return None;
    }
    let ends = rows.iter().flat_map(|r| [r.lower, r.upper]).chain([0.5]);
    let axis = Axis::fit("win rate against the reference", ends, 6);
    let title = "Win rates against the reference";
    let about = format!("{} with intervals, against a line at one half.", format::plural(rows.len(), "estimate"));
    let draw = |id: &str, layout| safe(chart::forest(id, [title, &about], &axis, &[0.5], &rows, layout));
    Some(Figure {
        title: title.to_owned(),
        svg: draw("forest", &Layout::WIDE),
        narrow: Some(draw("forest-narrow", &Layout::NARROW)),
        caption:
            "Right of the line at ½ the policy is preferred. Strong rows are pooled over seeds, light rows are what they would \
                  be at equal length, and single seeds. Intervals are clustered by prompt."
                .to_owned(),
    })
}

fn row(e: &Estimate, series: usize, judge: &str, heading: Option<String>) -> ForestRow {
    let label = e
        .seed
        .map_or_else(|| format!("by {}", format::cut(judge, 20)), |seed| format!("  by {}, seed {seed}", format::cut(judge, 14)));
    ForestRow {
        heading,
        label,
        value: e.value,
        lower: e.lower,
        upper: e.upper,
        series,
        strong: e.seed.is_none(),
        text: format::estimate(e),
    }
}

fn at_equal_length(e: &Estimate, series: usize) -> ForestRow {
    let label = "  at equal length".to_owned();
    ForestRow { label, strong: false, ..row(e, series, "", None) }
}

/// A checkpoint's win rate and the root of its KL, both with their intervals.
struct Stop<'a> {
    step: u64,
    win_rate: &'a Estimate,
    kl: [f64; 3],
}

fn stops<'a>(data: &'a ReportData, variant: &str, judge: &str, seed: Option<u64>) -> Vec<Stop<'a>> {
    let stop = |step: u64| {
        let win_rate = data.estimate("win_rate", variant, Some(step), seed, Some(judge))?;
        let kl = data.estimate("kl_per_sequence", variant, Some(step), seed, None)?;
        let root = |v: f64| v.max(0.0).sqrt();
        Some(Stop { step, win_rate, kl: [root(kl.value), root(kl.lower), root(kl.upper)] })
    };
    data.checkpoints_of("win_rate", variant).into_iter().filter_map(stop).collect()
}

fn frontier(data: &ReportData, number: usize, judge: &str) -> Option<Figure> {
    let variants: Vec<_> = data.suite.variants.iter().map(|v| stops(data, &v.name, judge, None)).collect();
    let all = || variants.iter().flatten();
    all().next()?;
    let x = Axis::fit("√KL to the reference, √nats a sequence", all().flat_map(|s| s.kl).chain([0.0]), 5);
    let humps: Vec<&HumpFit> = data.humps.iter().filter(|fit| fit.judge == judge).collect();
    let fitted = humps.iter().flat_map(|fit| &fit.curve).flat_map(|point| [point[2], point[3]].map(|rate| rate.clamp(0.0, 1.0)));
    let ends = all().flat_map(|s| [s.win_rate.lower, s.win_rate.upper]).chain(fitted).chain([0.5]);
    let y = Axis::fit("win rate", ends, 5);
    let title = if judge == GOLD { "By gold".to_owned() } else { format!("By {judge}") };
    let about = format!("Win rate by {judge} over the root of the KL to the reference, a point a checkpoint.");
    let draw = |id: String, size| {
        let plot = Plot::new(&id, &title, &about, size, x.clone(), y.clone());
        safe(draw_frontier(data, plot, &variants, &humps))
    };
    let mut caption = "A point a checkpoint, pooled over seeds; the number is its step.".to_owned();
    if data.suite.variants.iter().any(|v| v.best_of_n) {
        caption += " Of the best of n completions it is n, and the KL is log n − (n − 1) / n.";
    }
    if !humps.is_empty() {
        let form = match (humps.iter().all(|fit| fit.best_of_n), humps.iter().any(|fit| fit.best_of_n)) {
            (true, _) => "½ + d (α − β d)",
            (_, true) => "½ + d (α − β log d), of the best of n ½ + d (α − β d)",
            _ => "½ + d (α − β log d)",
        };
        caption += &format!(" The band is that of the fit {form}, prompts and checkpoints resampled together.");
        humps.iter().for_each(|fit| caption += &format!(" {}", peak(data, fit)));
    }
    let svg = draw(format!("frontier-{number}"), (480.0, 320.0));
    let narrow = Some(draw(format!("frontier-{number}-narrow"), (320.0, 260.0)));
    Some(Figure { title, svg, narrow, caption })
}

/// Where a variant's fit is highest, in words.
fn peak(data: &ReportData, fit: &HumpFit) -> String {
    let label = data.label(&fit.variant);
    let stop = format!("recommended stop: {}", data.place(&fit.variant, fit.recommended_stop));
    match (fit.peak_distance, fit.peak_win_rate) {
        (Some(d), Some(rate)) => {
            let shown = |r: Ranged, digits| format::with_interval(r.value, r.lower, r.upper, digits);
            format!("{label}: peak at √KL {} with {}, {stop}.", shown(d, 2), shown(rate, 3))
        }
        _ => format!("{label}: no peak within reach, {stop}."),
    }
}

fn draw_frontier(data: &ReportData, mut plot: Plot, variants: &[Vec<Stop>], humps: &[&HumpFit]) -> String {
    plot.rule(0.5, "no difference");
    for (series, variant) in data.suite.variants.iter().enumerate() {
        if let Some(fit) = humps.iter().find(|fit| fit.variant == variant.name) {
            let within = |rate: f64| rate.clamp(0.0, 1.0);
            let band: Vec<_> = fit.curve.iter().map(|p| (p[0], within(p[2]), within(p[3]))).collect();
            plot.band(&chart::colour(series), &band);
            plot.line(&format!("{} dashed", chart::colour(series)), &fit.curve.iter().map(|p| (p[0], p[1])).collect::<Vec<_>>());
        }
    }
    for (series, stops) in variants.iter().enumerate() {
        let class = chart::colour(series);
        let points: Vec<_> = stops.iter().map(|s| (s.kl[0], s.win_rate.value)).collect();
        plot.line(&class, &points);
        for s in stops {
            let at = (s.kl[0], s.win_rate.value);
            plot.error_x(&class, at.1, s.kl[1], s.kl[2]);
            plot.error_y(&class, at.0, s.win_rate.lower, s.win_rate.upper);
            let label = data.label(&s.win_rate.variant);
            let root = format::with_interval(s.kl[0], s.kl[1], s.kl[2], 2);
            plot.point(
                series,
                &class,
                at,
                &format!("{label}, {}: {} at √KL {root}", data.place(&s.win_rate.variant, s.step), format::estimate(s.win_rate)),
            );
            // Above the points of one variant and below those of the next, so that neighbours stay apart.
            let up = if series % 2 == 0 { 8.0 } else { -16.0 };
            let stop = humps.iter().any(|fit| fit.variant == s.win_rate.variant && fit.recommended_stop == s.step);
            plot.note(at, (6.0, up), &if stop { format!("{} stop here", s.step) } else { s.step.to_string() });
        }
    }
    plot.finish()
}
