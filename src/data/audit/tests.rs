use std::path::Path;

use super::*;
use crate::data::files::{prompt_id, read_pairs};
use crate::data::split::tests::split;
use crate::data::world;
use crate::data::{LabelledCompletion, Pair};
use crate::suite::settings::{PairsFormat, PairsSettings, ReadingSettings, Sampling, WorldSettings};

fn pair(id: &str, prompt: &str, chosen: &str, rejected: &str) -> Pair {
    let [id, prompt, chosen, rejected] = [id, prompt, chosen, rejected].map(str::to_owned);
    Pair { id, prompt_id: prompt_id(&prompt), prompt, chosen, rejected, gold: None }
}

fn tokenizer() -> TextTokenizer {
    TextTokenizer::train(&["How is the red kettle? The kettle is good, and the price is fine.".repeat(3)], 300).unwrap()
}

fn count<'a>(items: &'a [AuditItem], id: &str) -> &'a AuditItem {
    items.iter().find(|item| item.id == id).unwrap_or_else(|| panic!("no item {id}"))
}

#[test]
fn every_oddity_is_counted_and_its_first_case_named() {
    let train = [
        pair("a", "How is it?", " Good.", " Bad."),
        pair("b", "How is it?", " Bad.", " Good."),
        pair("c", "How is it?", " Good.", " Bad."),
        pair("d", "How is the ket", "tle?", " "),
        pair("e", "Why?", " Same.", " Same."),
        pair("f", "Why?", " It is <s> odd.", &" and long".repeat(30)),
    ];
    let eval = [Prompt { id: "x".into(), text: "how  is IT?".into() }];
    let tokenizer = tokenizer();
    let demonstrations = [Demonstration { prompt_id: "d1".into(), prompt: "Why?".into(), completion: " So.".into() }];
    let input = AuditInput {
        demonstrations: &held(&demonstrations),
        train: &held(&train),
        heldout: &held(&[]),
        judge: &held(&[]),
        eval: &eval,
        tokenizer: Some(&tokenizer),
        max_length: Some(100),
        full: false,
    };
    let items = audit(&input).unwrap();
    let expected = [
        ("overlap-train-eval", 1, true, "\"how is it?\""),
        ("overlap-demonstrations-train", 1, false, "\"why?\""),
        ("overlap-demonstrations-eval", 0, true, "too"),
        ("identical-sides", 1, true, "e"),
        ("duplicate-pairs", 1, false, "c as a"),
        ("contradictory-pairs", 2, false, "b against a"),
        ("empty-completions", 1, false, "d"),
        ("chosen-longer", 3, false, "a"),
        ("truncated", 1, false, "f"),
        ("emptied-by-truncation", 0, false, "100 tokens"),
        ("boundary-mismatch", 1, false, "d"),
        ("unknown-tokens", 0, false, "lacks"),
        ("special-tokens-in-text", 1, false, "f"),
    ];
    for (id, n, must_be_zero, end) in expected {
        let item = count(&items, id);
        assert_eq!((item.count, item.must_be_zero), (n, must_be_zero), "{item:?}");
        assert!(item.message.ends_with(end), "{item:?}");
    }
    let ids: BTreeSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids.len(), items.len());
}

#[test]
fn long_prompts_are_left_out_and_counted_and_never_all_of_them() {
    let tokenizer = tokenizer();
    let pairs = [pair("a", "Why?", " So.", " No."), pair("b", &"Why? ".repeat(40), " So.", " No.")];
    let longest = tokenizer.prompt("Why?").len();
    let of = |longest: usize| {
        let mut long = LongPrompts::above(longest, Pair::UNIT);
        let keeps = |pair: &&Pair| long.keeps(&pair.id, tokenizer.prompt(&pair.prompt).len());
        (pairs.iter().filter(keeps).cloned().collect::<Vec<Pair>>(), long.item())
    };
    let (kept, item) = of(longest);
    let item = item.unwrap();
    assert_eq!(kept, pairs[..1]);
    assert_eq!((item.id.as_str(), item.count, item.total), ("prompts-too-long", 1, 2));
    assert!(item.message.ends_with("the first: b"), "{}", item.message);
    let error = of(longest - 1).1.unwrap_err();
    assert!(error.message.ends_with(&format!("the shortest has {longest}")), "{error}");
}

