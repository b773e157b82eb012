//! Recorded comparisons of many policies to their ratings: what `dpo-eval ratings` computes.
//!
//! Bradley–Terry decides, with intervals clustered by prompt and ranks that hold together; the others stand beside it. A policy has a
//! rank only where the data tell it apart from all others.

use std::collections::BTreeMap;

use crate::judge::recorded::RecordedPreference;
use crate::statistics::interval::z;
use crate::statistics::ratings::elo::Elo;
use crate::statistics::ratings::matrix::Matrix;
use crate::statistics::ratings::standing::{Ranks, groups, ranks};
use crate::statistics::ratings::{Comparison, RatingError, bradley_terry, newman};

/// Where ratings are centred: the mean of all players.
pub const CENTRE: f64 = 1000.0;

/// Who is compared with whom, players in alphabetical order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparisons {
    pub players: Vec<String>,
    pub rows: Vec<Comparison>,
    /// Prompts, where rows name them; else each row is one.
    pub prompts: usize,
    pub unreadable: usize,
}

impl Comparisons {
    /// `own`: what a file calls the policy of rows that don't name one.
    pub fn new(files: Vec<(String, Vec<RecordedPreference>)>) -> Self {
        let names = |own: &str, row: &RecordedPreference| {
            let name = |name: &Option<String>, default: &str| name.clone().unwrap_or_else(|| default.to_owned());
            [name(&row.policy, own), name(&row.baseline, "baseline")]
        };
        let mut players: BTreeMap<String, u32> = BTreeMap::new();
        let mut prompts: BTreeMap<String, u32> = BTreeMap::new();
        for (own, rows) in &files {
            players.extend(rows.iter().flat_map(|row| names(own, row)).map(|name| (name, 0)));
        }
        players.values_mut().zip(0..).for_each(|(place, number)| *place = number);
        let mut this = Self { players: players.keys().cloned().collect(), ..Self::default() };
        for (own, rows) in files {
            for row in rows {
                let Some(outcome) = row.preference else {
                    this.unreadable += 1;
                    continue;
                };
                let [left, right] = names(&own, &row).map(|name| players[&name]);
                let next = prompts.len() as u32;
                let cluster = *prompts.entry(row.prompt_id).or_insert(next);
                this.rows.extend((0..row.strength).map(|_| Comparison { left, right, outcome, cluster }));
            }
        }
        this.prompts = prompts.len();
        this
    }
}

/// A player's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Rated {
    pub player: String,
    /// Bradley–Terry on Elo's scale, with its interval. None: not all players are connected by wins both ways.
    pub rating: Option<[f64; 3]>,
    pub ranks: Option<Ranks>,
    /// Which group of players that can't be told apart, from 0.
    pub group: Option<usize>,
    /// Strengths by Bradley–Terry and by Newman's method, whose ties have a parameter; of geometric mean 1.
    pub strength: Option<f64>,
    pub newman: Option<f64>,
    /// By Elo's sequential rating, in the order of the rows.
    pub elo: f64,
    /// Mean of the win rates against each opponent, in percent.
    pub average_win_rate: Option<f64>,
    pub comparisons: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Ratings {
    /// Best first.
    pub players: Vec<Rated>,
    /// Win rate of each player against each other in percent, in the order of `players`; none where the two never met.
    pub matrix: Vec<Vec<Option<f64>>>,
    pub comparisons: usize,
    pub prompts: usize,
    pub level: f64,
    pub notes: Vec<String>,
}

