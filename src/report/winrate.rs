//! Win rates of recorded preferences: what `winrate` shows.

use serde_json::Number;

use super::format::{self, visible_line};
use super::terminal;
use crate::data::field::{Field, Object};
use crate::error::{Error, Result};
use crate::estimates::winrate::compare::PairedDifference;
use crate::estimates::winrate::{Measure, WinRate};

/// Everything that a call found.
#[derive(Debug, Clone, PartialEq)]
pub struct WinRates {
    pub level: f64,
    pub rates: Vec<WinRate>,
    pub differences: Vec<PairedDifference>,
}

/// What is shown of a name, and its digits.
const SHOWN: [(&str, &str, usize); 13] = [
    ("win_rate", "win rate, %", 2),
    ("win_rate_corrected", "corrected by the labels, %", 2),
    ("win_rate_labels", "by the labels alone, %", 2),
    ("win_rate_anytime", "at any time, %", 2),
    ("win_rate_adjusted", "win rate, ties half, %", 2),
    ("length_controlled_winrate", "length-controlled, %", 2),
    ("length_controlled_winrate_by_instruction", "  difficulty by instruction, %", 2),
    ("style_controlled_winrate", "style-controlled, %", 2),
    ("discrete_win_rate", "verdicts, ties half, %", 2),
    ("n_wins", "wins", 0),
    ("n_wins_base", "losses", 0),
    ("n_draws", "draws", 0),
    ("position_effect", "first place gains, points", 2),
];

impl WinRates {
    /// A table for each policy, then the differences. `width` in columns.
    pub fn terminal(&self, width: usize) -> String {
        let mut out = String::new();
        let interval = format!("{} interval", format::percent(self.level));
        for rate in &self.rates {
            out += &format!("{}\n", terminal::cut(&visible_line(&title(rate)), width));
            out += &terminal::plain_table(["", "value", &interval], rows(&rate.measures), width);
            let caption = caption(rate);
            terminal::wrap(&caption, width).iter().for_each(|line| out += &format!("{line}\n"));
            for note in &rate.notes {
                terminal::wrap(&format!("! {}", visible_line(note)), width).iter().for_each(|line| out += &format!("{line}\n"));
            }
            out += "\n";
        }
        for difference in &self.differences {
            let judge = difference.judge.as_ref().map_or_else(String::new, |judge| format!(", by {judge}"));
            let title = format!("{} − {}{judge}", difference.first, difference.second);
            out += &format!("{}\n", terminal::cut(&visible_line(&title), width));
            out += &terminal::plain_table(["points", "difference", &interval], rows(&difference.measures), width);
            out += &format!("Paired by prompt: {}.\n\n", format::plural(difference.prompts, "common prompt"));
        }
        out.pop();
        out
    }

    /// One object for one policy; of several a list of them and of the differences.
    pub fn json(&self) -> String {
        let rates: Vec<Field> = self.rates.iter().map(|rate| Field::Object(self.object(rate))).collect();
        let whole = match <[Field; 1]>::try_from(rates) {
            Ok([one]) => one,
            Err(several) => Field::Object(Object(vec![
                ("results".to_owned(), Field::List(several)),
                (
                    "differences".to_owned(),
                    Field::List(self.differences.iter().map(|d| Field::Object(self.difference(d))).collect()),
                ),
            ])),
        };
        serde_json::to_string_pretty(&whole).expect("plain values") + "\n"
    }