#[test]
fn a_prompt_that_leaves_no_room_is_an_error_with_its_lengths() {
    let tokenizer = tokenizer();
    let prompts = [("a", "How is it?"), ("b", "How is the red kettle? How is the red kettle?")];
    check_lengths(&tokenizer, 64, 8, prompts).unwrap();
    let length = tokenizer.prompt(prompts[1].1).len();
    let error = check_lengths(&tokenizer, length, 1, prompts).unwrap_err().to_string();
    assert!(error.contains(&format!("of b has {length} tokens")) && error.contains(&format!("context is {length}")), "{error}");
}

#[test]
fn the_synthetic_world_passes_its_audit() {
    let settings = WorldSettings {
        demonstrations: 600,
        vocab_size: 600,
        train_prompts: 100,
        heldout_prompts: 50,
        judge_prompts: 100,
        eval_prompts: 50,
        samples_per_prompt: 4,
        pairs_per_prompt: 2,
        label_temperature: 0.5,
        label_noise: 0.0,
        sampling: Sampling::Shuffle,
    };
    let data = world::make(&settings, 11).unwrap();
    let tokenizer = TextTokenizer::train(&data.corpus, settings.vocab_size).unwrap();
    let texts = |prompts: &[Prompt]| -> Vec<Pair> {
        prompts.iter().map(|p| pair(&p.id, &p.text, " It is good.", " It is bad.")).collect()
    };
    let (train, heldout, judge) = (texts(&data.train), texts(&data.heldout), texts(&data.judge));
    let items = audit(&AuditInput {
        demonstrations: &held(&data.demonstrations),
        train: &held(&train),
        heldout: &held(&heldout),
        judge: &held(&judge),
        eval: &data.eval,
        tokenizer: Some(&tokenizer),
        max_length: Some(128),
        full: false,
    })
    .unwrap();
    for item in items.iter().filter(|item| item.must_be_zero || item.id == "boundary-mismatch" || item.id == "truncated") {
        assert_eq!(item.count, 0, "{item:?}");
    }
    assert_eq!(items.iter().filter(|item| item.id.starts_with("overlap-")).count(), 10);
}

#[test]
fn oddities_of_labelled_completions_are_counted() {
    let row = |id: &str, completion: &str, label| {
        let [id, prompt, completion] = [id, "How is it?", completion].map(str::to_owned);
        LabelledCompletion { id, prompt_id: prompt_id(&prompt), prompt, completion, label }
    };
    let train = [row("a", " Good.", true), row("b", " Good.", true), row("c", " Good.", false), row("d", "  ", false)];
    let eval = [Prompt { id: "x".into(), text: "how is it?".into() }];
    let tokenizer = tokenizer();
    let (tokenizer, max_length) = (Some(&tokenizer), Some(1));
    let (demonstrations, heldout, judge) = (&held(&[]), &held(&[]), &held(&[]));
    let input =
        AuditInput { demonstrations, train: &held(&train), heldout, judge, eval: &eval, tokenizer, max_length, full: false };
    let items = audit(&input).unwrap();
    let expected = [
        ("overlap-train-eval", 1, "1 of 1 prompts of `eval` stand in `train` too"),
        ("duplicate-rows", 1, "b as a"),
        ("contradictory-labels", 1, "c against b"),
        ("empty-completions", 1, "d"),
        ("undesirable", 2, "c"),
        ("truncated", 4, "a"),
    ];
    for (id, n, words) in expected {
        let item = count(&items, id);
        assert!(item.count == n && item.message.contains(words), "{item:?}");
    }
}

