//! Pure functions: slices in, `Estimate` out. f64, in the order of the data.

use serde::{Deserialize, Serialize};

/// A number never travels alone. One row of `estimates.csv`; the field order is the column order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub metric: String,
    /// Empty where the metric belongs to no variant (a judge's accuracy, say).
    pub variant: String,
    pub checkpoint: Option<u64>,
    /// None: pooled over seeds.
    pub seed: Option<u64>,
    pub judge: Option<String>,
    pub slice: Option<String>,
    pub value: f64,
    pub lower: f64,
    pub upper: f64,
    /// Confidence level of the interval, 0.95 say.
    pub level: f64,
    pub n: usize,
    pub clusters: usize,
    pub method: String,
}
