//! The model held against candle (logits, autograd), TRL's recorded log-probabilities and identities of the arithmetic.

mod dropout;
mod encoders;
mod evaluated;
mod families;
mod fast;
mod lora;
mod oracle;

use std::path::PathBuf;

use serde_json::Value;

use crate::model::trunk::Keep;
use crate::model::{Comparison, Decoder, Gradients, Llama, Packed, Parameters, Scorer, Tape, Target, TokenScore, compare};
use crate::rng::Stream;
use crate::suite::settings::{FreshModel, Numerics};

/// A folder of the material shared beside the repository; none when it isn't there.
fn shared(path: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")).join(path);
    let found = folder.exists();
    if !found {
        eprintln!("skipped: {} is absent", folder.display());
    }
    found.then_some(folder)
}

/// A model with two layers, grouped heads and weights large enough to make logits differ.
fn tiny(tied: bool) -> Llama {
    let model = FreshModel {
        hidden_size: 24,
        intermediate_size: 36,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 64,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        initializer_range: 0.2,
        tie_word_embeddings: tied,
    };
    Llama::fresh(&model, 50, 1, 2, 11)
}

fn random_tokens(n: usize, vocabulary: usize, index: u64) -> Vec<u32> {
    let mut stream = Stream::of(3, "test/tokens", index);
    (0..n).map(|_| stream.index(vocabulary) as u32).collect()
}

fn bits(scores: &[TokenScore]) -> Vec<[u32; 4]> {
    scores.iter().map(|s| [s.logp, s.entropy, s.mean_logit, s.log_sum_squares].map(f32::to_bits)).collect()
}

/// Two prompts of uneven length with two completions each; targets are all completion tokens.
fn trees(vocabulary: usize) -> (Packed, Vec<Target>) {
    let (mut packed, mut targets) = (Packed::new(), Vec::new());
    for (i, (prompt, completions)) in [(5, [3, 19]), (17, [1, 8])].into_iter().enumerate() {
        let parent = packed.push(&random_tokens(prompt, vocabulary, 10 + i as u64));
        for length in completions {
            let child = packed.push_after(parent, &random_tokens(length, vocabulary, 100 + length as u64));
            targets.extend(packed.completion_targets(parent, child));
        }
    }
    (packed, targets)
}

fn weights_of(n: usize) -> Vec<f32> {
    let mut stream = Stream::of(3, "test/weights", 0);
    (0..n).map(|_| stream.normal() as f32).collect()
}