pub fn ratings(found: &Comparisons, level: f64) -> Ratings {
    let matrix = Matrix::new(found.players.len(), &found.rows);
    let mut notes = Vec::new();
    if found.unreadable > 0 {
        notes.push(format!("{} verdicts can't be read, and count nowhere", found.unreadable));
    }
    let fit = bradley_terry::fit(&matrix).and_then(|fit| Ok((fit, newman::fit(&matrix)?)));
    let fit = fit.map_err(|error| notes.push(unrated(&error, &found.players))).ok().map(|(fit, newman)| {
        let clustered = fit.clustered(&found.rows);
        if clustered.is_none() {
            notes.push("all comparisons are of one prompt: intervals take them as independent".to_owned());
        }
        (clustered.unwrap_or(fit), newman)
    });
    let standing = fit.as_ref().map(|(fit, _)| ranks(fit, level));
    let shared = fit.as_ref().zip(standing.as_ref()).map(|((fit, _), ranks)| groups(fit, ranks));
    let elo = Elo::default().rate(found.players.len(), &found.rows);
    let average = matrix.average_rates();
    let rated = |i: usize| Rated {
        player: found.players[i].clone(),
        rating: fit.as_ref().map(|(fit, _)| {
            let (value, half) = (fit.elo(CENTRE)[i], z(level) * fit.standard_error(i) * 400.0 / std::f64::consts::LN_10);
            [value, value - half, value + half]
        }),
        ranks: standing.as_ref().map(|ranks| ranks[i]),
        group: shared.as_ref().and_then(|groups| groups.iter().position(|group| group.contains(&i))),
        strength: fit.as_ref().map(|(fit, _)| fit.strengths()[i]),
        newman: fit.as_ref().map(|(_, newman)| newman.strengths[i]),
        elo: elo[i],
        average_win_rate: average[i].map(|rate| 100.0 * rate),
        comparisons: found.rows.iter().filter(|row| row.left as usize == i || row.right as usize == i).count(),
    };
    let mut order: Vec<usize> = (0..found.players.len()).collect();
    let merit = |i: &usize| fit.as_ref().map_or_else(|| average[*i].unwrap_or(0.0), |(fit, _)| fit.theta[*i]);
    order.sort_by(|a, b| merit(b).total_cmp(&merit(a)));
    let against = |i: &usize| order.iter().map(|j| matrix.rate(*i, *j).map(|rate| 100.0 * rate)).collect();
    Ratings {
        players: order.iter().map(|i| rated(*i)).collect(),
        matrix: order.iter().map(against).collect(),
        comparisons: found.rows.len(),
        prompts: found.prompts,
        level,
        notes,
    }
}

/// Why there is no rating, with names.
fn unrated(error: &RatingError, players: &[String]) -> String {
    match error {
        RatingError::NotConnected { groups } => {
            let named: Vec<String> =
                groups.iter().map(|group| group.iter().map(|i| players[*i].as_str()).collect::<Vec<_>>().join(", ")).collect();
            format!("no ratings: {error}, so that they could lie anywhere between the groups: {}", named.join(" | "))
        }
        RatingError::NotConverged { .. } => format!("no ratings: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::recorded::{Reading, read};

    fn of(text: &str) -> Ratings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.csv");
        std::fs::write(&path, text).unwrap();
        ratings(&Comparisons::new(vec![("c".to_owned(), read(&path, &Reading::default()).unwrap())]), 0.95)
    }

    #[test]
    fn evalicas_food_is_rated_as_evalica_rates_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/reference/vectors/bradley_terry.json");
        let Ok(text) = std::fs::read_to_string(path) else {
            eprintln!("skipped: {path} is absent");
            return;
        };
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        for name in ["food", "simple"] {
            let case = &file[name];
            let column = |name: &str, i: usize| case[name][i].as_str().unwrap().to_owned();
            let rows = (0..case["left"].as_array().unwrap().len())
                .map(|i| format!("{},{},{}\n", column("left", i), column("right", i), column("winner", i)));
            let found = of(&format!("left,right,winner\n{}", rows.collect::<String>()));
            for rated in &found.players {
                let expected = |method: &str| case[method]["scores"][&rated.player].as_f64().unwrap();
                let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");
                close(rated.strength.unwrap(), expected("bradley_terry"));
                close(rated.newman.unwrap(), expected("newman"));
                close(rated.elo, expected("elo"));
                close(rated.average_win_rate.unwrap(), 100.0 * expected("average_win_rate"));
            }
            assert_eq!(found.comparisons, case["left"].as_array().unwrap().len());
        }
    }

    #[test]
    fn players_that_are_far_apart_have_ranks_and_others_none() {
        let game = |left: &str, right: &str, won: usize, of: usize| -> String {
            (0..of).map(|i| format!("{left},{right},{}\n", if i < won { "left" } else { "right" })).collect()
        };
        let found = of(&format!(
            "left,right,winner\n{}{}{}",
            game("good", "bad", 190, 200),
            game("good", "poor", 190, 200),
            game("bad", "poor", 101, 200)
        ));
        let ranks: Vec<_> = found.players.iter().map(|p| (p.player.as_str(), p.ranks.unwrap(), p.group)).collect();
        assert_eq!(ranks[0], ("good", Ranks { best: 1, worst: 1 }, Some(0)));
        assert_eq!((ranks[1].1, ranks[2].1), (Ranks { best: 2, worst: 3 }, Ranks { best: 2, worst: 3 }));
        assert_eq!(found.matrix[0], [None, Some(95.0), Some(95.0)]);
    }

    #[test]
    fn a_policy_that_only_wins_is_told_and_not_rated() {
        let found = of("left,right,winner\na,b,left\nb,c,tie\nc,b,tie\n");
        assert!(found.players.iter().all(|p| p.rating.is_none() && p.average_win_rate.is_some()));
        assert!(found.notes[0].ends_with("between the groups: a | b, c"), "{:?}", found.notes);
        assert_eq!(found.players[0].player, "a");
    }
}
