//! Ratings of many players (policies) from comparisons of two at a time.
//!
//! | file | concept |
//! |---|---|
//! | `matrix` | who won how often against whom, and which players the comparisons connect |
//! | `bradley_terry` | the maximum-likelihood rating with its covariance, also clustered by prompt |
//! | `newman` | the same model with a parameter for ties |
//! | `elo` | the sequential rating, which depends on the order |
//! | `standing` | which players the data tell apart |

pub mod bradley_terry;
pub mod elo;
pub mod matrix;
pub mod newman;
pub mod standing;

use std::fmt;

/// One comparison of two players, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    pub left: u32,
    pub right: u32,
    /// 1: left won, 0: right won, ½: tie; a judge's preference for left may lie between.
    pub outcome: f64,
    /// Comparisons of a cluster (prompt) go together.
    pub cluster: u32,
}

/// Why there is no rating.
#[derive(Debug, Clone, PartialEq)]
pub enum RatingError {
    /// The best ratings would lie infinitely far apart, or anywhere: each player of a group has won against, or lost to, those of
    /// the others at most one way (Ford 1957). Groups of players that can be rated among themselves.
    NotConnected { groups: Vec<Vec<usize>> },
    /// The iteration did not come to rest.
    NotConverged { iterations: usize },
}

impl fmt::Display for RatingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected { groups } => {
                write!(f, "the comparisons fall into {} groups without wins both ways between them", groups.len())
            }
            Self::NotConverged { iterations } => write!(f, "the ratings did not come to rest in {iterations} iterations"),
        }
    }
}

impl std::error::Error for RatingError {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;

    /// Items in the order of their names, and the comparisons of a case.
    pub fn case(case: &Value) -> (Vec<String>, Vec<Comparison>) {
        let text = |name: &str| -> Vec<String> {
            case[name].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        let (left, right, winner) = (text("left"), text("right"), text("winner"));
        let mut items: Vec<String> = left.iter().chain(&right).cloned().collect();
        items.sort();
        items.dedup();
        let place = |name: &String| items.iter().position(|i| i == name).unwrap() as u32;
        let comparisons = (0..left.len())
            .map(|i| {
                let outcome = match winner[i].as_str() {
                    "left" => 1.0,
                    "right" => 0.0,
                    _ => 0.5,
                };
                Comparison { left: place(&left[i]), right: place(&right[i]), outcome, cluster: i as u32 }
            })
            .collect();
        (items, comparisons)
    }

    /// The scores of a method, in the order of the items.
    pub fn expected(case: &Value, method: &str, items: &[String]) -> Vec<f64> {
        items.iter().map(|name| case[method]["scores"][name].as_f64().unwrap()).collect()
    }
}
