//! Arena-Hard-Auto's scores (lmarena/arena-hard-auto v2, `utils/math_utils.py`, `show_result.py`): strong verdicts count three times.

/// The scores that a verdict token adds for the model, with the model as `A`: `A>B` one win, `A>>B` three, `A=B` half a win. None for any
/// other token.
pub fn scores_of_first(token: &str) -> Option<Vec<f64>> {
    let (value, times) = match token {
        "A>B" | "B<A" => (1.0, 1),
        "A>>B" | "B<<A" => (1.0, 3),
        "A=B" | "B=A" => (0.5, 1),
        "A<B" | "B>A" => (0.0, 1),
        "A<<B" | "B>>A" => (0.0, 3),
        _ => return None,
    };
    Some(vec![value; times])
}

/// The scores of a prompt from its two games: the baseline shown first, then the model first. None where a verdict is missing:
/// the prompt is dropped.
pub fn scores_of_prompt(baseline_first: &str, model_first: &str) -> Option<Vec<f64>> {
    let mut scores = scores_of_first(model_first)?;
    scores.extend(scores_of_first(baseline_first)?.into_iter().map(|score| 1.0 - score));
    Some(scores)
}

#[cfg(test)]
mod tests {
    use super::super::mean::Clustered;
    use super::super::reference::{close, number, numbers, vectors};
    use super::*;

    #[test]
    fn games_become_the_published_scores_and_standard_errors() {
        let Some(file) = vectors("arena_hard") else { return };
        let games = file["games_g1_baselineIsA__g2_modelIsA"].as_array().unwrap().iter();
        let scores: Vec<Vec<f64>> =
            games.map(|g| scores_of_prompt(g[0].as_str().unwrap(), g[1].as_str().unwrap()).unwrap()).collect();
        for (found, expected) in scores.iter().zip(file["exploded_scores"].as_array().unwrap()) {
            close(found, &numbers(expected), 0.0);
        }
        let each = || scores.iter().enumerate().flat_map(|(prompt, s)| s.iter().map(move |s| (prompt, *s)));
        let (clustered, naive) = (Clustered::new(each()), Clustered::new(each().map(|(_, s)| s).enumerate()));
        assert_eq!(clustered.len() as u64, file["n_exploded"].as_u64().unwrap());
        let per_prompt = scores.iter().map(|s| s.iter().sum::<f64>() / s.len() as f64).sum::<f64>() / scores.len() as f64;
        let found = [clustered.mean(), per_prompt, naive.standard_error().unwrap()];
        let names = ["win_rate_exploded", "win_rate_per_prompt_mean", "naive_sem_exploded"];
        close(&found, &names.map(|name| number(&file[name])), 1e-9);
        let expected = number(&file["prompt_clustered_se_exploded"]);
        let errors = [clustered.standard_error().unwrap(), clustered.standard_error_of_the_population().unwrap()];
        assert!(errors.iter().any(|e| (e - expected).abs() < 1e-9), "{errors:?} {expected}");
        assert_eq!(scores_of_prompt("A>B", "error"), None);
    }
}
