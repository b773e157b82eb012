use std::collections::BTreeMap;

use dpo_eval_rng::Stream;

use super::*;
use crate::bootstrap::Bootstrap;
use crate::reference::{close, numbers, vectors};

/// A CSV of `shared/reference/alpaca_eval` as rows by column name; none where the folder is absent.
fn table(name: &str) -> Option<Vec<BTreeMap<String, String>>> {
    let path = format!("{}/../../../shared/reference/alpaca_eval/{name}.csv", env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: {path} is absent");
        return None;
    };
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let row =
        |line: &str| header.iter().zip(line.split(',')).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect();
    Some(lines.map(row).collect())
}

fn number(row: &BTreeMap<String, String>, name: &str) -> f64 {
    row[name].parse().unwrap_or(f64::NAN)
}

/// Of one model with difficulty by row position, as published.
struct Published {
    items: Vec<Item>,
    gamed: Vec<Vec<Item>>,
}

impl Published {
    fn read(model: &str) -> Option<Self> {
        let difficulty: Vec<f64> =
            table("instruction_difficulty")?.iter().map(|row| number(row, "instruction_difficulty")).collect();
        let item = |position: usize, row: &BTreeMap<String, String>, preference: f64| Item {
            prompt: number(row, "instruction_index") as usize,
            preference: Some(preference).filter(|p| p.is_finite()),
            differences: vec![number(row, "len_output_2") - number(row, "len_output_1")],
            difficulty: difficulty[position],
        };
        let verdict = |raw: f64| if raw == 0.0 { 0.5 } else { raw - 1.0 };
        let items = table(model)?.iter().enumerate().map(|(i, row)| item(i, row, verdict(number(row, "preference")))).collect();
        let all = table("gamed_baselines")?;
        let gamed = ["verbose", "concise"].map(|name| {
            let own = all.iter().filter(|row| row["gamed_model"] == name);
            own.enumerate().map(|(i, row)| item(i, row, number(row, "pseudo_preference01"))).collect()
        });
        Some(Self { items, gamed: gamed.to_vec() })
    }

    fn data(&self) -> Data<'_> {
        Data { items: &self.items, gamed: &self.gamed, prompts: 805 }
    }
}

#[test]
fn every_published_length_controlled_win_rate_is_met() {
    let Some(expected) = table("expected") else { return };
    for row in expected {
        let published = Published::read(&row["model"]).unwrap();
        let data = published.data();
        let found = data.fit(Recipe::AlpacaEval { c: number(&row, "inferred_C") }).unwrap();
        let exact = ["exact_w_len", "exact_w_diff", "exact_w_bias"].map(|name| number(&row, name));
        close(&found.coefficients, &exact, 1e-6);
        close(&[100.0 * found.win_rate], &[number(&row, "exact_lc_winrate_at_C")], 1e-6);
        close(&[100.0 * found.win_rate], &[number(&row, "length_controlled_winrate")], 0.02);
        let (c, _) = data.choose_c().unwrap();
        let chosen = data.fit(Recipe::AlpacaEval { c }).unwrap();
        close(&[100.0 * chosen.win_rate], &[number(&row, "length_controlled_winrate")], 0.15);
    }
}

