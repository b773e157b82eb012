//! Verdict tokens of large judges: Arena-Hard's five grades, MT-bench's three.
//!
//! Both ask in both orders, so that a row is two verdicts. Where one of them can't be read, neither counts: one order alone holds the
//! judge's taste for a place.

use super::fields::{Fields, named};
use super::{RecordedPreference, Side};
use crate::data::field::{Field, Object};
use crate::error::Result;
use crate::statistics::arena_hard::scores_of_first;

/// Of `A` in `A>B`, as Arena-Hard counts it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grade {
    preference: f64,
    strength: u32,
}

pub(super) fn arena_hard(fields: &Fields<'_>, row: usize) -> Result<[RecordedPreference; 2]> {
    let prompt = fields.first_name(&["prompt_id", "uid", "question_id"])?.ok_or_else(|| fields.missing("uid"))?;
    let games = match fields.present("games") {
        Some(Field::List(games)) if games.len() == 2 => games,
        Some(Field::List(games)) => {
            let found = format!("holds {} games, and two are expected", games.len());
            return Err(fields
                .error("games", &found)
                .help("one with the baseline shown first, then one with the model shown first"));
        }
        _ => return Err(fields.error("games", "is no list of two games")),
    };
    let grades = [game_grade(&games[0]), game_grade(&games[1])];
    let mut found = RecordedPreference::new(fields.record.place, row, prompt);
    found.policy = fields.first_name(&["policy", "model"])?;
    found.baseline = fields.name("baseline")?;
    found.judge = fields.name("judge")?;
    let mut games = [found.clone(), found];
    games[0].first = Some(Side::Baseline);
    games[1].first = Some(Side::Policy);
    if let [Some(baseline_first), Some(policy_first)] = grades {
        games[0].preference = Some(1.0 - baseline_first.preference);
        games[0].strength = baseline_first.strength;
        games[1].preference = Some(policy_first.preference);
        games[1].strength = policy_first.strength;
    }
    Ok(games)
}

/// The stated score, else the last token in the judge's words.
fn game_grade(game: &Field) -> Option<Grade> {
    let Field::Object(game) = game else { return None };
    match game.present("score") {
        Some(score) => grade(&named(score)?.to_uppercase()),
        None => grade(&last_token(&words(game)?.to_uppercase())?),
    }
}

/// The judgment: a text, or an object that holds it.
fn words(game: &Object) -> Option<&str> {
    match game.present("judgment")? {
        Field::Text(text) => Some(text),
        Field::Object(judgment) => judgment.present("answer")?.text(),
        _ => None,
    }
}

fn grade(token: &str) -> Option<Grade> {
    let scores = scores_of_first(token.trim())?;
    Some(Grade { preference: *scores.first()?, strength: scores.len() as u32 })
}

/// What stands last in double brackets; where nothing does, in single ones. `text` is upper-cased.
pub(super) fn last_token(text: &str) -> Option<String> {
    let last = |open: &str, close: &str| {
        text.rmatch_indices(open).find_map(|(at, _)| {
            let inside = &text[at + open.len()..];
            let end = inside.find(|c| !matches!(c, 'A' | 'B' | '<' | '>' | '=')).unwrap_or(inside.len());
            (end > 0 && inside[end..].starts_with(close)).then(|| inside[..end].to_owned())
        })
    };
    last("[[", "]]").or_else(|| last("[", "]"))
}

pub(super) fn mt_bench(fields: &Fields<'_>, row: usize) -> Result<[RecordedPreference; 2]> {
    let prompt = fields.first_name(&["prompt_id", "question_id"])?.ok_or_else(|| fields.missing("question_id"))?;
    let mut found = RecordedPreference::new(fields.record.place, row, prompt);
    found.sample = fields.first_name(&["sample", "turn"])?.unwrap_or_default();
    found.policy = fields.name("model_1")?;
    found.baseline = fields.name("model_2")?;
    found.judge = fields.name("judge")?;
    let winner = |name: &str| -> Result<Option<f64>> {
        match fields.name(name)?.as_deref() {
            Some("model_1") => Ok(Some(1.0)),
            Some("model_2") => Ok(Some(0.0)),
            Some("tie") => Ok(Some(0.5)),
            Some("error") | None => Ok(None),
            Some(other) => Err(fields
                .error(name, &format!("is \"{other}\""))
                .help("winners are model_1, model_2 and tie; error where no verdict could be read")),
        }
    };
    let games = (winner("g1_winner")?, winner("g2_winner")?);
    let mut rows = [found.clone(), found];
    rows[0].first = Some(Side::Policy);
    rows[1].first = Some(Side::Baseline);
    if let (Some(first), Some(second)) = games {
        rows[0].preference = Some(first);
        rows[1].preference = Some(second);
    }
    Ok(rows)
}
