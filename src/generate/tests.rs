use std::path::Path;

use super::*;
use crate::model::{Llama, Packed};
use crate::suite::settings::FreshModel;
use crate::watch::Silent;

pub(crate) fn tokenizer() -> TextTokenizer {
    TextTokenizer::train(&["a small house by the sea", "a large house by the lake", "the sea is calm"], 280).unwrap()
}

pub(crate) fn model(tokenizer: &TextTokenizer, seed: u64) -> Llama {
    let shape = FreshModel {
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 64,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        initializer_range: 0.2,
        tie_word_embeddings: false,
    };
    Llama::fresh(&shape, tokenizer.vocab_size(), tokenizer.bos().unwrap(), tokenizer.eos(), seed)
}

fn settings() -> GenerateSettings {
    GenerateSettings { temperature: 1.0, top_p: 1.0, top_k: None, max_new_tokens: 12, samples_per_prompt: 3 }
}

/// Everything that is known of some completions, as text.
pub(crate) fn completions(model: &Llama, tokenizer: &TextTokenizer, reference: &Llama) -> String {
    let sampled = sample(model, tokenizer, &prompts(5), &settings(), 1, "test/generate", &Silent).unwrap();
    let of = MeasuredPolicy { variant: "policy", seed: None, checkpoint: 0 };
    format!("{:?}", measure(&of, model, reference, &sampled, None, &Silent).unwrap())
}

fn prompts(n: usize) -> Vec<Prompt> {
    let texts = ["a house", "the sea", "a large lake is", "by the", "calm"];
    (0..n).map(|i| Prompt { id: format!("p{i}"), text: texts[i % texts.len()].to_owned() }).collect()
}

fn draw(prompts: &[Prompt], settings: &GenerateSettings, seed: u64) -> Vec<Sampled> {
    let tokenizer = tokenizer();
    sample(&model(&tokenizer, 5), &tokenizer, prompts, settings, seed, "test/generate", &Silent).unwrap()
}

#[test]
fn a_completion_does_not_depend_on_what_is_decoded_beside_it() {
    let many = draw(&prompts(30), &settings(), 1);
    assert_eq!(many.len(), 90);
    assert_eq!(draw(&prompts(2), &settings(), 1), many[..6]);
    let longer = draw(&prompts(30), &GenerateSettings { max_new_tokens: 20, ..settings() }, 1);
    assert!(many.iter().zip(&longer).all(|(a, b)| b.ids.starts_with(&a.ids)));
}

#[test]
fn seeds_and_samples_differ_and_repeat() {
    let first = draw(&prompts(4), &settings(), 1);
    assert_eq!(draw(&prompts(4), &settings(), 1), first);
    assert_ne!(draw(&prompts(4), &settings(), 2), first);
    assert_ne!(first[0].ids, first[1].ids);
}

#[test]
fn completions_end_at_eos_or_at_max_new_tokens() {
    let eos = tokenizer().eos();
    let sampled = draw(&prompts(100), &settings(), 1);
    for s in &sampled {
        assert_eq!(s.finished, s.ids.last() == Some(&eos));
        assert!(!s.ids[..s.ids.len() - 1].contains(&eos));
        assert!(s.finished || s.ids.len() == 12);
        assert!(!s.text.contains("</s>"));
    }
    assert!(sampled.iter().any(|s| s.finished) && sampled.iter().any(|s| !s.finished));
}

#[test]
fn greedy_decoding_draws_nothing() {
    let greedy = GenerateSettings { temperature: 0.0, ..settings() };
    let sampled = draw(&prompts(2), &greedy, 1);
    assert_eq!(sampled[0].ids, sampled[2].ids);
    assert_eq!(draw(&prompts(2), &greedy, 2), sampled);
}

/// log softmax(logits)[token] in binary64.
fn log_softmax(logits: &[f32], token: u32) -> f64 {
    let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    f64::from(logits[token as usize]) - total.ln()
}

