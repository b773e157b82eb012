//! Ratings of many policies: what `ratings` shows.

use serde_json::Number;

use super::format::{self, NONE, visible_line};
use super::terminal;
use crate::data::field::{Field, Object};
use crate::error::{Error, Result};
use crate::estimates::ratings::{Rated, Ratings};

/// More players have no room for a matrix.
const MOST_IN_MATRIX: usize = 8;

/// A table of players, and who won how often against whom. `width` in columns.
pub fn table(found: &Ratings, width: usize) -> String {
    let level = format::percent(found.level);
    let mut out = terminal::plain_table(
        ["", "rating", "rank", "win rate, %", "comparisons"],
        found.players.iter().map(|player| {
            let rating = player.rating.map(|[value, lower, upper]| format::with_interval(value, lower, upper, 0));
            [
                visible_line(&player.player),
                rating.unwrap_or_else(|| NONE.to_owned()),
                rank(player),
                player.average_win_rate.map_or_else(|| NONE.to_owned(), |rate| format::fixed(rate, 1)),
                player.comparisons.to_string(),
            ]
        }),
        width,
    );
    let caption = format!(
        "Bradley–Terry on Elo's scale with {level} intervals, clustered by prompt ({} of {}); ranks hold together at {level}; win rates are means over opponents.",
        format::plural(found.comparisons, "comparison"),
        format::plural(found.prompts, "prompt"),
    );
    terminal::wrap(&caption, width).iter().for_each(|line| out += &format!("{line}\n"));
    for note in &found.notes {
        terminal::wrap(&format!("! {}", visible_line(note)), width).iter().for_each(|line| out += &format!("{line}\n"));
    }
    if (2..=MOST_IN_MATRIX).contains(&found.players.len()) {
        let names = || found.players.iter().map(|player| visible_line(&player.player));
        let header = std::iter::once("wins, % against".to_owned()).chain(names()).collect();
        let cell = |rate: &Option<f64>| rate.map_or_else(String::new, |rate| format::fixed(rate, 1));
        let rows = names().zip(&found.matrix).map(|(name, row)| std::iter::once(name).chain(row.iter().map(cell)).collect());
        out += &format!("\n{}", terminal::wide_table(header, rows, width));
    }
    out
}

/// The rank where there is one.
fn rank(player: &Rated) -> String {
    match player.ranks {
        None => NONE.to_owned(),
        Some(ranks) if ranks.best == ranks.worst => ranks.best.to_string(),
        Some(ranks) => format!("not separable ({}–{})", ranks.best, ranks.worst),
    }
}

pub fn json(found: &Ratings) -> String {
    let text = |text: &str| Field::Text(text.to_owned());
    let names = found.players.iter().map(|player| text(&player.player)).collect();
    let matrix = found.matrix.iter().map(|row| Field::List(row.iter().map(|rate| number(*rate)).collect())).collect();
    let whole = Object(vec![
        ("players".to_owned(), Field::List(found.players.iter().map(|player| Field::Object(object(player))).collect())),
        (
            "win_matrix".to_owned(),
            Field::Object(Object(vec![("players".to_owned(), Field::List(names)), ("percent".to_owned(), Field::List(matrix))])),
        ),
        ("comparisons".to_owned(), Field::Number(found.comparisons.into())),
        ("prompts".to_owned(), Field::Number(found.prompts.into())),
        ("level".to_owned(), number(Some(found.level))),
        ("notes".to_owned(), Field::List(found.notes.iter().map(|note| text(note)).collect())),
    ]);
    serde_json::to_string_pretty(&whole).expect("plain values") + "\n"
}

/// A row a player.
pub fn csv(found: &Ratings) -> Result<String> {
    let broken = |e: String| Error::unexpected(format!("ratings can't be written as CSV: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for (place, player) in found.players.iter().enumerate() {
        let object = object(player);
        if place == 0 {
            writer.write_record(object.keys()).map_err(|e| broken(e.to_string()))?;
        }
        let cell = |value: &Field| match value {
            Field::Text(text) => text.clone(),
            Field::Number(number) => number.to_string(),
            Field::Bool(value) => value.to_string(),
            _ => String::new(),
        };
        writer.write_record(object.0.iter().map(|(_, value)| cell(value))).map_err(|e| broken(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| broken(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| broken(e.to_string()))
}

fn number(value: Option<f64>) -> Field {
    value.and_then(Number::from_f64).map_or(Field::Null, Field::Number)
}

fn object(player: &Rated) -> Object {
    let count = |value: Option<usize>| value.map_or(Field::Null, |value| Field::Number(value.into()));
    let of = |place: usize| number(player.rating.map(|rating| rating[place]));
    let fields = [
        ("player", Field::Text(player.player.clone())),
        ("rating", of(0)),
        ("rating_lower", of(1)),
        ("rating_upper", of(2)),
        ("rank_best", count(player.ranks.map(|r| r.best))),
        ("rank_worst", count(player.ranks.map(|r| r.worst))),
        ("separable", player.ranks.map_or(Field::Null, |r| Field::Bool(r.best == r.worst))),
        ("group", count(player.group.map(|group| group + 1))),
        ("strength", number(player.strength)),
        ("newman", number(player.newman)),
        ("elo", number(Some(player.elo))),
        ("average_win_rate", number(player.average_win_rate)),
        ("comparisons", count(Some(player.comparisons))),
    ];
    Object(fields.map(|(name, value)| (name.to_owned(), value)).to_vec())
}
