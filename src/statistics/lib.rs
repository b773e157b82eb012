//! Statistics: pure functions, f64, in the order of the data. Slices in, numbers with their intervals out.
//!
//! | file | concept |
//! |---|---|
//! | `interval` | lower and upper limit; quantiles of the normal, t and beta distributions |
//! | `logistic` | the logistic function and its logarithm |
//! | `proportion` | binomial proportions and their differences |
//! | `mean` | means, rates and ratios of clustered values |
//! | `power` | how many prompts would decide |
//! | `bias` | what the order of presentation is worth to a judge |
//! | `text` | repetition within one text |

pub mod bias;
pub mod interval;
pub mod logistic;
pub mod mean;
pub mod power;
pub mod proportion;
pub mod text;

#[cfg(test)]
mod reference;
