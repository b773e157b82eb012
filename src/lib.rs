//! `dpo-eval`: evaluation and reproducibility harness for Direct Preference Optimization.
//!
//! A suite file goes in, a verdict with its evidence comes out; everything between is a chain of small, addressed,
//! reproducible steps. Modules are listed in reading order, and each imports only those above it.

pub mod error;
pub mod watch;

pub mod digest;
pub mod rng;

pub mod numerics;

pub mod suite;

pub mod store;

pub mod data;

pub mod model;

pub mod train;

pub mod generate;

pub mod judge;

pub mod statistics;

pub mod checks;

pub mod report;

pub mod gate;

pub mod run;

pub mod cli;

pub use error::{Error, Result};