#[test]
fn the_path_over_c_and_the_scores_of_the_folds_meet_the_reference() {
    let Some(file) = vectors("alpaca_glm") else { return };
    for (model, expected) in file["models"].as_object().unwrap() {
        let Some(published) = Published::read(model) else { continue };
        let data = published.data();
        for point in expected["path"].as_array().unwrap() {
            let found = data.fit(Recipe::AlpacaEval { c: point["C"].as_f64().unwrap() }).unwrap();
            close(&found.coefficients, &numbers(&point["w"]), 1e-6);
            close(&[100.0 * found.win_rate], &[point["lc"].as_f64().unwrap()], 1e-6);
        }
        let (c, scores) = data.choose_c().unwrap();
        assert!((c / expected["cv_best_C"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{model}: {c}");
        for (fold, expected) in expected["cv_scores"].as_array().unwrap().iter().enumerate() {
            let found: Vec<f64> = scores.iter().map(|of| of[fold]).collect();
            close(&found, &numbers(expected), 1e-8);
        }
    }
}

fn resampling(resamples: usize, seed: u64) -> Resampling<'static> {
    Resampling { resamples, seed, purpose: "test/length-control" }
}

#[test]
fn the_bootstrap_of_the_fit_has_the_spread_of_the_reference() {
    let Some(file) = vectors("alpaca_paired") else { return };
    let of = &file["lc_se_bootstrap"];
    for (model, expected) in of["bootstrap_se"].as_object().unwrap() {
        let Some(published) = Published::read(model) else { continue };
        let data = published.data();
        let recipe = Recipe::AlpacaEval { c: 2.782_559_402_207_126 };
        let start = data.fit(recipe).unwrap().coefficients;
        let draws = data.resampled(recipe, &start, resampling(400, 0)).unwrap();
        let spread = Bootstrap::new(0.0, draws).unwrap().standard_error();
        // The reference has 200 resamples and keeps the standard deviation of lengths: 10 %, as it says of itself.
        let ratio = 100.0 * spread / expected.as_f64().unwrap();
        assert!((ratio - 1.0).abs() < 0.1, "{model}: {ratio}");
    }
}

/// `n` prompts whose judge likes the policy by `quality` and the longer text by `length`.
fn simulated(n: usize, quality: f64, length: f64, seed: u64) -> Vec<Item> {
    let mut stream = Stream::of(seed, "test/length-control", 0);
    let mut item = |prompt| {
        let difference = 300.0 + 400.0 * stream.normal();
        let own = 0.5 * stream.normal();
        let preference = Some(logistic(quality + length * libm::tanh(difference / 400.0) + own));
        Item { prompt, preference, differences: vec![difference], difficulty: 0.0 }
    };
    (0..n).map(&mut item).collect()
}

const RIDGE: Recipe = Recipe::Ridge { saturating: true };

#[test]
fn a_win_rate_without_a_length_effect_stays_what_it_is() {
    let mut items = simulated(60, 0.3, 0.0, 1);
    // Mirrored differences: exactly no effect.
    let mirrored: Vec<Item> =
        items.iter().map(|i| Item { differences: vec![-i.differences[0]], prompt: i.prompt, ..i.clone() }).collect();
    items.extend(mirrored);
    let found = Data { items: &items, gamed: &[], prompts: 60 }.fit(RIDGE).unwrap();
    let mean = items.iter().filter_map(|i| i.preference).sum::<f64>() / items.len() as f64;
    close(&[found.win_rate, found.coefficients[1]], &[mean, 0.0], 1e-6);
}

#[test]
fn what_length_alone_gains_is_taken_away() {
    let items = simulated(600, 0.0, 1.5, 2);
    let raw = items.iter().filter_map(|i| i.preference).sum::<f64>() / 600.0;
    let found = Data { items: &items, gamed: &[], prompts: 600 }.fit(RIDGE).unwrap();
    assert!(raw > 0.6, "{raw}");
    assert!((found.win_rate - 0.5).abs() < 0.02, "{}", found.win_rate);
}

#[test]
fn turning_the_sides_around_turns_the_win_rate_around() {
    let items = simulated(80, 0.4, 0.8, 3);
    let turned: Vec<Item> = items
        .iter()
        .map(|i| Item { preference: i.preference.map(|p| 1.0 - p), differences: vec![-i.differences[0]], ..i.clone() })
        .collect();
    let of = |items: &[Item]| Data { items, gamed: &[], prompts: 80 }.fit(RIDGE).unwrap().win_rate;
    close(&[of(&items) + of(&turned)], &[1.0], 1e-9);
}

#[test]
fn wins_alone_and_equal_lengths_have_a_fit() {
    let item = |prompt, difference| Item { prompt, preference: Some(1.0), differences: vec![difference], difficulty: 0.0 };
    for differences in [[1.0, -4.0, 9.0], [5.0, 5.0, 5.0]] {
        let items: Vec<Item> = differences.into_iter().enumerate().map(|(i, d)| item(i, d)).collect();
        let found = Data { items: &items, gamed: &[], prompts: 3 }.fit(RIDGE).unwrap();
        assert!(found.win_rate > 0.9999, "{found:?}");
    }
}

#[test]
fn resamples_are_the_same_on_any_number_of_threads() {
    let items = simulated(40, 0.2, 0.5, 4);
    let data = Data { items: &items, gamed: &[], prompts: 40 };
    let start = data.fit(RIDGE).unwrap().coefficients;
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| data.resampled(RIDGE, &start, resampling(50, 7)).unwrap())
    };
    assert_eq!(on(1), on(3));
    assert_ne!(on(1), data.resampled(RIDGE, &start, resampling(50, 8)).unwrap());
    assert_eq!(data.left_out(RIDGE, &start).unwrap().len(), 40);
}
