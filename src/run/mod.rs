//! Executes a suite: the plan of its cells, the runner, what each cell does, and the report data made of their rows.

pub mod collect;
pub mod cost;
pub mod device;
pub mod execute;
pub mod fit;
mod labels;
pub mod plan;
pub mod power;
pub mod repro;
pub mod stages;
