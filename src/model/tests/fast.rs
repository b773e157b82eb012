//! The fast arithmetic held against the strict one.

use super::families::families;
use super::{random_tokens, tiny, trees, weights_of};
use crate::model::{Decoder, Gradients, Llama, Packed, Parameters, Scorer, Target, compare};
use crate::suite::settings::Numerics;

fn fast(model: &Llama) -> Llama {
    model.clone().with_numerics(Numerics::Fast)
}

/// Beside the two trees a sequence of three segments, one as long as the last two together, and one of a single token.
fn forest(vocabulary: usize) -> (Packed, Vec<Target>) {
    let (mut packed, mut targets) = trees(vocabulary);
    let root = packed.push(&random_tokens(4, vocabulary, 200));
    let middle = packed.push_after(root, &random_tokens(2, vocabulary, 201));
    let leaf = packed.push_after(middle, &random_tokens(9, vocabulary, 202));
    targets.extend(packed.completion_targets(root, middle));
    targets.extend(packed.completion_targets(middle, leaf));
    let alone = packed.push(&random_tokens(6, vocabulary, 203));
    targets.extend(packed.targets_within(alone));
    packed.push(&random_tokens(1, vocabulary, 204));
    (packed, targets)
}

fn gradients(model: &Llama, packed: &Packed, targets: &[Target]) -> Parameters {
    let mut grads = Gradients::of(&model.parameters);
    model.backward(model.forward(packed, targets), packed, targets, &weights_of(targets.len()), &mut grads);
    grads.total().clone()
}

#[track_caller]
fn assert_same_gradients(strict: &Parameters, fast: &Parameters) {
    for ((name, a), (_, b)) in strict.iter().zip(fast.iter()) {
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let apart = norm(&mut a.values.iter().zip(&b.values).map(|(a, b)| a - b)) / norm(&mut a.values.iter().copied());
        assert!(apart < 1e-4, "{name}: {apart:.1e} apart");
        assert!(b.values.iter().any(|g| *g != 0.0), "{name} receives no gradient");
    }
}

#[test]
fn scores_and_gradients_are_those_of_the_strict_kernels() {
    for model in families().into_iter().chain([tiny(false), tiny(true)]) {
        let (packed, targets) = forest(model.config.vocab_size);
        let (strict, found) = (model.score(&packed, &targets), fast(&model).score(&packed, &targets));
        for (a, b) in strict.iter().zip(&found) {
            let squares = a.log_sum_squares - b.log_sum_squares;
            let apart = [a.logp - b.logp, a.entropy - b.entropy, a.mean_logit - b.mean_logit, squares];
            assert!(apart.iter().all(|d| d.abs() < 1e-5), "{a:?} {b:?}");
        }
        assert_eq!(found.len(), targets.len());
        let tape = fast(&model).forward(&packed, &targets);
        assert_eq!(fast(&model).token_scores(&tape, &targets), found);
        assert_same_gradients(&gradients(&model, &packed, &targets), &gradients(&fast(&model), &packed, &targets));
    }
}

#[test]
fn more_targets_than_a_chunk_add_up() {
    let model = tiny(true);
    let mut packed = Packed::new();
    let mut targets = Vec::new();
    for i in 0..7 {
        let sequence = packed.push(&random_tokens(60, model.config.vocab_size, i));
        targets.extend(packed.targets_within(sequence));
    }
    assert!(targets.len() > 256);
    assert_same_gradients(&gradients(&model, &packed, &targets), &gradients(&fast(&model), &packed, &targets));
}

#[test]
fn the_same_run_gives_the_same_bits() {
    let model = fast(&tiny(true));
    let (packed, targets) = forest(model.config.vocab_size);
    assert_eq!(gradients(&model, &packed, &targets).digest(), gradients(&model, &packed, &targets).digest());
}

