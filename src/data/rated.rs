//! Pairs of several rated completions, as the published binarized sets make them of UltraFeedback (Cui et al. 2023, arXiv:2310.01377).
//!
//! The completion with the best rating is chosen. Rejected is one of those with a lower one: by chance (as HuggingFaceH4's and Argilla's
//! binarized sets take it), or the worst. H4's set ranks by `overall_score`, Argilla's by the mean of the four aspects' ratings. Both may
//! reject a completion that is rated like the chosen one; here it must be rated lower, and a prompt without such a one is left out.

use crate::data::field::{Field, Object};
use crate::data::forms::{Content, FormRow, Said, message};
use crate::rng::Stream;
use crate::suite::settings::{RatedBy, RatingSettings, RejectedBy};

/// A completion and what annotators gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rated {
    pub text: String,
    pub overall_score: Option<f64>,
    /// Mean over the aspects.
    pub rating: Option<f64>,
}

impl Rated {
    /// A completion of UltraFeedback; none if it has no text.
    pub fn of(completion: &Object) -> Option<Self> {
        let text = completion.present("response").and_then(Field::text)?.to_owned();
        let ratings: Vec<f64> = match completion.present("annotations") {
            Some(Field::Object(aspects)) => aspects.0.iter().filter_map(|(_, aspect)| rating(aspect)).collect(),
            _ => Vec::new(),
        };
        let rating = (!ratings.is_empty()).then(|| ratings.iter().sum::<f64>() / ratings.len() as f64);
        Some(Self { text, overall_score: completion.present("overall_score").and_then(number), rating })
    }

    fn score(&self, by: RatedBy) -> Option<f64> {
        match by {
            RatedBy::Ratings => self.rating,
            RatedBy::OverallScore => self.overall_score,
        }
    }
}

/// An aspect's rating; some are "N/A".
fn rating(aspect: &Field) -> Option<f64> {
    if let Field::Object(aspect) = aspect { aspect.present("Rating").and_then(number) } else { None }
}

/// A number, or a text that is one.
fn number(field: &Field) -> Option<f64> {
    let value = match field {
        Field::Number(number) => number.as_f64(),
        Field::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    value.filter(|value: &f64| value.is_finite())
}

/// The pair that a row's rated completions make; other rows as they are. Which worse completion is rejected depends on the prompt alone.
pub fn opposed(row: FormRow, settings: &RatingSettings) -> FormRow {
    let Said::Rated(completions) = &row.said else { return row };
    let scored: Vec<(f64, &str)> =
        completions.iter().filter_map(|one| Some((one.score(settings.by)?, one.text.as_str()))).collect();
    let best = scored.iter().copied().reduce(|best, next| if next.0 > best.0 { next } else { best });
    let Some((best, chosen)) = best else { return FormRow { said: Said::Unrated("none of its completions is rated"), ..row } };
    let worse: Vec<(f64, &str)> = scored.iter().copied().filter(|(score, _)| *score < best).collect();
    let worst = worse.iter().copied().reduce(|worst, next| if next.0 < worst.0 { next } else { worst });
    let Some((_, worst)) = worst else { return FormRow { said: Said::Unrated("no completion is rated below the best"), ..row } };
    let rejected = match settings.rejected {
        RejectedBy::Worst => worst,
        RejectedBy::Random => {
            let address = crate::digest::Digest::of_value(&prompt_text(&row.prompt));
            Stream::of(0, &format!("data/rated/{address}"), 0).choose(&worse).1
        }
    };
    let side = |text: &str| Content::Messages(vec![message("assistant", text)]);
    let said = Said::Pair { chosen: side(chosen), rejected: side(rejected) };
    FormRow { said, ..row }
}

fn prompt_text(prompt: &Content) -> String {
    match prompt {
        Content::Text(text) => text.clone(),
        Content::Messages(messages) => messages.iter().filter_map(|m| m.get("content")?.text()).collect::<Vec<_>>().join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scores: &[(&str, f64, f64)]) -> FormRow {
        let one = |&(text, overall, rating): &(&str, f64, f64)| Rated {
            text: text.to_owned(),
            overall_score: Some(overall),
            rating: Some(rating),
        };
        let prompt = Content::Messages(vec![message("user", "why?")]);
        FormRow { id: "1".to_owned(), prompt, tools: None, said: Said::Rated(scores.iter().map(one).collect()) }
    }

    /// What is chosen and what is rejected, or why there is no pair.
    fn sides(row: FormRow, by: RatedBy, rejected: RejectedBy) -> Result<(String, String), &'static str> {
        match opposed(row, &RatingSettings { by, rejected }).said {
            Said::Pair { chosen, rejected } => Ok((prompt_text(&chosen), prompt_text(&rejected))),
            Said::Unrated(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_best_is_chosen_and_a_worse_one_rejected_and_never_an_equal_one() {
        let rows = || row(&[("a", 3.0, 5.0), ("b", 9.0, 5.0), ("c", 1.0, 2.0), ("d", 9.0, 1.0)]);
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(sides(rows(), RatedBy::Ratings, RejectedBy::Worst), pair("a", "d"));
        assert_eq!(sides(rows(), RatedBy::OverallScore, RejectedBy::Worst), pair("b", "c"));
        let (chosen, rejected) = sides(rows(), RatedBy::OverallScore, RejectedBy::Random).unwrap();
        assert!(chosen == "b" && ["a", "c"].contains(&rejected.as_str()), "{chosen} {rejected}");
        assert_eq!(sides(rows(), RatedBy::OverallScore, RejectedBy::Random).unwrap().1, rejected);
        assert!(sides(row(&[("a", 1.0, 1.0), ("b", 1.0, 1.0)]), RatedBy::Ratings, RejectedBy::Worst).is_err());
        assert!(sides(row(&[]), RatedBy::Ratings, RejectedBy::Random).is_err());
    }

    #[test]
    fn chance_takes_each_of_the_worse_ones_for_some_prompt() {
        let seen: std::collections::BTreeSet<String> = (0..40)
            .map(|i| {
                let mut one = row(&[("a", 3.0, 3.0), ("b", 2.0, 2.0), ("c", 1.0, 1.0)]);
                one.prompt = Content::Messages(vec![message("user", &format!("prompt {i}"))]);
                sides(one, RatedBy::Ratings, RejectedBy::Random).unwrap().1
            })
            .collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["b", "c"]);
    }
}