#[test]
fn logits_are_those_of_candle_transformers() {
    let mut models = vec![tiny(false), tiny(true)];
    if let Some(folder) = shared("models/stories260k") {
        models.push(Llama::load(&folder).unwrap());
    }
    for model in &models {
        let tokens = random_tokens(40, model.config.vocab_size, 0);
        let mut packed = Packed::new();
        packed.push(&tokens);
        let hidden = model.trunk().forward(&packed, 0..tokens.len(), Keep::Nothing).hidden;
        let (normed, _) = model.trunk().final_normed(&hidden);
        let expected = oracle::candle_logits(model, &tokens);
        for (a, b) in model.logits(&normed).iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}

#[test]
fn gradients_are_those_of_autograd_in_f64() {
    for tied in [false, true] {
        let model = tiny(tied);
        let (packed, targets) = trees(model.config.vocab_size);
        let dlogps = weights_of(targets.len());
        let mut grads = Gradients::of(&model.parameters);
        model.backward(model.forward(&packed, &targets), &packed, &targets, &dlogps, &mut grads);
        let expected = oracle::autograd(&model, &packed, &targets, &dlogps);
        for (name, grad) in grads.total().iter() {
            let largest = expected[name].iter().fold(0.0f64, |m, x| m.max(x.abs()));
            assert!(largest > 0.0, "{name} receives no gradient");
            for (a, b) in grad.values.iter().zip(&expected[name]) {
                assert!((f64::from(*a) - b).abs() < 2e-5 * largest.max(1.0), "{name}: {a} {b}");
            }
        }
    }
}

/// The quickstart's model over a batch of 16 pairs: four layers of which three are kept as their inputs.
#[test]
fn a_pass_whose_layers_are_computed_again_keeps_a_fraction_of_the_activations() {
    let model = quickstart();
    let (packed, targets) = trees(model.config.vocab_size);
    let floats = |recomputes: bool| match (Llama { recomputes, ..model.clone() }).forward(&packed, &targets) {
        Tape::Strict(tape) => tape.floats(),
        Tape::Fast(_) => unreachable!("a strict model"),
    };
    // Two hidden states, queries, keys, values and what was attended, gate and up; of the last layer only the asked rows but for keys, values and input.
    let (rows, hidden, inner) = (packed.rows(), 128, 344);
    let layer = rows * (6 * hidden + 2 * inner);
    let last = floats(false) - 3 * layer;
    assert!(last > 0 && last <= layer, "{last} {layer}");
    assert_eq!(floats(true), 3 * rows * hidden + last);
}

#[test]
fn gradients_are_those_of_central_differences() {
    check_central_differences(&tiny(false), "plain", Llama::forward);
}

/// Moves each tensor along its gradient by `step` each way: the slope of `loss` is the gradient's norm.
fn assert_slopes<M: Clone>(
    model: &M,
    trained: impl Fn(&mut M) -> &mut Parameters,
    grads: &Parameters,
    step: f64,
    what: &str,
    loss: impl Fn(&M) -> f64,
) {
    for (name, grad) in grads.iter() {
        let norm = grad.values.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        // A steep loss bends: it may move by so much.
        let step = step.min(0.03 / norm);
        let along = |step: f64| {
            let mut moved = model.clone();
            let weights = trained(&mut moved).get_mut(name).values.iter_mut();
            weights.zip(&grad.values).for_each(|(w, g)| *w += (step * f64::from(*g) / norm) as f32);
            loss(&moved)
        };
        let slope = (along(step) - along(-step)) / (2.0 * step);
        assert!((slope / norm - 1.0).abs() < 2e-2, "{name}, {what}: {slope} {norm}");
    }
}

/// Of what is trained in the model, under this forward pass.
fn check_central_differences(model: &Llama, what: &str, forward: impl Fn(&Llama, &Packed, &[Target]) -> Tape) {
    let (packed, targets) = trees(model.config.vocab_size);
    let dlogps = weights_of(targets.len());
    let mut grads = Gradients::of(model.trained());
    model.backward(forward(model, &packed, &targets), &packed, &targets, &dlogps, &mut grads);
    assert_slopes(model, Llama::trained_mut, grads.total(), 2e-3, what, |model| {
        let scores = model.token_scores(&forward(model, &packed, &targets), &targets);
        scores.iter().zip(&dlogps).map(|(s, d)| f64::from(s.logp) * f64::from(*d)).sum()
    });
}

#[test]
fn a_shared_prompt_gives_the_bits_of_the_unshared_sequences() {
    check_shared_prompt(&tiny(false));
}

fn check_shared_prompt(model: &Llama) {
    let (shared, targets) = trees(model.config.vocab_size);
    let scores = bits(&model.score(&shared, &targets));
    let mut at = 0;
    for (prompt, child) in [(0..5, 5..8), (0..5, 8..27), (27..44, 44..45), (27..44, 45..53)] {
        let mut alone = Packed::new();
        let parent = alone.push(&shared.tokens()[prompt.clone()]);
        let child = alone.push_after(parent, &shared.tokens()[child.clone()]);
        let chained = bits(&model.score(&alone, &alone.completion_targets(parent, child)));
        let mut whole = Packed::new();
        let sequence = whole.push(alone.tokens());
        let unshared = bits(&model.score(&whole, &whole.targets_within(sequence)[prompt.len() - 1..]));
        assert_eq!(chained, unshared);
        assert_eq!(scores[at..at + unshared.len()], unshared);
        at += unshared.len();
    }
    assert_eq!(at, scores.len());
}

#[test]
fn several_backward_calls_give_the_bits_of_one() {
    for tied in [false, true] {
        check_several_backward_calls(&tiny(tied));
    }
}

fn check_several_backward_calls(model: &Llama) {
    let (packed, targets) = trees(model.config.vocab_size);
    let dlogps = weights_of(targets.len());
    let mut whole = Gradients::of(&model.parameters);
    model.backward(model.forward(&packed, &targets), &packed, &targets, &dlogps, &mut whole);
    let mut parts = Gradients::of(&model.parameters);
    for tree in [0..27, 27..53] {
        let (mut part, of_tree) = (Packed::new(), targets.iter().zip(&dlogps).filter(|(t, _)| tree.contains(&t.row)));
        let (t, d): (Vec<Target>, Vec<f32>) =
            of_tree.map(|(t, d)| (Target { row: t.row - tree.start, token: t.token }, *d)).unzip();
        let cuts = if tree.start == 0 { [0, 5, 8, 27] } else { [27, 44, 45, 53] };
        let parent = part.push(&packed.tokens()[cuts[0]..cuts[1]]);
        part.push_after(parent, &packed.tokens()[cuts[1]..cuts[2]]);
        part.push_after(parent, &packed.tokens()[cuts[2]..cuts[3]]);
        model.backward(model.forward(&part, &t), &part, &t, &d, &mut parts);
    }
    assert_eq!(whole.total().digest(), parts.total().digest());
}

#[test]
fn the_last_layer_computes_wanted_rows_with_the_bits_of_all_rows() {
    check_wanted_rows(&tiny(false));
}

fn check_wanted_rows(model: &Llama) {
    let (packed, targets) = trees(model.config.vocab_size);
    let every_row = Tape::Strict(model.trunk().forward(&packed, 0..packed.rows(), Keep::Nothing));
    let all = bits(&model.token_scores(&every_row, &targets));
    assert_eq!(all, bits(&model.score(&packed, &targets)));
    // A single row, and rows of one segment only.
    for few in [&targets[4..5], &targets[25..30]] {
        assert_eq!(bits(&model.token_scores(&every_row, few)), bits(&model.score(&packed, few)));
    }
}

#[test]
fn results_do_not_depend_on_the_thread_count() {
    check_threads(&tiny(true));
}

fn check_threads(model: &Llama) {
    let (packed, targets) = trees(model.config.vocab_size);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut grads = Gradients::of(&model.parameters);
            model.backward(model.forward(&packed, &targets), &packed, &targets, &weights_of(targets.len()), &mut grads);
            (grads.total().digest(), bits(&model.score(&packed, &targets)))
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn decoding_gives_the_bits_of_scoring() {
    check_decoding(&tiny(false));
}

fn check_decoding(model: &Llama) {
    let vocabulary = model.config.vocab_size;
    let lengths = [3usize, 18, 3, 1];
    let prompts: Vec<Vec<u32>> = lengths.iter().map(|n| random_tokens(*n, vocabulary, *n as u64)).collect();
    let mut decoder = Decoder::new(model, &prompts);
    let mut sequences = prompts.clone();
    let mut decoded = vec![Vec::new(); prompts.len()];
    for step in 0..30 {
        let next = random_tokens(prompts.len(), vocabulary, 1000 + step);
        let alive: Vec<bool> = (0..prompts.len()).map(|i| step < 10 * (i as u64 + 1)).collect();
        for i in (0..prompts.len()).filter(|i| alive[*i]) {
            let logits = &decoder.logits()[i * vocabulary..][..vocabulary];
            decoded[i].push(crate::numerics::logprob::score(logits, next[i]));
            sequences[i].push(next[i]);
        }
        decoder.step(&next, &alive);
    }
    for i in 0..prompts.len() {
        let mut packed = Packed::new();
        let sequence = packed.push(&sequences[i]);
        let scored = model.score(&packed, &packed.targets_within(sequence)[lengths[i] - 1..]);
        assert_eq!(bits(&decoded[i]), bits(&scored));
        assert_eq!(decoder.len(i), sequences[i].len());
    }
}

#[test]
fn scores_of_trl_are_met() {
    let Some(folder) = shared("reference/trl_parity") else { return };
    let model = Llama::load(&folder.join("model")).unwrap();
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let ids = |v: &Value| -> Vec<u32> { v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect() };
    let (pairs, recorded) = (lines("tokenized.jsonl"), &lines("sigmoid_adamw/per_seq.jsonl")[0]);
    let steps = lines("sigmoid_adamw/steps.jsonl");
    for (s, side) in ["chosen", "rejected"].iter().enumerate() {
        let mut mean_logits = Vec::new();
        for (i, pair) in pairs[..4].iter().enumerate() {
            let mut packed = Packed::new();
            let parent = packed.push(&ids(&pair["prompt_ids"]));
            let child = packed.push_after(parent, &ids(&pair[format!("{side}_ids")]));
            packed.check(&model.config).unwrap();
            let scores = model.score(&packed, &packed.completion_targets(parent, child));
            let logp: f64 = scores.iter().map(|s| f64::from(s.logp)).sum();
            let expected = recorded["policy"][4 * s + i].as_f64().unwrap();
            assert!((logp - expected).abs() < 1e-4, "{logp} {expected}");
            mean_logits.extend(scores.iter().map(|s| f64::from(s.mean_logit)));
        }
        let mean = mean_logits.iter().sum::<f64>() / mean_logits.len() as f64;
        let expected = steps[0][format!("logits/{side}")].as_f64().unwrap();
        assert!((mean - expected).abs() < 1e-6, "{mean} {expected}");
    }
}

#[test]
fn greedy_decoding_tells_the_published_story() {
    let Some(folder) = shared("models/stories260k") else { return };
    let model = Llama::load(&folder).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let mut decoder = Decoder::new(&model, &[vec![1]]);
    let mut ids = Vec::new();
    for _ in 0..60 {
        let best = decoder.logits().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32;
        ids.push(best);
        decoder.step(&[best], &[true]);
    }
    let text = tokenizer.decode(&ids, true).unwrap();
    let expected = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.";
    assert!(text.trim_start().starts_with(expected), "{text}");
}

#[test]
fn entropy_and_kl_are_those_of_the_definitions() {
    let (policy, mut reference) = (tiny(false), tiny(false));
    let (packed, targets) = trees(policy.config.vocab_size);
    let same = compare(&policy, &reference, &packed, &targets);
    assert!(same.kl.iter().all(|kl| *kl == 0.0));
    assert_eq!(bits(&same.policy), bits(&policy.score(&packed, &targets)));
    reference.parameters.get_mut("model.layers.1.mlp.down_proj.weight").values[7] += 0.7;
    let logps = |model: &Llama, row| -> Vec<f64> {
        let all: Vec<Target> = (0..50).map(|token| Target { row, token }).collect();
        model.score(&packed, &all).iter().map(|s| f64::from(s.logp)).collect()
    };
    let Comparison { kl: kls, .. } = compare(&policy, &reference, &packed, &targets);
    let scores = policy.score(&packed, &targets);
    for (i, target) in targets.iter().enumerate() {
        let (p, r) = (logps(&policy, target.row), logps(&reference, target.row));
        let entropy: f64 = -p.iter().map(|l| l.exp() * l).sum::<f64>();
        let kl: f64 = p.iter().zip(&r).map(|(p, r)| p.exp() * (p - r)).sum();
        assert!((p.iter().map(|l| l.exp()).sum::<f64>() - 1.0).abs() < 1e-5);
        assert!((f64::from(scores[i].entropy) - entropy).abs() < 1e-5);
        assert!((f64::from(kls[i]) - kl).abs() < 1e-5, "{} {kl}", kls[i]);
    }
}

#[test]
fn a_scorer_of_any_family_has_the_gradients_of_central_differences() {
    for base in [tiny(true), families::load("gpt2"), families::load("gpt-neox"), families::load("phi"), families::load("gemma2")]
    {
        check_scorer(&base);
    }
}

fn check_scorer(base: &Llama) {
    let mut model = Scorer::from_llama(base, 4);
    model.parameters.get_mut("score.weight").values.iter_mut().for_each(|w| *w *= 10.0);
    let written = tempfile::tempdir().unwrap();
    model.save(written.path()).unwrap();
    assert_eq!(Scorer::load(written.path()).unwrap().parameters, model.parameters);
    let mut packed = Packed::new();
    let rows = [7usize, 13].map(|n| {
        let segment = packed.push(&random_tokens(n, base.config.vocab_size, n as u64));
        packed.last_row(segment)
    });
    let mut grads = Gradients::of(&model.parameters);
    let (scores, tape) = model.forward(&packed, &rows);
    assert_eq!(scores, model.score(&packed, &rows));
    model.backward(tape, &packed, &rows, &[1.0, -0.5], &mut grads);
    assert_slopes(
        &model,
        |m| &mut m.parameters,
        grads.total(),
        1e-3,
        "scorer",
        |model| {
            let s = model.score(&packed, &rows);
            f64::from(s[0]) - 0.5 * f64::from(s[1])
        },
    );
}

#[test]
fn folders_read_back_the_same_and_misfits_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(true);
    model.save(folder.path()).unwrap();
    let back = Llama::load(folder.path()).unwrap();
    assert_eq!((back.config, back.parameters.digest()), (model.config.clone(), model.parameters.digest()));
    let message = Scorer::load(folder.path()).unwrap_err().message;
    assert!(message.contains("`score.weight` is missing"), "{message}");
    let scorer = Scorer::from_llama(&model, 1);
    scorer.save(folder.path()).unwrap();
    assert_eq!(Scorer::load(folder.path()).unwrap().parameters, scorer.parameters);
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(Llama::load(folder.path()).unwrap_err().message.contains("config.json"));
}

#[test]
fn tokens_outside_the_model_are_named() {
    let model = tiny(false);
    let mut packed = Packed::new();
    packed.push(&[50]);
    assert!(packed.check(&model.config).unwrap_err().message.contains("token 50"));
    let mut packed = Packed::new();
    packed.push(&[1; 65]);
    assert!(packed.check(&model.config).unwrap_err().message.contains("65 tokens"));
}

fn quickstart() -> Llama {
    let model = FreshModel {
        hidden_size: 128,
        intermediate_size: 344,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        max_position_embeddings: 128,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        initializer_range: 0.02,
        tie_word_embeddings: false,
    };
    Llama::fresh(&model, 1000, 1, 2, 11)
}

/// Run with `cargo test --release --lib -- --ignored --nocapture is_timed` to see where the time goes.
#[test]
#[ignore = "measures time"]
fn decoding_of_the_quickstart_shape_is_timed() {
    for numerics in [Numerics::Strict, Numerics::Fast] {
        decoding_is_timed(&quickstart().with_numerics(numerics));
    }
}

fn decoding_is_timed(model: &Llama) {
    let prompts: Vec<Vec<u32>> = (0..64).map(|i| random_tokens(24, 1000, i)).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut best = f64::MAX;
    for _ in 0..10 {
        let seconds = pool.install(|| {
            let mut decoder = Decoder::new(model, &prompts);
            let start = std::time::Instant::now();
            (0..24).for_each(|step| decoder.step(&random_tokens(64, 1000, step), &[true; 64]));
            start.elapsed().as_secs_f64()
        });
        best = best.min(seconds);
    }
    println!("{}: 64 sequences: {:.0} tokens/s", model.numerics.name(), 64.0 * 24.0 / best);
}

#[test]
#[ignore = "measures time"]
fn a_step_of_the_quickstart_shape_is_timed() {
    for numerics in [Numerics::Strict, Numerics::Fast] {
        a_step_is_timed(&quickstart().with_numerics(numerics));
    }
}

fn a_step_is_timed(model: &Llama) {
    let (mut packed, mut targets) = (Packed::new(), Vec::new());
    for tree in 0..16 {
        let parent = packed.push(&random_tokens(24, 1000, tree));
        for side in [18, 20] {
            let child = packed.push_after(parent, &random_tokens(side, 1000, tree * 40 + side as u64));
            targets.extend(packed.completion_targets(parent, child));
        }
    }
    let dlogps = weights_of(targets.len());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut grads = Gradients::of(&model.parameters);
    let mut best = [f64::MAX; 3];
    for _ in 0..30 {
        let seconds = pool.install(|| {
            let start = std::time::Instant::now();
            let tape = model.forward(&packed, &targets);
            let forward = start.elapsed().as_secs_f64();
            model.token_scores(&tape, &targets);
            let scored = start.elapsed().as_secs_f64();
            model.backward(tape, &packed, &targets, &dlogps, &mut grads);
            [forward, scored - forward, start.elapsed().as_secs_f64() - scored]
        });
        best.iter_mut().zip(seconds).for_each(|(b, s)| *b = b.min(s));
    }
    let ms = best.map(|s| format!("{:.1}", s * 1e3));
    println!(
        "{}: {} tokens, {} targets: forward {} ms, scores {} ms, backward {} ms",
        model.numerics.name(),
        packed.rows(),
        targets.len(),
        ms[0],
        ms[1],
        ms[2]
    );
}
