//! Labels of people and judges in plain tables, and the judgments of this program's own reports.

use super::alpaca::lengths;
use super::fields::Fields;
use super::{RecordedPreference, Side};
use crate::error::Result;
use crate::judge::Outcome;

/// A row of `judgments.csv`.
pub(super) fn judgment(fields: &Fields<'_>, row: usize) -> Result<RecordedPreference> {
    let prompt = fields.name("prompt_id")?.ok_or_else(|| fields.missing("prompt_id"))?;
    let mut found = RecordedPreference::new(fields.record.place, row, prompt);
    let (seed, sample) = (fields.name("seed")?, fields.name("sample")?.unwrap_or_default());
    found.sample = seed.map_or_else(|| sample.clone(), |seed| format!("seed {seed}, {sample}"));
    found.policy = Some(fields.name("variant")?.ok_or_else(|| fields.missing("variant"))?);
    found.baseline = Some(crate::generate::REFERENCE.to_owned());
    found.checkpoint = fields.count("checkpoint")?;
    found.judge = fields.name("judge")?;
    found.preference = fields.within("preference", [0.0, 1.0], "a judge's preference is a probability")?;
    found.outcome = match fields.name("outcome")?.as_deref() {
        Some("win") => Some(Outcome::Win),
        Some("tie") => Some(Outcome::Tie),
        Some("loss") => Some(Outcome::Loss),
        None => None,
        Some(other) => return Err(fields.error("outcome", &format!("is \"{other}\"")).help("outcomes are win, tie and loss")),
    };
    found.length = lengths(fields, "policy_length", "baseline_length")?;
    Ok(found)
}

/// `winner` of two named sides. Where rows have no prompt, each is one of its own.
pub(super) fn comparison(fields: &Fields<'_>, row: usize) -> Result<RecordedPreference> {
    let place = fields.record.place;
    // Prompts of several files must not be taken for each other.
    let alone = || format!("{}, {}", fields.record.path.display(), place.shown());
    let prompt = fields.first_name(&["prompt_id", "question_id"])?.unwrap_or_else(alone);
    let mut found = RecordedPreference::new(place, row, prompt);
    let sides = if fields.has("left") { ["left", "right"] } else { ["model_a", "model_b"] };
    let side = |name: &str| fields.name(name)?.ok_or_else(|| fields.missing(name));
    let [left, right] = [side(sides[0])?, side(sides[1])?];
    if left == right {
        return Err(fields.record.error(format!("\"{left}\" is compared with itself")).help("leave the row out"));
    }
    found.preference = match fields.name("winner")? {
        None => None,
        Some(winner) => Some(if winner == sides[0] || winner == left {
            1.0
        } else if winner == sides[1] || winner == right {
            0.0
        } else if is_tie(&winner) {
            0.5
        } else {
            let help = format!("a winner is {}, {}, tie, or one of the two names", sides[0], sides[1]);
            return Err(fields.error("winner", &format!("is \"{winner}\"")).help(help));
        }),
    };
    found.sample = fields.first_name(&["sample", "turn"])?.unwrap_or_default();
    found.judge = fields.name("judge")?;
    (found.policy, found.baseline) = (Some(left), Some(right));
    // Whoever stands left, or is model_a, was read first.
    found.first = Some(Side::Policy);
    found.length = lengths(fields, "policy_length", "baseline_length")?;
    Ok(found)
}

/// FastChat writes "tie (bothbad)" and "tie (inconsistent)".
fn is_tie(winner: &str) -> bool {
    let winner = winner.to_lowercase();
    winner.starts_with("tie") || ["draw", "equal", "both", "neither"].contains(&winner.as_str())
}

/// A preference of the policy or a winner, by prompt.
pub(super) fn label(fields: &Fields<'_>, row: usize) -> Result<RecordedPreference> {
    let prompt = fields.first_name(&["prompt_id", "prompt", "instruction"])?.ok_or_else(|| {
        fields
            .missing("prompt_id")
            .help("verdicts of one prompt belong together; name the column, say --columns prompt_id=question")
    })?;
    let mut found = RecordedPreference::new(fields.record.place, row, prompt);
    found.policy = fields.name("policy")?;
    found.baseline = fields.name("baseline")?;
    found.judge = fields.name("judge")?;
    found.sample = fields.name("sample")?.unwrap_or_default();
    found.first = match fields.name("first")?.as_deref() {
        None => None,
        Some("policy") => Some(Side::Policy),
        Some("baseline" | "reference") => Some(Side::Baseline),
        Some(name) if found.policy.as_deref() == Some(name) => Some(Side::Policy),
        Some(name) if found.baseline.as_deref() == Some(name) => Some(Side::Baseline),
        Some(other) => {
            let help = "what was shown first is policy or baseline, or the name of one";
            return Err(fields.error("first", &format!("is \"{other}\"")).help(help));
        }
    };
    found.preference = if fields.has("preference") {
        fields.within(
            "preference",
            [0.0, 1.0],
            "a preference is the probability that the policy's side is better; for AlpacaEval's scale, 1 to 2, say --layout alpaca-eval",
        )?
    } else if fields.has("winner") {
        winner(fields, &found)?
    } else {
        return Err(fields.missing("preference").help("or a \"winner\"; name the column, say --columns winner=label"));
    };
    found.length = lengths(fields, "policy_length", "baseline_length")?;
    if let (Some(policy), Some(baseline)) = (fields.text("policy_output")?, fields.text("baseline_output")?) {
        found.set_text(fields.text("prompt")?, policy, baseline);
    }
    Ok(found)
}

fn winner(fields: &Fields<'_>, row: &RecordedPreference) -> Result<Option<f64>> {
    let Some(winner) = fields.name("winner")? else { return Ok(None) };
    let is = |name: &Option<String>| name.as_deref() == Some(winner.as_str());
    match winner.to_lowercase().as_str() {
        "policy" | "model" | "win" => Ok(Some(1.0)),
        "baseline" | "reference" | "loss" => Ok(Some(0.0)),
        _ if is(&row.policy) => Ok(Some(1.0)),
        _ if is(&row.baseline) => Ok(Some(0.0)),
        _ if is_tie(&winner) => Ok(Some(0.5)),
        _ => Err(fields
            .error("winner", &format!("is \"{winner}\""))
            .help("a winner is policy, baseline or tie, or the name in the row's \"policy\" or \"baseline\"")),
    }
}
