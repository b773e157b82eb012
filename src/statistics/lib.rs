//! Statistics: pure functions, f64, in the order of the data. Slices in, numbers with their intervals out.
//!
//! | file | concept |
//! |---|---|
//! | `interval` | lower and upper limit; quantiles and distribution functions |
//! | `logistic` | the logistic function and its logarithm |
//! | `quantile`, `rank` | quantiles; ranks and rank correlations |
//! | `proportion`, `difference` | binomial proportions, and differences of two |
//! | `mean` | means, rates and ratios of clustered values |
//! | `bootstrap`, `jackknife` | resampling of items and of whole clusters; clusters left out in turn |
//! | `student`, `signs`, `wilcoxon`, `mcnemar` | tests of paired differences, of equivalence and non-inferiority |
//! | `multiplicity` | families of tests |
//! | `sequential` | intervals that hold at every time |
//! | `prediction_powered` | a judge's mean corrected by a few trusted labels |
//! | `power` | how many prompts would decide |
//! | `agreement`, `krippendorff` | agreement of raters beyond chance |
//! | `calibration`, `discrimination` | whether probabilities mean what they say; how well scores tell two classes apart |
//! | `components` | variance by prompts, seeds, samples and judges; intervals across seeds |
//! | `ratings` | Bradley–Terry, Newman, Elo, and who is told apart from whom |
//! | `divergence`, `overoptimisation` | KL and its estimators; the hump of reward over √KL |
//! | `frontier` | methods compared at equal distance from the reference; ratios of variances |
//! | `diversity`, `distance` | distinct n-grams and self-BLEU; how far two samples are apart |
//! | `arena_hard`, `rewardbench` | what these benchmarks call a score |
//! | `dense` | small linear algebra |
//! | `regression` | logistic regression on soft labels with penalties, to the optimum |
//! | `length_control` | win rates with length and style held equal |
//! | `style` | length and Markdown of a text |
//! | `bias`, `length` | what the order of presentation, and length, are worth to a judge |
//! | `text` | repetition within one text |

pub mod agreement;
pub mod arena_hard;
pub mod bias;
pub mod bootstrap;
pub mod calibration;
pub mod components;
pub mod difference;
pub mod discrimination;
pub mod distance;
pub mod divergence;
pub mod diversity;
pub mod frontier;
pub mod interval;
pub mod jackknife;
pub mod krippendorff;
pub mod length;
pub mod length_control;
pub mod logistic;
pub mod mcnemar;
pub mod mean;
pub mod multiplicity;
pub mod overoptimisation;
pub mod power;
pub mod prediction_powered;
pub mod proportion;
pub mod quantile;
pub mod rank;
pub mod ratings;
pub mod regression;
pub mod rewardbench;
pub mod sequential;
pub mod signs;
pub mod student;
pub mod style;
pub mod text;
pub mod wilcoxon;

mod dense;

#[cfg(test)]
mod reference;