    /// A row a policy and a difference; a column for everything that any of them has.
    pub fn csv(&self) -> Result<String> {
        let kind = |kind: &str, mut object: Object| {
            object.0.insert(0, ("kind".to_owned(), kind.into()));
            object
        };
        let rates = self.rates.iter().map(|rate| kind("win rate", self.object(rate)));
        let objects: Vec<Object> = rates.chain(self.differences.iter().map(|d| kind("difference", self.difference(d)))).collect();
        let mut columns: Vec<&str> = Vec::new();
        for (name, value) in objects.iter().flat_map(|object| &object.0) {
            if !columns.contains(&name.as_str()) && !matches!(value, Field::Object(_) | Field::List(_)) {
                columns.push(name);
            }
        }
        let broken = |e: String| Error::unexpected(format!("win rates can't be written as CSV: {e}"));
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&columns).map_err(|e| broken(e.to_string()))?;
        for object in &objects {
            writer.write_record(columns.iter().map(|name| cell(object.get(name)))).map_err(|e| broken(e.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|e| broken(e.to_string()))?;
        String::from_utf8(bytes).map_err(|e| broken(e.to_string()))
    }

    fn object(&self, rate: &WinRate) -> Object {
        let mut object =
            vec![("file".to_owned(), Field::Text(rate.file.clone())), ("policy".to_owned(), Field::Text(rate.policy.clone()))];
        let text = |value: &Option<String>| value.clone().map_or(Field::Null, Field::Text);
        object.push(("baseline".to_owned(), text(&rate.baseline)));
        object.push(("judge".to_owned(), text(&rate.judge)));
        object.push(("checkpoint".to_owned(), rate.checkpoint.map_or(Field::Null, |step| Field::Number(step.into()))));
        add(&mut object, &rate.measures);
        object.extend(rate.facts.iter().map(|(name, value)| ((*name).to_owned(), number(name, *value))));
        self.finish(object, &rate.measures, Some(&rate.notes))
    }

    fn difference(&self, of: &PairedDifference) -> Object {
        let mut object = vec![
            ("policy".to_owned(), Field::Text(of.first.clone())),
            ("baseline".to_owned(), Field::Text(of.second.clone())),
            ("judge".to_owned(), of.judge.clone().map_or(Field::Null, Field::Text)),
            ("prompts".to_owned(), Field::Number(of.prompts.into())),
        ];
        add(&mut object, &of.measures);
        self.finish(object, &of.measures, None)
    }

    fn finish(&self, mut object: Vec<(String, Field)>, measures: &[Measure], notes: Option<&[String]>) -> Object {
        object.push(("level".to_owned(), number("level", self.level)));
        let methods = measures.iter().map(|m| (m.name.to_owned(), Field::Text(m.method.clone()))).collect();
        object.push(("methods".to_owned(), Field::Object(Object(methods))));
        let list = |notes: &[String]| Field::List(notes.iter().cloned().map(Field::Text).collect());
        object.extend(notes.map(|notes| ("notes".to_owned(), list(notes))));
        Object(object)
    }
}

fn add(object: &mut Vec<(String, Field)>, measures: &[Measure]) {
    for Measure { name, value, lower, upper, .. } in measures {
        object.push(((*name).to_owned(), number(name, *value)));
        object.push((format!("{name}_lower"), number("", *lower)));
        object.push((format!("{name}_upper"), number("", *upper)));
    }
}

/// Counts as whole numbers.
fn number(name: &str, value: f64) -> Field {
    let is_count = name.starts_with("n_") || ["prompts", "unreadable", "avg_length", "labels"].contains(&name);
    let number = if is_count { Some(Number::from(value as u64)) } else { Number::from_f64(value) };
    number.map_or(Field::Null, Field::Number)
}

fn cell(value: Option<&Field>) -> String {
    match value {
        Some(Field::Text(text)) => text.clone(),
        Some(Field::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn title(rate: &WinRate) -> String {
    let against = rate.baseline.as_ref().map_or_else(String::new, |name| format!(" against {name}"));
    let judge = rate.judge.as_ref().map_or_else(String::new, |name| format!(", by {name}"));
    let step = rate.checkpoint.map_or_else(String::new, |step| format!(", step {step}"));
    format!("{}{against}{judge}{step}", rate.policy)
}

fn rows(measures: &[Measure]) -> impl Iterator<Item = [String; 3]> {
    let of = |name: &str| measures.iter().find(|m| m.name == name);
    SHOWN.into_iter().filter_map(move |(name, label, digits)| {
        let Measure { value, lower, upper, .. } = of(name)?;
        Some([label.to_owned(), format::fixed(*value, digits), format::interval(*lower, *upper, digits)])
    })
}

fn caption(rate: &WinRate) -> String {
    let fact = |name: &str| rate.fact(name);
    let count = |name: &str| fact(name).unwrap_or(0.0) as usize;
    let mut said = format!("{} of {}", format::plural(count("n_total"), "item"), format::plural(count("prompts"), "prompt"));
    for (name, label, digits) in [
        ("standard_error", "standard error", 2),
        ("lc_standard_error", "length-controlled", 2),
        ("lc_standard_error_bootstrap", "bootstrapped", 2),
        ("avg_length", "mean length", 0),
        ("c", "C", 3),
    ] {
        if let Some(value) = fact(name) {
            said += &format!(", {label} {}", format::fixed(value, digits));
        }
    }
    said + "."
}
