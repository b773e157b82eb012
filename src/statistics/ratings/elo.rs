//! Elo's rating: after each comparison both players move by K times the surprise (Elo 1978). It depends on the order of the
//! comparisons, so it is for keeping up with a stream and not for a verdict.

use super::Comparison;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elo {
    pub initial: f64,
    pub k: f64,
    /// Points that are odds of `base` to one.
    pub scale: f64,
    pub base: f64,
}

impl Default for Elo {
    /// As Chatbot Arena computed it (FastChat `rating_systems.py`).
    fn default() -> Self {
        Self { initial: 1000.0, k: 4.0, scale: 400.0, base: 10.0 }
    }
}

impl Elo {
    pub fn rate(&self, players: usize, comparisons: &[Comparison]) -> Vec<f64> {
        let mut ratings = vec![self.initial; players];
        for c in comparisons {
            let (left, right) = (c.left as usize, c.right as usize);
            let expected = 1.0 / (1.0 + libm::pow(self.base, (ratings[right] - ratings[left]) / self.scale));
            let move_by = self.k * (c.outcome - expected);
            ratings[left] += move_by;
            ratings[right] -= move_by;
        }
        ratings
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reference::{close, vectors};
    use super::super::tests::{case, expected};
    use super::*;

    #[test]
    fn ratings_meet_evalica() {
        let Some(file) = vectors("bradley_terry") else { return };
        for name in ["food", "simple"] {
            let (items, comparisons) = case(&file[name]);
            let found = Elo::default().rate(items.len(), &comparisons);
            close(&found, &expected(&file[name], "elo", &items), 1e-9);
        }
    }
}
