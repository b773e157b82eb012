//! Win rates over sampling temperature, where a suite decodes policies at several (Rafailov et al. 2023, figures 2 and 3).

use crate::judge::GOLD;

use super::super::chart::{self, Axis, Key, KeyKind, Plot};
use super::super::{Decoding, ReportData, format};
use super::{Figure, safe};

/// The policies, in the order of the suite.
fn policies(data: &ReportData) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for decoding in &data.decodings {
        if !found.contains(&decoding.policy.as_str()) {
            found.push(&decoding.policy);
        }
    }
    found
}

pub(super) fn keys(data: &ReportData) -> Vec<Key> {
    let key = |(series, name): (usize, &str)| Key { series, kind: KeyKind::Line, name: data.label(name).to_owned() };
    policies(data).into_iter().enumerate().map(key).collect()
}

/// A picture by the deciding judge and one by gold.
pub(super) fn figures(data: &ReportData) -> Vec<Figure> {
    let judges = data.judges().into_iter().filter(|judge| *judge == data.judge || *judge == GOLD);
    judges.enumerate().filter_map(|(number, judge)| figure(data, number, judge)).collect()
}

fn figure(data: &ReportData, number: usize, judge: &str) -> Option<Figure> {
    let rate = |decoding: &Decoding| {
        let e = data.headline("win_rate", &decoding.variant, Some(judge))?;
        Some((decoding.temperature, e))
    };
    let lines: Vec<Vec<_>> = policies(data)
        .iter()
        .map(|policy| {
            let mut line: Vec<_> = data.decodings.iter().filter(|d| d.policy == *policy).filter_map(rate).collect();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            line
        })
        .collect();
    let all = || lines.iter().flatten();
    all().next()?;
    let x = Axis::fit("sampling temperature", all().map(|(t, _)| *t).chain([0.0]), 5);
    let y = Axis::fit("win rate", all().flat_map(|(_, e)| [e.lower, e.upper]).chain([0.5]), 5);
    let title = if judge == GOLD { "By gold".to_owned() } else { format!("By {judge}") };
    let about = format!("Win rate by {judge} over the sampling temperature, a line a policy.");
    let mut plot = Plot::new(&format!("temperature-{number}"), &title, &about, (480.0, 300.0), x, y);
    plot.rule(0.5, "no difference");
    for (series, line) in lines.iter().enumerate() {
        let class = chart::colour(series);
        plot.line(&class, &line.iter().map(|(t, e)| (*t, e.value)).collect::<Vec<_>>());
        for (t, e) in line {
            plot.error_y(&class, *t, e.lower, e.upper);
            plot.point(series, &class, (*t, e.value), &format!("{}: {}", data.label(&e.variant), format::estimate(e)));
        }
    }
    let caption = "Against the reference as [generate] decodes it, pooled over seeds.".to_owned();
    Some(Figure { title, svg: safe(plot.finish()), narrow: None, caption })
}
