//! Who won how often against whom.

use super::Comparison;

#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    players: usize,
    /// (players, players): wins of the row's player over the column's, ties one half.
    wins: Vec<f64>,
    /// Ties of each two, counted on both sides of the diagonal.
    ties: Vec<f64>,
}

impl Matrix {
    /// # Panics
    /// When a comparison is of a player with itself, or names one that there isn't.
    pub fn new(players: usize, comparisons: &[Comparison]) -> Self {
        let mut this = Self { players, wins: vec![0.0; players * players], ties: vec![0.0; players * players] };
        for c in comparisons {
            let (left, right) = (c.left as usize, c.right as usize);
            assert!(left != right && left < players && right < players, "two of {players} players");
            this.wins[left * players + right] += c.outcome;
            this.wins[right * players + left] += 1.0 - c.outcome;
            if c.outcome == 0.5 {
                this.ties[left * players + right] += 1.0;
                this.ties[right * players + left] += 1.0;
            }
        }
        this
    }

    pub fn players(&self) -> usize {
        self.players
    }

    /// Wins of `i` over `j`, ties one half.
    pub fn wins(&self, i: usize, j: usize) -> f64 {
        self.wins[i * self.players + j]
    }

    pub fn ties(&self, i: usize, j: usize) -> f64 {
        self.ties[i * self.players + j]
    }

    pub fn games(&self, i: usize, j: usize) -> f64 {
        self.wins(i, j) + self.wins(j, i)
    }

    /// Points of each player, ties one half.
    pub fn points(&self) -> Vec<f64> {
        (0..self.players).map(|i| (0..self.players).map(|j| self.wins(i, j)).sum()).collect()
    }

    /// The win rate of `i` against `j`, if they met.
    pub fn rate(&self, i: usize, j: usize) -> Option<f64> {
        let games = self.games(i, j);
        (games > 0.0).then(|| self.wins(i, j) / games)
    }

    /// The mean of each player's win rates against those that it met, each opponent counting once. None where it met nobody.
    pub fn average_rates(&self) -> Vec<Option<f64>> {
        let of = |i: usize| {
            let rates: Vec<f64> = (0..self.players).filter_map(|j| self.rate(i, j)).collect();
            (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
        };
        (0..self.players).map(of).collect()
    }

    /// Players that have won, by others in between, against each other both ways: only within such a group do ratings exist
    /// (Ford 1957). Ascending, each group by its smallest player.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let n = self.players;
        // Kosaraju: finish times over who beat whom, then the groups over who lost to whom.
        let mut seen = vec![false; n];
        let mut finished = Vec::with_capacity(n);
        for start in 0..n {
            self.visit(start, &mut seen, &mut finished, &|i, j| self.wins(i, j) > 0.0);
        }
        let mut seen = vec![false; n];
        let mut groups = Vec::new();
        for start in finished.into_iter().rev() {
            let mut group = Vec::new();
            self.visit(start, &mut seen, &mut group, &|i, j| self.wins(j, i) > 0.0);
            if !group.is_empty() {
                group.sort_unstable();
                groups.push(group);
            }
        }
        groups.sort();
        groups
    }

    /// Depth first from `start`, if not seen yet: players in the order in which they are done with.
    fn visit(&self, start: usize, seen: &mut [bool], done: &mut Vec<usize>, leads: &dyn Fn(usize, usize) -> bool) {
        if std::mem::replace(&mut seen[start], true) {
            return;
        }
        let mut path = vec![(start, 0)];
        while let Some((player, next)) = path.last_mut() {
            match (*next..self.players).find(|j| !seen[*j] && leads(*player, *j)) {
                Some(found) => {
                    *next = found + 1;
                    seen[found] = true;
                    path.push((found, 0));
                }
                None => {
                    done.push(*player);
                    path.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reference::{close, vectors};
    use super::super::tests::{case, expected};
    use super::*;

    #[test]
    fn points_and_average_rates_meet_evalica() {
        let Some(file) = vectors("bradley_terry") else { return };
        for name in ["food", "simple"] {
            let (items, comparisons) = case(&file[name]);
            let matrix = Matrix::new(items.len(), &comparisons);
            close(&matrix.points(), &expected(&file[name], "counting", &items), 1e-12);
            let rates: Vec<f64> = matrix.average_rates().into_iter().map(Option::unwrap).collect();
            close(&rates, &expected(&file[name], "average_win_rate", &items), 1e-12);
        }
    }

    #[test]
    fn groups_are_players_that_beat_each_other_in_circles() {
        let won = |left: u32, right: u32| Comparison { left, right, outcome: 1.0, cluster: 0 };
        let circle = [won(0, 1), won(1, 2), won(2, 0), won(2, 3), won(3, 4), won(4, 3)];
        assert_eq!(Matrix::new(6, &circle).groups(), [vec![0, 1, 2], vec![3, 4], vec![5]]);
        let tied = Comparison { outcome: 0.5, ..won(0, 3) };
        assert_eq!(Matrix::new(5, &[circle.as_slice(), &[tied]].concat()).groups(), [vec![0, 1, 2, 3, 4]]);
    }
}
