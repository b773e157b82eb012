//! Recorded preferences in, win rates with their intervals out: what `dpo-eval winrate` computes.
//!
//! | file | concept |
//! |---|---|
//! | `subjects` | which policy, against what, by which judge; rows to items |
//! | `rates` | win rate, counts, discrete win rate of a subject |
//! | `control` | win rates with length, difficulty and style held equal |
//! | `labels` | the win rate corrected by trusted labels |
//! | `anytime` | the interval that holds at every time |
//! | `compare` | two policies on the same prompts |
//! | `compat` | what AlpacaEval, Arena-Hard and MT-bench publish instead |
//!
//! An item is one comparison of two completions: both presentation orders are averaged in it. Items of a prompt are one cluster. Numbers
//! are in percent and counts, under AlpacaEval's names.

pub mod anytime;
pub mod compare;
pub mod compat;
pub mod control;
pub mod labels;
pub mod rates;
pub mod subjects;

use crate::statistics::mean::Measured;
pub use compat::Compat;
pub use subjects::{Choice, Item, Subject};

/// A number under its public name, with its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    pub name: &'static str,
    pub value: f64,
    pub lower: f64,
    pub upper: f64,
    pub method: String,
}

impl Measure {
    /// `scale`: what one stands for, 100 for percent.
    fn scaled(name: &'static str, measured: &Measured, scale: f64) -> Self {
        let Measured { value, interval, method, .. } = measured;
        Self {
            name,
            value: scale * value,
            lower: scale * interval.lower,
            upper: scale * interval.upper,
            method: (*method).to_owned(),
        }
    }
}

/// Everything about one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct WinRate {
    /// The file that it comes from.
    pub file: String,
    pub policy: String,
    pub baseline: Option<String>,
    pub judge: Option<String>,
    pub checkpoint: Option<u64>,
    pub measures: Vec<Measure>,
    /// Numbers without an interval, by name.
    pub facts: Vec<(&'static str, f64)>,
    /// What to know before trusting the numbers.
    pub notes: Vec<String>,
}

impl WinRate {
    pub fn measure(&self, name: &str) -> Option<&Measure> {
        self.measures.iter().find(|m| m.name == name)
    }

    pub fn fact(&self, name: &str) -> Option<f64> {
        self.facts.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests;
