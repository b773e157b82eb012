use std::collections::BTreeSet;

use proptest::prelude::*;

use super::gold::Parts;
use super::*;
use crate::data::tokenize::TextTokenizer;
use crate::suite::settings::Sampling;

const PROMPT: &str = "Review of the red kettle:";

fn gold(text: &str) -> f64 {
    gold_reward(PROMPT, text)
}

fn settings() -> WorldSettings {
    WorldSettings {
        demonstrations: 3000,
        vocab_size: 800,
        train_prompts: 600,
        heldout_prompts: 150,
        judge_prompts: 600,
        eval_prompts: 150,
        samples_per_prompt: 4,
        pairs_per_prompt: 2,
        label_temperature: 0.5,
        label_noise: 0.0,
        sampling: Sampling::Shuffle,
    }
}

#[test]
fn better_texts_have_higher_rewards() {
    let ladder = [
        " The kettle is excellent, and I love the design. Its price is hard to beat.",
        " The kettle is excellent and I love the design.",
        " The kettle is good, and the design is nice.",
        " The kettle is good, but the design is decent.",
        " The kettle is ordinary, but the design is fine.",
        " The kettle is weak, but the design is fine.",
        " The kettle is bad, and the design is dull.",
        " The kettle is awful, and I hate the design.",
    ];
    for pair in ladder.windows(2) {
        assert!(gold(pair[0]) > gold(pair[1]), "{pair:?}: {} {}", gold(pair[0]), gold(pair[1]));
    }
}

#[test]
fn degenerate_texts_lose_to_plain_praise() {
    let plain = gold(" The kettle is good, and the design is nice.");
    let long_praise = " The kettle is excellent.".repeat(2000);
    let degenerate = [
        "",
        "   \n",
        "...",
        "great",
        " great great great great great great great great",
        " excellent superb perfect wonderful great love enjoy joy success",
        " is kettle the good and, nice design the is.",
        " Der Kessel ist gut, und die Form ist schön.",
        " 这个水壶很好。",
        " The toaster is excellent, and this sofa is a joy.",
        " The design is good, but the design is bad.",
        &long_praise,
        &" excellent".repeat(10_000),
    ];
    for text in degenerate {
        assert!(gold(text) < plain, "{} {}", &text[..text.len().min(60)], gold(text));
    }
    assert!(gold("") <= -1.7 && gold(" great great great") <= -1.7 && gold(&" excellent".repeat(10_000)) <= -1.7);
    let repetitive = gold(" The kettle is excellent. The design is excellent. The price is excellent. The size is excellent.");
    let varied = gold(" The kettle is excellent. The design is superb. The price is wonderful. The size is excellent.");
    assert!(repetitive < varied - 0.3, "one word for everything says less: {repetitive} {varied}");
}

#[test]
fn the_parts_say_why() {
    let parts = |text| Parts::of("How is the price of the red kettle?", text);
    let flawless = parts(" The price is good, and I like the size of it.");
    assert!(flawless.answer > 0.0 && flawless.ill_formed > 0.0, "{flawless:?}");
    let clean = parts(" Overall, the price is good. But the kettle is weak!");
    assert_eq!((clean.ill_formed, clean.repetition, clean.contradiction), (0.0, 0.0, 0.0));
    assert!(parts(" The price is good, but the price is bad.").contradiction > 0.4);
    assert!(parts(" The price is good. The price is good.").repetition > 0.5);
    assert!(parts(" The price is good and the size is good.").repetition > 0.2);
    assert_eq!(parts(" The size is good.").answer, 0.0);
    assert!(parts(" The price is good and").ill_formed > 0.0);
    assert!(parts(" The price is good").ill_formed > 0.0);
    assert!(parts(" The price is good, the size is fine.").ill_formed > 0.0);
    assert_eq!(parts(" It’s odd.").ill_formed, 1.0);
}

#[test]
fn longer_is_not_better_by_itself() {
    let aspects = super::lexicon::ASPECTS;
    let words = ["ordinary", "average"];
    let sentence = |i: usize| format!(" The {} is {}.", aspects[i], words[i % 2]);
    let text = |n: usize| -> String { (0..n).map(sentence).collect() };
    assert!(gold(&text(2)) > gold(&text(1)), "one short clause is too short");
    assert!(gold(&text(12)) < gold(&text(2)));
}

proptest! {
    #[test]
    fn any_text_has_a_reward_in_range(prompt in ".{0,80}", text in ".{0,400}") {
        let value = gold_reward(&prompt, &text);
        prop_assert!((-6.35..=3.3).contains(&value));
        prop_assert_eq!(value.to_bits(), gold_reward(&prompt, &text).to_bits());
    }

    #[test]
    fn repeating_a_sentence_or_adding_nonsense_never_helps(seed in 0u64..500, copies in 1usize..6, nonsense in "[b-df-hj-np-tv-z]{3,8}") {
        let subject = Subject { modifier: 0, thing: 1, aspect: None };
        let text = prose::review(subject, &mut Stream::of(seed, "test/review", 0));
        prop_assume!(text.ends_with(['.', '!']));
        let before = gold(&text);
        prop_assert!(gold(&text.repeat(copies + 1)) <= before, "{}", text);
        let mut longer = text.clone();
        let last = text.rfind(['.', '!']).map(|end| text[..end].rfind(['.', '!']).map_or(0, |p| p + 1)).unwrap_or(0);
        let sentence = &text[last..];
        let mut reward = before;
        for _ in 0..copies {
            longer.push_str(sentence);
            prop_assert!(gold(&longer) <= reward + 1e-12, "{}", longer);
            reward = gold(&longer);
        }
        let padded = [&text, " ", &nonsense, "."].concat();
        prop_assert!(gold(&padded) <= before);
    }
}

