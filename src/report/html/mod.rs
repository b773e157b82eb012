//! `index.html`: one file that needs nothing else, neither network nor scripts. The views in this folder turn rows into
//! strings and charts; the templates put them in their places and escape them.

mod checks;
mod curves;
mod histogram;
mod judges;
mod rates;
mod records;
mod samples;
mod study;
mod temperature;
mod verdict;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde::Serialize;

use crate::error::{Error, Result};

use super::chart::{Key, KeyKind};
use super::{ReportData, format};

const TEMPLATES: [(&str, &str); 8] = [
    ("index.html", include_str!("index.html")),
    ("macros.html", include_str!("macros.html")),
    ("study.html", include_str!("study.html")),
    ("verdict.html", include_str!("verdict.html")),
    ("checks.html", include_str!("checks.html")),
    ("judges.html", include_str!("judges.html")),
    ("samples.html", include_str!("samples.html")),
    ("records.html", include_str!("records.html")),
];

#[derive(Serialize)]
struct Page {
    style: Value,
    title: String,
    name: String,
    description: String,
    digest: String,
    numerics: &'static str,
    study: Option<study::Section>,
    verdict: verdict::Section,
    temperatures: Vec<Figure>,
    temperatures_legend: Value,
    measures: verdict::Measures,
    rates: rates::Section,
    many: bool,
    curves: Vec<Figure>,
    curves_legend: Value,
    lengths: Vec<Figure>,
    lengths_legend: Value,
    judges: judges::Section,
    checks: checks::Section,
    samples: Vec<samples::Sample>,
    records: records::Section,
}

/// A picture with its words. `narrow` is the same picture laid out for small screens, where it has one.
#[derive(Serialize)]
struct Figure {
    title: String,
    svg: Value,
    narrow: Option<Value>,
    caption: String,
}

/// An estimate as shown, with what stands behind it.
#[derive(Serialize)]
struct Number {
    value: String,
    interval: String,
    /// The standard error, for KL.
    error: Option<String>,
    about: String,
}

impl Number {
    fn of(e: &crate::estimates::Estimate) -> Self {
        let digits = super::metrics::digits(&e.metric);
        let place = format!("n {}, {}, {}", e.n, format::plural(e.clusters, "cluster"), e.method);
        Self {
            value: format::fixed(e.value, digits),
            interval: format::interval(e.lower, e.upper, digits),
            error: e.standard_error().filter(|_| e.metric.starts_with("kl_")).map(|s| format::fixed(s, digits)),
            about: format!("{} interval; {place}", format::percent(e.level)),
        }
    }
}

pub(crate) fn render(data: &ReportData) -> Result<String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.set_formatter(escape);
    let broken = |e: minijinja::Error| Error::unexpected(format!("the report can't be written as HTML: {e:#}"));
    for (name, source) in TEMPLATES {
        environment.add_template(name, source).map_err(broken)?;
    }
    environment.get_template("index.html").and_then(|page| page.render(Serde(page_of(data)))).map_err(broken)
}

/// Every value that isn't marked safe goes through here: steering characters become visible, then markup is escaped.
fn escape(out: &mut minijinja::Output, state: &mut minijinja::State, value: &Value) -> std::result::Result<(), minijinja::Error> {
    match value.as_str() {
        Some(text) if !value.is_safe() => minijinja::escape_formatter(out, state, &Value::from(format::visible(text).as_ref())),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

fn page_of(data: &ReportData) -> Page {
    let suite = &data.suite;
    Page {
        style: safe(include_str!("style.css").to_owned()),
        title: if suite.title.is_empty() { suite.name.clone() } else { suite.title.clone() },
        name: suite.name.clone(),
        description: suite.description.clone(),
        digest: suite.digest.to_string(),
        numerics: suite.numerics.name(),
        study: study::section(data),
        verdict: verdict::section(data),
        temperatures: temperature::figures(data),
        temperatures_legend: legend(temperature::keys(data)),
        measures: verdict::measures(data),
        rates: rates::section(data),
        many: many(data),
        curves: curves::figures(data),
        curves_legend: legend(variant_keys(data)),
        lengths: histogram::lengths(data),
        lengths_legend: histogram::lengths_legend(data),
        judges: judges::section(data),
        checks: checks::section(data),
        samples: samples::samples(data),
        records: records::section(data),
    }
}

/// Whether there are more variants than lines in one picture can be told apart: two of each colour.
fn many(data: &ReportData) -> bool {
    data.suite.variants.len() > 2 * super::chart::SERIES
}

fn safe(markup: String) -> Value {
    Value::from_safe_string(markup)
}

fn legend(keys: Vec<Key>) -> Value {
    safe(super::chart::legend(&keys))
}

fn variant_keys(data: &ReportData) -> Vec<Key> {
    let key =
        |(series, v): (usize, &super::VariantInfo)| Key { series, kind: KeyKind::Line, name: data.label(&v.name).to_owned() };
    data.suite.variants.iter().enumerate().map(key).collect()
}

/// A sentence with what stands between backticks as code.
fn prose(text: &str) -> Value {
    let part = |(part, code): (&str, bool)| {
        let part = super::chart::escaped(part);
        if code { format!("<code>{part}</code>") } else { part }
    };
    safe(format::quoted(text).into_iter().map(part).collect())
}
