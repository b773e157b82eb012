//! The study: its claims with their verdicts, what each method reaches over √KL, and win rates over sampling temperature.

use minijinja::Value;
use serde::Serialize;

use crate::checks::{ClaimResult, Fitted, MethodFit, Ranged, Study, StudyPoint};

use super::super::chart::{self, Axis, Key, KeyKind, Plot, SERIES};
use super::super::{ReportData, format};
use super::{Figure, prose, safe};

#[derive(Serialize)]
pub(super) struct Section {
    claims: Vec<Claim>,
    reward: String,
    together: Option<Figure>,
    together_legend: Value,
    methods: Vec<Method>,
    fits: Vec<FitRow>,
    resampled: String,
}

#[derive(Serialize)]
struct Claim {
    name: String,
    expected: Value,
    kind: &'static str,
    symbol: &'static str,
    word: &'static str,
    measured: String,
    number: String,
    about: String,
    found: Value,
}

/// A method's own picture, with the variants as its series.
#[derive(Serialize)]
struct Method {
    figure: Figure,
    legend: Value,
}

#[derive(Serialize)]
struct FitRow {
    method: String,
    about: String,
    form: String,
    numbers: Vec<String>,
}

pub(super) fn section(data: &ReportData) -> Option<Section> {
    let study = data.study.as_ref()?;
    let level = study.claims.first().map_or(0.95, |claim| claim.level);
    Some(Section {
        claims: study.claims.iter().map(claim).collect(),
        reward: study.reward.clone(),
        together: together(study),
        together_legend: super::legend(study.methods.iter().enumerate().map(|(i, m)| key(i, &m.method)).collect()),
        methods: study.methods.iter().enumerate().map(|(i, m)| method(study, i, m)).collect(),
        fits: study.methods.iter().map(fit_row).collect(),
        resampled: format::percent(level),
    })
}

/// Beyond the colours that there are, lines are dashed.
fn key(series: usize, name: &str) -> Key {
    Key { series, kind: if series < SERIES { KeyKind::Line } else { KeyKind::Dashed }, name: name.to_owned() }
}

fn claim(claim: &ClaimResult) -> Claim {
    let (symbol, word, kind) = format::decision(claim.decision);
    let number = match (claim.value, claim.lower, claim.upper) {
        (Some(value), Some(lower), Some(upper)) => format::with_interval(value, lower, upper, 3),
        _ => format::NONE.to_owned(),
    };
    Claim {
        name: claim.claim.clone(),
        expected: prose(&claim.expected),
        kind,
        symbol,
        word,
        measured: claim.measured.clone(),
        number,
        about: format!(
            "{} interval, {}, {}",
            format::percent(claim.level),
            format::plural(claim.prompts, "prompt"),
            format::plural(claim.runs, "run")
        ),
        found: prose(&claim.found),
    }
}

fn axes(study: &Study) -> Option<(Axis, Axis)> {
    let reached = |fit: &Fitted| fit.curve.iter().map(|p| p[1]).collect::<Vec<_>>();
    let ends = study.points.iter().map(|p| p.reward).chain(study.methods.iter().filter_map(|m| m.fit.as_ref()).flat_map(reached));
    study.points.first()?;
    let x = Axis::fit("√KL to the reference, √nats a sequence", study.points.iter().map(|p| p.distance).chain([0.0]), 5);
    Some((x, Axis::fit(&study.reward, ends.chain([0.0]), 5)))
}