#[test]
fn all_prompts_are_distinct_whatever_the_case_and_space() {
    let world = make(&settings(), 7).unwrap();
    let of = |prompts: &[Prompt]| prompts.iter().map(|p| p.text.to_lowercase()).collect::<Vec<_>>();
    let mut all: Vec<String> =
        [&world.train, &world.heldout, &world.judge, &world.eval].into_iter().flat_map(|p| of(p)).collect();
    assert_eq!(all.len(), 1500);
    all.extend(world.demonstrations.iter().map(|d| d.prompt.to_lowercase()).collect::<BTreeSet<_>>());
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert!(distinct.len() > 4000);
    assert_eq!(make(&settings(), 7).unwrap(), world);
    assert_ne!(make(&settings(), 8).unwrap().train, world.train);
}

#[test]
fn more_prompts_than_the_world_has_is_an_error() {
    let error = make(&WorldSettings { train_prompts: 10_000, ..settings() }, 7).unwrap_err();
    assert!(error.to_string().contains("4608") && error.help.is_some(), "{error}");
}

#[test]
fn demonstrations_are_many_short_and_of_varied_worth() {
    are_of_varied_worth(1000);
}

#[test]
#[ignore = "a quarter of a minute of gold rewards; the small one above has the same limits"]
fn many_demonstrations_are_of_varied_worth() {
    are_of_varied_worth(12_000);
}

fn are_of_varied_worth(count: usize) {
    let world = make(&WorldSettings { demonstrations: count, ..settings() }, 3).unwrap();
    let distinct: BTreeSet<&str> = world.demonstrations.iter().map(|d| d.completion.as_str()).collect();
    assert!(12 * distinct.len() > 11 * count, "{}", distinct.len());
    let rewards: Vec<f64> = world.demonstrations.iter().map(|d| gold_reward(&d.prompt, &d.completion)).collect();
    let n = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / n;
    let std = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!(mean.abs() < 0.8 && (0.7..1.6).contains(&std), "{mean} {std}");
    let whole = world.demonstrations.iter().filter(|d| Parts::of(&d.prompt, &d.completion).ill_formed == 0.0).count();
    assert!((0.93..0.99).contains(&(whole as f64 / n)), "{whole}");
    let tokenizer = TextTokenizer::train(&world.corpus[..count / 2], 800).unwrap();
    let mut lengths: Vec<usize> =
        world.demonstrations[..count / 2].iter().map(|d| tokenizer.example(d).completion.len()).collect();
    lengths.sort_unstable();
    let shorter = lengths.iter().filter(|&&l| l <= 40).count();
    let median = lengths[lengths.len() / 2];
    assert!((10..=30).contains(&median) && 20 * shorter > 19 * lengths.len(), "{median} {shorter}");
}

#[test]
fn held_out_demonstrations_answer_the_held_out_prompts_and_no_others() {
    let world = make(&settings(), 3).unwrap();
    let held_out = heldout_demonstrations(&settings(), 3).unwrap();
    assert_eq!(held_out.iter().map(|d| &d.prompt).collect::<Vec<_>>(), world.heldout.iter().map(|p| &p.text).collect::<Vec<_>>());
    let rewards: Vec<f64> = held_out.iter().map(|d| gold_reward(&d.prompt, &d.completion)).collect();
    assert!((rewards.iter().sum::<f64>() / rewards.len() as f64).abs() < 0.8, "{rewards:?}");
    let learnt: BTreeSet<&str> = world.demonstrations.iter().map(|d| d.prompt.as_str()).collect();
    assert!(held_out.iter().all(|d| !learnt.contains(d.prompt.as_str())));
}

#[test]
fn the_tokenizer_of_a_world_is_the_same_at_every_training() {
    for seed in 0..3 {
        let world = make(&WorldSettings { demonstrations: 1500, ..settings() }, seed).unwrap();
        let train = || TextTokenizer::train(&world.corpus, 1024).unwrap().digest();
        assert_eq!(train(), train());
    }
}

#[test]
fn things_aspects_and_modifiers_can_be_told_apart() {
    use super::lexicon::{ASPECTS, MODIFIERS, THINGS};
    let distinct: BTreeSet<&str> = [ASPECTS, MODIFIERS, THINGS].concat().into_iter().collect();
    assert_eq!(distinct.len(), ASPECTS.len() + MODIFIERS.len() + THINGS.len());
    for thing in THINGS {
        let mut words = thing.split(' ');
        assert!(words.all(|word| !ASPECTS.contains(&word)), "{thing}");
        // No thing's name begins another's, so a prompt names one.
        assert!(THINGS.iter().all(|other| other == thing || !other.starts_with(&format!("{thing} "))), "{thing}");
    }
}