#[test]
fn a_sampled_token_was_drawn_from_the_logits_that_scoring_its_sequence_sees() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer, 5);
    for s in draw(&prompts(5), &settings(), 1) {
        let mut packed = Packed::new();
        let prompt = packed.push(&s.prompt_ids);
        let completion = packed.push_after(prompt, &s.ids);
        let scored = model.score(&packed, &packed.completion_targets(prompt, completion));
        let mut decoder = Decoder::new(&model, std::slice::from_ref(&s.prompt_ids));
        for (t, (&token, scored)) in s.ids.iter().zip(scored).enumerate() {
            // A decoder's first logits come from the packed pass that scoring uses, later ones from its cache.
            let prefix = [&s.prompt_ids[..], &s.ids[..t]].concat();
            assert_eq!(decoder.logits(), Decoder::new(&model, &[prefix]).logits());
            assert!((f64::from(scored.logp) - log_softmax(decoder.logits(), token)).abs() < 1e-5);
            decoder.step(&[token], &[true]);
        }
    }
}

#[test]
fn a_policy_measured_against_itself_has_no_kl_and_against_another_a_positive_one() {
    let tokenizer = tokenizer();
    let (policy, reference) = (model(&tokenizer, 5), model(&tokenizer, 6));
    let sampled = draw(&prompts(30), &settings(), 1);
    let of = MeasuredPolicy { variant: "dpo", seed: Some(1), checkpoint: 7 };
    let own = measure(&of, &policy, &policy, &sampled, None, &Silent).unwrap();
    let copied = measure(&of, &policy, &policy.clone(), &sampled, None, &Silent).unwrap();
    assert_eq!(own, copied);
    assert!(own.iter().all(|c| c.kl == Some(0.0) && c.policy_logp == Some(c.reference_logp)));
    let other = measure(&of, &policy, &reference, &sampled, Some(|_, text| text.len() as f64), &Silent).unwrap();
    assert!(other.iter().zip(&own).all(|(o, c)| o.kl > Some(0.0) && o.policy_logp == c.policy_logp));
    // E[log π − log π_ref] = E[KL]: the two estimators agree within their noise.
    let mean = |value: fn(&Completion) -> f64| other.iter().map(value).sum::<f64>() / other.len() as f64;
    let (k1, kl) = (mean(|c| c.policy_logp.unwrap() - c.reference_logp), mean(|c| c.kl.unwrap()));
    assert!((k1 - kl).abs() < 0.25 * kl, "{k1} {kl}");
    assert!(other.iter().all(|c| c.gold == Some(c.text.len() as f64)));
}

#[test]
fn a_prompt_that_exceeds_the_context_is_an_error() {
    let tokenizer = tokenizer();
    let long = [Prompt { id: "long".into(), text: "sea ".repeat(80) }];
    let error = sample(&model(&tokenizer, 5), &tokenizer, &long, &settings(), 1, "test", &Silent).unwrap_err();
    assert!(error.message.contains("prompt long has"), "{error}");
}

#[test]
fn the_stories_model_begins_its_greedy_story_as_published() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/models/stories260k"));
    if !folder.exists() {
        eprintln!("skipped: {} isn't there", folder.display());
        return;
    }
    let (model, tokenizer) = (Llama::load(folder).unwrap(), TextTokenizer::load(folder).unwrap());
    let greedy = GenerateSettings { temperature: 0.0, max_new_tokens: 200, samples_per_prompt: 1, ..settings() };
    let start = [Prompt { id: "start".into(), text: String::new() }];
    let story = sample(&model, &tokenizer, &start, &greedy, 0, "test", &Silent).unwrap();
    let published = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, \
                     red ball. She wanted to play with it, but it was too high.";
    assert!(story[0].text.trim_start().starts_with(published), "{}", story[0].text);
    // And on as transformers goes on; perplexities are its own too.
    let recorded: serde_json::Value = serde_json::from_str(include_str!("../../golden/models/stories.json")).unwrap();
    let ids = |value: &serde_json::Value| serde_json::from_value::<Vec<u32>>(value.clone()).unwrap();
    assert_eq!([&story[0].prompt_ids[..], &story[0].ids].concat(), ids(&recorded["story_ids"]));
    for row in recorded["texts"].as_array().unwrap() {
        let read = tokenizer.prompt(row["text"].as_str().unwrap());
        assert_eq!(read, ids(&row["ids"]));
        let mut packed = Packed::new();
        let whole = packed.push(&read);
        let scores = model.score(&packed, &packed.targets_within(whole));
        let mean = scores.iter().map(|score| f64::from(score.logp)).sum::<f64>() / scores.len() as f64;
        let expected = row["perplexity"].as_f64().unwrap();
        assert!(((-mean).exp() - expected).abs() < 1e-4, "{} {expected}", (-mean).exp());
    }
}