#[test]
fn ten_sgd_steps_lose_what_the_strict_ones_lose() {
    let mut models = [tiny(true), fast(&tiny(true))];
    let (packed, targets) = forest(models[0].config.vocab_size);
    let share = 1.0 / targets.len() as f32;
    let mut first = f32::NAN;
    for step in 0..10 {
        let losses = models.each_mut().map(|model| {
            let tape = model.forward(&packed, &targets);
            let loss = -model.token_scores(&tape, &targets).iter().map(|s| s.logp).sum::<f32>() * share;
            let mut grads = Gradients::of(&model.parameters);
            model.backward(tape, &packed, &targets, &vec![-share; targets.len()], &mut grads);
            for ((_, tensor), (_, grad)) in model.parameters.iter_mut().zip(grads.total().iter()) {
                tensor.values.iter_mut().zip(&grad.values).for_each(|(w, g)| *w -= 0.1 * g);
            }
            loss
        });
        assert!((losses[0] - losses[1]).abs() < 1e-4 * losses[0], "step {step}: {losses:?}");
        first = if step == 0 { losses[1] } else { first };
        assert!(step < 9 || losses[1] < 0.9 * first, "{first} {losses:?}");
    }
}

#[test]
fn decoding_gives_the_logits_of_scoring() {
    for model in families().into_iter().chain([tiny(false), tiny(true)]) {
        let vocabulary = model.config.vocab_size;
        let lengths = [3usize, 18, 3, 1];
        let prompts: Vec<Vec<u32>> = lengths.iter().map(|n| random_tokens(*n, vocabulary, *n as u64)).collect();
        let model = fast(&model);
        let (mut decoder, mut sequences) = (Decoder::new(&model, &prompts), prompts.clone());
        for step in 0..30 {
            let next = random_tokens(prompts.len(), vocabulary, 1000 + step);
            let alive: Vec<bool> = (0..prompts.len()).map(|i| step < 10 * (i as u64 + 1)).collect();
            for i in (0..prompts.len()).filter(|i| alive[*i]) {
                let decoded = crate::numerics::logprob::score(&decoder.logits()[i * vocabulary..][..vocabulary], next[i]);
                sequences[i].push(next[i]);
                let mut packed = Packed::new();
                let sequence = packed.push(&sequences[i]);
                let last = packed.targets_within(sequence).pop().unwrap();
                let scored = model.score(&packed, &[last])[0];
                assert!((decoded.logp - scored.logp).abs() < 1e-5, "sequence {i}, step {step}: {decoded:?} {scored:?}");
                assert!((decoded.mean_logit - scored.mean_logit).abs() < 1e-5, "sequence {i}, step {step}");
            }
            decoder.step(&next, &alive);
        }
        assert!((0..prompts.len()).all(|i| decoder.len(i) == sequences[i].len()) && !decoder.is_empty());
    }
}

#[test]
fn kl_is_that_of_the_strict_kernels() {
    let (policy, mut reference) = (tiny(false), tiny(false));
    reference.parameters.get_mut("model.layers.1.mlp.down_proj.weight").values[7] += 0.7;
    let (packed, targets) = forest(policy.config.vocab_size);
    let strict = compare(&policy, &reference, &packed, &targets).kl;
    let found = compare(&fast(&policy), &fast(&reference), &packed, &targets).kl;
    assert!(strict.iter().any(|kl| *kl > 1e-3) && strict.len() == found.len());
    assert!(strict.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-5), "{strict:?} {found:?}");
}

#[test]
#[should_panic(expected = "policy and reference compute alike")]
fn models_of_two_arithmetics_are_not_compared() {
    let model = tiny(false);
    let (packed, targets) = trees(model.config.vocab_size);
    compare(&model, &fast(&model), &packed, &targets);
}

#[test]
fn scorers_score_and_learn_as_strict_ones() {
    let base = tiny(true);
    let (strict, found) = (Scorer::from_llama(&base, 4), Scorer::from_llama(&fast(&base), 4));
    let (packed, _) = forest(base.config.vocab_size);
    let rows = [26, 7, 52];
    let of = |model: &Scorer| {
        let (scores, tape) = model.forward(&packed, &rows);
        assert_eq!(scores, model.score(&packed, &rows));
        let mut grads = Gradients::of(&model.parameters);
        model.backward(tape, &packed, &rows, &[1.0, -0.5, 0.25], &mut grads);
        (scores, grads.total().clone())
    };
    let ((a, a_grads), (b, b_grads)) = (of(&strict), of(&found));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
    assert_same_gradients(&a_grads, &b_grads);
}