/// All fits in one picture.
fn together(study: &Study) -> Option<Figure> {
    let (x, y) = axes(study)?;
    let title = "What each method reaches";
    let about = format!("The fitted {} over the root of the KL to the reference, a line a method.", study.reward);
    let draw = |id: &str, size| {
        let mut plot = Plot::new(id, title, &about, size, x.clone(), y.clone());
        plot.rule(0.0, "the reference");
        for (series, method) in study.methods.iter().enumerate() {
            let Some(fit) = &method.fit else { continue };
            let dashed = if series < SERIES { "" } else { " dashed" };
            plot.line(&format!("{}{dashed}", chart::colour(series)), &line(fit));
            if let Some(&at) = line(fit).last() {
                plot.point(series, &chart::colour(series), at, &format!("{}, as far as it went", method.method));
            }
        }
        safe(plot.finish())
    };
    Some(Figure {
        title: title.to_owned(),
        svg: draw("study", (760.0, 360.0)),
        narrow: Some(draw("study-narrow", (320.0, 280.0))),
        caption: "Fits over all strengths, seeds and checkpoints of a method, drawn as far as its points reach.".to_owned(),
    })
}

fn line(fit: &Fitted) -> Vec<(f64, f64)> {
    [(0.0, 0.0)].into_iter().chain(fit.curve.iter().map(|p| (p[0], p[1]))).collect()
}

fn method(study: &Study, number: usize, method: &MethodFit) -> Method {
    let (x, y) = axes(study).expect("a method has points");
    let about = format!("{} over the root of the KL to the reference, a point a checkpoint of a run.", study.reward);
    let mut plot = Plot::new(&format!("study-{number}"), &method.method, &about, (340.0, 240.0), x, y);
    plot.rule(0.0, "");
    if let Some(fit) = &method.fit {
        let band: Vec<_> = fit.curve.iter().map(|p| (p[0], p[2], p[3])).collect();
        plot.band("neutral", &band);
        plot.line("ref", &line(fit));
    }
    for (series, variant) in method.variants.iter().enumerate() {
        let own = study.points.iter().filter(|p| p.method == method.method && p.variant == *variant);
        own.for_each(|p| plot.small_point(series, &chart::colour(series), (p.distance, p.reward), &said(p)));
    }
    let keys = method.variants.iter().enumerate().map(|(series, v)| Key { series, kind: KeyKind::Mark, name: v.clone() });
    let runs = format!("{} of {}", format::plural(method.points, "point"), format::plural(method.runs, "run"));
    let peak = match method.fit.as_ref().map(|fit| (&fit.peak, fit.falls)) {
        Some((Some([d, reward]), falls)) => {
            format!("Peak at √KL {} with {}; {} of the resamples have one.", ranged(*d), ranged(*reward), format::percent(falls))
        }
        Some((None, _)) => "No peak within reach.".to_owned(),
        None => "Its points determine no fit.".to_owned(),
    };
    Method {
        figure: Figure {
            title: method.method.clone(),
            svg: safe(plot.finish()),
            narrow: None,
            caption: format!("{runs}. {peak}"),
        },
        legend: super::legend(keys.collect()),
    }
}

fn said(p: &StudyPoint) -> String {
    let seed = p.seed.map_or_else(String::new, |seed| format!(" seed {seed}"));
    let (reward, distance) = (format::fixed(p.reward, 3), format::fixed(p.distance, 2));
    format!("{}{seed}, step {}: {reward} at √KL {distance}", p.variant, p.checkpoint)
}

fn ranged(r: Ranged) -> String {
    format::with_interval(r.value, r.lower, r.upper, 2)
}

fn fit_row(method: &MethodFit) -> FitRow {
    let numbers = match &method.fit {
        None => vec![format::NONE.to_owned(); FIT_COLUMNS],
        Some(fit) => {
            let peak = |i: usize| fit.peak.map_or_else(|| format::NONE.to_owned(), |peak| ranged(peak[i]));
            let reach = format!("{} to {}", format::fixed(fit.reach[0], 2), format::fixed(fit.reach[1], 2));
            vec![ranged(fit.alpha), ranged(fit.beta), peak(0), peak(1), reach, format::fixed(fit.residual, 3)]
        }
    };
    FitRow {
        method: method.method.clone(),
        about: format!("{}, {}", format::plural(method.runs, "run"), format::plural(method.points, "point")),
        form: method.form.clone(),
        numbers,
    }
}

/// α, β, the peak's distance and reward, reach and residual.
const FIT_COLUMNS: usize = 6;