/// Counts of HH-RLHF's harmless-base test split, from a few lines of Python over the same file.
#[test]
fn all_of_hh_reads_splits_and_audits() {
    let shared = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"));
    let path = shared.join("data/hh-harmless-base-test.jsonl.gz");
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return;
    }
    let settings = PairsSettings {
        path,
        format: PairsFormat::Hh,
        limit: None,
        sources: Vec::new(),
        max_prompt_length: None,
        heldout_share: 0.1,
        judge_share: 0.2,
        eval_share: 0.1,
        eval_prompts: 100,
        sampling: Sampling::Shuffle,
        reading: ReadingSettings::default(),
    };
    let file = read_pairs(&settings.path, settings.format, settings.limit).unwrap();
    assert_eq!(file.rows.len(), 2312);
    assert_eq!(count(&file.audit, "identical-sides-left-out").count, 0);
    assert_eq!(count(&file.audit, "further-turns").count, 5);
    let splits = split(file.rows, &settings).unwrap();
    assert_eq!(splits.eval.len(), 100);
    let tokenizer = TextTokenizer::load(&shared.join("models/stories260k")).unwrap();
    let items = audit(&AuditInput {
        demonstrations: &held(&[]),
        train: &held(&splits.train),
        heldout: &held(&splits.heldout),
        judge: &held(&splits.judge),
        eval: &splits.eval,
        tokenizer: Some(&tokenizer),
        max_length: Some(512),
        full: false,
    })
    .unwrap();
    for item in &items {
        eprintln!("{:32} {}", item.id, item.message);
        assert!(!item.must_be_zero || item.count == 0, "{item:?}");
    }
    assert!(count(&items, "truncated").count > 0);
    let error = check_lengths(&tokenizer, 512, 1, splits.train.iter().map(|p| (p.id.as_str(), p.prompt.as_str()))).unwrap_err();
    assert!(error.to_string().contains("but the model's context is 512"), "{error}");
}

#[test]
fn the_whole_audit_counts_ends_lengths_and_likeness_too() {
    let tokenizer = TextTokenizer::train(&["How is it? It is so good, so bad, so long and so on."], 300).unwrap();
    let train = [
        pair("a", "How is it?", " It is so good", " bad"),
        pair("b", "<s>How is it?", " good</s></s>", " bad"),
        pair("c", "one two three four five six seven eight nine ten eleven twelve thirteen", " good", " bad"),
        pair("d", "One two three four five six seven eight nine ten eleven twelve thirteen!", " good", " bad"),
    ];
    let eval =
        [Prompt { id: "e".into(), text: "x one two three four five six seven eight nine ten eleven twelve thirteen".into() }];
    let whole = |tokenizer: &TextTokenizer| {
        let (tokenizer, max_length, eval) = (Some(tokenizer), Some(20), &eval);
        let (demonstrations, train, heldout, judge) = (&held(&[]), &held(&train), &held(&[]), &held(&[]));
        audit(&AuditInput { demonstrations, train, heldout, judge, eval, tokenizer, max_length, full: true }).unwrap()
    };
    let items = whole(&tokenizer);
    let of = |items: &[AuditItem], id: &str| {
        let item = items.iter().find(|item| item.id == id).unwrap_or_else(|| panic!("no {id}"));
        (item.count, item.total, item.message.clone())
    };
    let count = |id: &str| of(&items, id).0;
    assert_eq!((count("near-duplicates"), count("ngram-overlap-train-eval")), (1, 1));
    assert_eq!((count("missing-bos"), count("double-bos")), (0, 1));
    assert_eq!((count("missing-eos"), count("double-eos")), (0, 1));
    assert!(count("truncated-chosen") >= 2 && count("truncated-chosen") + count("truncated-rejected") == count("truncated"));
    let lengths = of(&items, "rejected-length");
    assert_eq!((lengths.0, lengths.1), (4, 4));
    // Without a template's own tokens a text has neither BOS nor EOS.
    let items = whole(&tokenizer.for_texts(true));
    assert_eq!((of(&items, "missing-bos").0, of(&items, "missing-eos").0), (3, 7));
    assert!(items.iter().all(|item| item.id != "special-tokens-in-text"));
}
