use std::fmt::Write as _;

use proptest::prelude::*;

use super::settings::{Dataset, RoundReference, Tokenization, TrainSettings};
use super::templates::TEMPLATES;
use super::*;

mod decoding;
mod device;
mod judges;
mod online;
mod study;

const WORLD: &str = r#"name = "toy"
seeds = [1, 2]

[dataset]
kind = "world"
vocab_size = 500

[sft]
learning_rate = 1e-3

[train]
learning_rate = 1e-4
warmup_steps = 5

[[variant]]
name = "a"
beta = 0.2

[[variant]]
name = "b"
optim = "sgd"

[generate]
temperature = 0.7

[[judge]]
name = "pairwise"
kind = "pairwise"
[judge.train]
max_steps = 9
"#;

const PAIRS: &str = r#"name = "toy"

[dataset]
kind = "pairs"
path = "pairs.jsonl"

[model]
path = "model"

[[variant]]
name = "a"

[[judge]]
name = "pairwise"
kind = "pairwise"
"#;

fn understood(text: &str) -> Suite {
    parse(text, Path::new("suites/toy.toml")).unwrap_or_else(|error| panic!("{error}\n---\n{text}"))
}

/// The messages that `base` gives with `from` replaced by `to`, for each pair of them.
fn refusals(base: &str, changes: &[(&str, &str)]) -> String {
    let mut shown = String::new();
    for (from, to) in changes {
        assert!(base.contains(from), "the base has no {from:?}");
        let error = parse(&base.replacen(from, to, 1), Path::new("toy.toml")).expect_err(to);
        assert_eq!(error.kind, crate::error::Kind::Usage);
        assert!(error.place.is_some(), "no place: {error}");
        writeln!(shown, "{error}\n").unwrap();
    }
    shown
}

/// Holds messages against the snapshot `name`.
fn refused(name: &str, messages: String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, messages));
}

fn trained<'a>(suite: &'a Suite, name: &str) -> &'a TrainSettings {
    let variant = suite.variants.iter().find(|variant| variant.name == name).unwrap();
    variant.training().unwrap_or_else(|| panic!("{name} isn't trained"))
}

#[test]
fn what_is_not_toml_or_not_of_the_right_type_is_refused_at_its_place() {
    refused(
        "what_is_not_toml_or_not_of_the_right_type_is_refused_at_its_place",
        refusals(
            WORLD,
            &[
                ("seeds = [1, 2]", "seeds = [1, 2"),
                ("seeds = [1, 2]", "seeds = [1, 2]\nseeds = [3]"),
                ("seeds = [1, 2]", "seeds = [1, -2]"),
                ("seeds = [1, 2]", "seeds = 3"),
                ("name = \"toy\"", "name = toy"),
                ("beta = 0.2", "beta = \"0.2\""),
                ("vocab_size = 500", "vocab_size = 500.5"),
                ("temperature = 0.7", "temperature = true"),
                ("[generate]", "[gate]\ngolden = 3\n[generate]"),
                ("[sft]\nlearning_rate = 1e-3", "[[sft]]\nlearning_rate = 1e-3"),
                ("[generate]", "[[generate]]"),
                ("[judge.train]", "[[judge.train]]"),
                ("seeds = [1, 2]", "seeds = [1, 2]\nstatistics = [0.9]"),
                ("optim = \"sgd\"", "optim = 3"),
                ("optim = \"sgd\"", "optim = { adamw = 1 }"),
                ("name = \"b\"", "name = [\"b\"]"),
                ("beta = 0.2", "beta = { a = 1 }"),
                ("seeds = [1, 2]", "seeds = [1, 99999999999999999999]"),
                ("seeds = [1, 2]", "seeds = [1, 2]\ntitle = yes"),
                ("[sft]", "[sft"),
                ("name = \"toy\"", "name = \"toy"),
            ],
        ),
    );
}

#[test]
fn unknown_keys_and_names_list_what_is_accepted_and_what_comes_close() {
    refused(
        "unknown_keys_and_names_list_what_is_accepted_and_what_comes_close",
        refusals(
            WORLD,
            &[
                ("beta = 0.2", "betta = 0.2"),
                ("beta = 0.2", "gamma = 0.2"),
                ("[generate]", "[genrate]"),
                ("temperature", "temprature"),
                ("max_steps", "max_setps"),
                ("kind = \"world\"", "kind = \"wordl\""),
                ("optim = \"sgd\"", "optim = \"adam\""),
                ("kind = \"pairwise\"", "kind = \"pointwise\""),
                ("beta = 0.2", "loss_type = \"ippo\""),
                ("beta = 0.2", "loss_type = [\"sigmoid\", \"stf\"]"),
                ("beta = 0.2", "loss_type = 3"),
                ("beta = 0.2", "dialect = \"tlr\""),
                ("seeds = [1, 2]", "numerics = \"quick\""),
            ],
        ),
    );
}

#[test]
fn what_is_missing_is_named() {
    refused(
        "what_is_missing_is_named",
        refusals(
            WORLD,
            &[
                ("name = \"toy\"\n", ""),
                ("[dataset]\nkind = \"world\"\nvocab_size = 500\n", ""),
                ("kind = \"world\"\n", ""),
                ("name = \"b\"\n", ""),
                ("kind = \"pairwise\"\n", ""),
                ("[sft]\nlearning_rate = 1e-3\n", ""),
            ],
        ),
    );
    refused(
        "what_is_missing_is_named_for_pairs",
        refusals(
            PAIRS,
            &[
                ("path = \"pairs.jsonl\"\n", ""),
                ("[model]\npath = \"model\"\n", ""),
                ("[[variant]]\nname = \"a\"\n", ""),
                ("[[judge]]\nname = \"pairwise\"\nkind = \"pairwise\"\n", ""),
            ],
        ),
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    refused(
        "numbers_out_of_range_are_refused",
        refusals(
            WORLD,
            &[
                ("beta = 0.2", "beta = 0"),
                ("beta = 0.2", "beta = nan"),
                ("beta = 0.2", "label_smoothing = 0.5"),
                ("beta = 0.2", "learning_rate = -1e-4"),
                ("beta = 0.2", "learning_rate = inf"),
                ("beta = 0.2", "adam_beta2 = 1.0"),
                ("beta = 0.2", "max_grad_norm = -1.0"),
                ("beta = 0.2", "per_device_train_batch_size = 0"),
                ("beta = 0.2", "gradient_accumulation_steps = 0"),
                ("beta = 0.2", "max_steps = 0"),
                ("beta = 0.2", "max_length = 512"),
                ("temperature = 0.7", "temperature = -0.1"),
                ("temperature = 0.7", "top_p = 1.5"),
                ("temperature = 0.7", "max_new_tokens = 256"),
                ("vocab_size = 500", "vocab_size = 100"),
                ("vocab_size = 500", "pairs_per_prompt = 7"),
                ("vocab_size = 500", "label_noise = 1.7"),
                ("[sft]", "[model]\nhidden_size = 100\nnum_attention_heads = 3\n[sft]"),
                ("[sft]", "[model]\nhidden_size = 64\nnum_attention_heads = 64\n[sft]"),
                ("[sft]", "[model]\nnum_key_value_heads = 3\n[sft]"),
                ("[sft]", "[statistics]\nlevel = 95\n[sft]"),
                ("[sft]", "[checks]\nkl_warn = 60.0\n[sft]"),
                ("[sft]", "[gate]\nmargin = 2.0\n[sft]"),
                ("[sft]", "[report]\nsamples = 100000\n[sft]"),
                ("kind = \"pairwise\"\n", "kind = \"pairwise\"\ntie_width = -1\n"),
                ("kind = \"pairwise\"\n", "kind = \"pairwise\"\nmin_accuracy = 1.0\n"),
            ],
        ),
    );
    refused(
        "numbers_out_of_range_are_refused_for_pairs",
        refusals(
            PAIRS,
            &[
                ("path = \"pairs.jsonl\"", "path = \"pairs.jsonl\"\nheldout_share = 0.5\njudge_share = 0.4"),
                ("path = \"pairs.jsonl\"", "path = \"pairs.jsonl\"\neval_share = 0"),
                ("path = \"pairs.jsonl\"", "path = \"pairs.jsonl\"\njudge_share = 0"),
                ("path = \"pairs.jsonl\"", "path = \"pairs.jsonl\"\nlimit = 0"),
            ],
        ),
    );
}

/// Suites whose first variant has these keys.
fn with_keys(keys: &str) -> String {
    WORLD.replacen("beta = 0.2", keys, 1)
}

#[test]
fn every_loss_is_accepted_and_keeps_what_is_written() {
    for loss in [
        "sigmoid",
        "sigmoid_norm",
        "robust",
        "ipo",
        "hinge",
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "simpo",
        "orpo",
        "cpo",
        "sft",
        "unlikelihood",
        "kto",
        "apo_zero_unpaired",
    ] {
        let suite = understood(&with_keys(&format!("loss_type = \"{loss}\"")));
        let objective = &trained(&suite, "a").objective;
        assert_eq!(objective.loss_type[0].name(), loss);
        let listed = understood(&with_keys(&format!("loss_type = [\"{loss}\"]")));
        assert_eq!(trained(&listed, "a").objective, *objective);
    }
    let mpo = "loss_type = [\"sigmoid\", \"bco_pair\", \"sft\"]\nloss_weights = [0.8, 0.2, 1.0]\nbco_shift = \"batch\"";
    let suite = understood(&with_keys(mpo));
    assert_eq!(trained(&suite, "a").objective.loss_weights, [0.8, 0.2, 1.0]);
    assert_eq!(trained(&suite, "b").objective.loss_weights, [1.0]);
    for keys in [
        "loss_type = \"exo_pair\"\nlabel_smoothing = 1e-3",
        "loss_type = \"ipo\"\ndialect = \"original\"",
        "loss_type = \"kto\"\ndialect = \"llama-factory\"\ndesirable_weight = 1.3",
        "loss_type = [\"sigmoid\", \"bco_pair\"]\nloss_weights = [0.8, 0.2]\ndialect = \"llama-factory\"",
        "loss_type = [\"hinge\", \"sft\"]\nf_divergence_type = \"alpha_divergence\"\nf_alpha_divergence_coef = -0.5",
        "ld_alpha = 0.5\nuse_weighting = true\nkl_coef = 0.1",
        "rdpo_alpha = 0.05\ndpop_lambda = 50",
    ] {
        understood(&with_keys(keys));
    }
}

#[test]
fn rounds_are_laid_over_each_other_and_take_what_the_data_say() {
    let train = "learning_rate = 1e-4\nrounds = 2\nround_judge = \"pairwise\"";
    let keys = "rounds = 3\nround_samples = 6\nround_reference = \"original\"\nround_judge = \"gold\"";
    let text = with_keys(keys).replacen("learning_rate = 1e-4", train, 1);
    let suite = understood(&text.replacen("vocab_size = 500", "vocab_size = 500\nsamples_per_prompt = 5", 1));
    let rounds = |name: &str| trained(&suite, name).rounds.clone().unwrap();
    let (own, common) = (rounds("a"), rounds("b"));
    assert_eq!((own.rounds, own.reference, own.judge.as_str()), (3, RoundReference::Original, "gold"));
    assert_eq!((own.samples_per_prompt, own.pairs_per_prompt), (6, 2));
    assert_eq!((common.rounds, common.reference, common.judge.as_str()), (2, RoundReference::Previous, "pairwise"));
    assert_eq!((common.samples_per_prompt, common.pairs_per_prompt), (5, 2));
    // One round is no round after the first, whatever [train] says of those.
    let suite = understood(&text.replacen(keys, "rounds = 1", 1));
    assert_eq!(trained(&suite, "a").rounds, None);
    // A file's prompts, labelled by its only judge.
    let suite = understood(&PAIRS.replacen("name = \"a\"", "name = \"a\"\nrounds = 2", 1));
    let rounds = trained(&suite, "a").rounds.clone().unwrap();
    assert_eq!((rounds.judge.as_str(), rounds.samples_per_prompt, rounds.pairs_per_prompt), ("pairwise", 2, 1));
}

#[test]
fn rounds_that_cannot_be_or_would_change_nothing_are_errors() {
    let keys = [
        "rounds = 0",
        "rounds = 2\nround_samples = 1",
        "rounds = 2\nround_samples = 3\nround_pairs = 4",
        "rounds = 2\nround_judge = \"parwise\"",
        "rounds = 2\nround_reference = \"first\"",
        "rounds = 1\nround_judge = \"pairwise\"",
        "round_samples = 4",
        "rounds = 2\nround_reference = \"original\"\nloss_type = \"simpo\"",
        "rounds = 2\nround_reference = \"original\"\nloss_type = [\"sft\", \"orpo\"]",
        "checkpoint = \"theirs\"\nrounds = 2",
    ];
    let mut edits: Vec<(&str, &str)> = keys.iter().map(|keys| ("beta = 0.2", *keys)).collect();
    edits.push(("[sft]", "[sft]\nrounds = 2"));
    edits.push(("[judge.train]", "[judge.train]\nround_judge = \"gold\""));
    edits.push(("[train]", "[train]\nround_pairs = 2"));
    edits.push(("[train]", "[train]\nrounds = 2\nround_samples = 2"));
    refused("rounds_that_cannot_be_or_would_change_nothing_are_errors", refusals(WORLD, &edits));
    understood(&with_keys("rounds = 2\nround_reference = \"original\"\nloss_type = \"simpo\"\nkl_coef = 0.1"));
    refused(
        "rounds_that_nobody_can_label_are_errors",
        refusals(
            &PAIRS.replacen("name = \"a\"", "name = \"a\"\nrounds = 2", 1),
            &[
                ("rounds = 2", "rounds = 2\nround_judge = \"gold\""),
                ("path = \"pairs.jsonl\"", "path = \"pairs.jsonl\"\nformat = \"conversations\""),
                ("[[judge]]", "[compare]\njudge = \"other\"\n[[judge]]\nname = \"other\"\nkind = \"pairwise\"\n[[judge]]"),
            ],
        ),
    );
}

#[test]
fn a_key_that_a_loss_ignores_is_an_error() {
    let keys = [
        "loss_type = \"ipo\"\nlabel_smoothing = 0.1",
        "loss_type = \"sft\"\nbeta = 0.1",
        "loss_type = \"unlikelihood\"\nbeta = 0.1",
        "loss_weights = [2.0]",
        "dialect = \"trl\"\nlabel_smoothing = 0.1",
        "loss_type = \"simpo\"\ndialect = \"llama-factory\"\nlabel_smoothing = 0.1",
        "loss_type = \"nca_pair\"\nf_divergence_type = \"forward_kl\"",
        "f_alpha_divergence_coef = 0.3",
        "ld_alpha = 1.0",
        "loss_type = \"orpo\"\nld_alpha = 0.5",
        "loss_type = \"aot\"\nuse_weighting = true",
        "loss_type = \"kto\"\nuse_weighting = true",
        "loss_type = \"hinge\"\nrdpo_alpha = 0.1",
        "discopop_tau = 0.1",
        "bco_shift = \"batch\"",
        "simpo_gamma = 1.0",
        "loss_type = \"simpo\"\ncpo_alpha = 1.0",
        "unlikelihood_alpha = 1.0",
        "desirable_weight = 2.0",
    ];
    let edits: Vec<(&str, &str)> = keys.iter().map(|keys| ("beta = 0.2", *keys)).collect();
    refused("a_key_that_a_loss_ignores_is_an_error", refusals(WORLD, &edits));
}

#[test]
fn losses_and_options_that_cannot_go_together_are_errors() {
    let keys = [
        "loss_type = []",
        "loss_type = [\"sigmoid\", \"sft\"]\nloss_weights = [1.0]",
        "loss_type = [\"sigmoid\", \"sft\"]\nloss_weights = [1.0, 0.0]",
        "loss_type = [\"sigmoid\", \"sigmoid\"]",
        "loss_type = [\"sigmoid\", \"kto\"]",
        "loss_type = \"exo_pair\"",
        "loss_type = [\"sigmoid\", \"nca_pair\"]\nf_divergence_type = \"forward_kl\"",
        "f_divergence_type = \"forward_kl\"\ndpop_lambda = 5.0",
        "loss_type = [\"sigmoid\", \"aot\"]\nuse_weighting = true",
        "loss_type = [\"sigmoid\", \"simpo\"]\nld_alpha = 0.5",
        "loss_type = \"nca_pair\"\ndialect = \"openrlhf\"",
        "loss_type = \"bco_pair\"\ndialect = \"llama-factory\"",
        "loss_type = \"unlikelihood\"\ndialect = \"trl\"",
        "dialect = \"original\"\nld_alpha = 0.5",
        "dialect = \"trl\"\nkl_coef = 0.5",
        "loss_type = \"kto\"\nper_device_train_batch_size = 1",
        "loss_type = \"kto\"\ndialect = \"trl\"",
        "lora_r = 4\nsync_ref_model = true\nprecompute_ref_log_probs = false",
    ];
    let edits: Vec<(&str, &str)> = keys.iter().map(|keys| ("beta = 0.2", *keys)).collect();
    refused("losses_and_options_that_cannot_go_together_are_errors", refusals(WORLD, &edits));
}

#[test]
fn an_option_without_effect_is_an_error() {
    refused(
        "an_option_without_effect_is_an_error",
        refusals(
            WORLD,
            &[
                ("[sft]\n", "[sft]\nlabel_smoothing = 0.1\n"),
                ("[sft]\n", "[sft]\nbeta = 0.1\n"),
                ("max_steps = 9", "beta = 0.1"),
                ("max_steps = 9", "packing = true"),
                ("beta = 0.2", "packing = true"),
                ("warmup_steps = 5", "warmup_steps = 5\npacking = true"),
                ("[sft]\n", "[sft]\npacking = true\nmax_length = 0\n"),
                ("[sft]\n", "[sft]\npacking_strategy = \"wrapped\"\n"),
                ("beta = 0.2", "packing_strategy = \"bfd_split\""),
                ("max_steps = 9", "resid_pdrop = 0.1"),
                ("max_steps = 9", "max_length = 100"),
                ("max_steps = 9", "max_steps = 9\nnum_train_epochs = 2"),
                ("max_steps = 9", "max_steps = 9\nsave_steps = 10"),
                ("optim = \"sgd\"", "optim = \"sgd\"\nadam_beta1 = 0.8"),
                ("beta = 0.2", "lr_scheduler_type = \"constant\"\nwarmup_steps = 3"),
                ("warmup_steps = 5", "warmup_steps = 5\nlr_scheduler_type = \"constant\""),
                ("temperature = 0.7", "temperature = 0\ntop_p = 0.9"),
                ("temperature = 0.7", "samples_per_prompt = 4\ntemperature = 0"),
                ("vocab_size = 500", "judge_share = 0.1"),
                ("[sft]", "[model]\npath = \"model\"\n[sft]"),
                ("vocab_size = 500", "[model]\npath = \"model\"\nhidden_size = 3"),
                ("kind = \"pairwise\"\n", "kind = \"pairwise\"\npath = \"judge\"\n"),
            ],
        ),
    );
    refused(
        "an_option_without_effect_is_an_error_for_pairs",
        refusals(
            PAIRS,
            &[
                ("path = \"pairs.jsonl\"", "path = \"pairs.jsonl\"\nlabel_noise = 0.1"),
                ("name = \"a\"", "name = \"a\"\ncheckpoint = \"policy\"\nlearning_rate = 1e-4"),
                ("[[variant]]\nname = \"a\"", "[train]\nbeta = 0.2\n[[variant]]\nname = \"a\"\ncheckpoint = \"policy\""),
            ],
        ),
    );
}

#[test]
fn evaluation_and_what_follows_from_it_go_together_or_are_errors() {
    refused(
        "evaluation_and_what_follows_from_it_go_together_or_are_errors",
        refusals(
            WORLD,
            &[
                ("beta = 0.2", "load_best_model_at_end = true"),
                ("beta = 0.2", "early_stopping_patience = 2"),
                ("beta = 0.2", "eval_steps = 2\ngreater_is_better = true"),
                ("beta = 0.2", "eval_steps = 2\nload_best_model_at_end = true\nearly_stopping_threshold = 0.1"),
                ("beta = 0.2", "eval_steps = 2\nload_best_model_at_end = true\nsave_steps = 3"),
                ("beta = 0.2", "eval_steps = 2\nearly_stopping_patience = 2\nmetric_for_best_model = \"win_rate\""),
                ("beta = 0.2", "save_total_limit = 2"),
                ("beta = 0.2", "ref_model_sync_steps = 2"),
                ("beta = 0.2", "sync_ref_model = true"),
                ("[sft]\n", "[sft]\nsave_total_limit = 2\n"),
                ("max_steps = 9", "eval_steps = 3"),
            ],
        ),
    );
}

/// Labelled completions instead of pairs.
fn unpaired() -> String {
    PAIRS
        .replace("path = \"pairs.jsonl\"", "path = \"rows.jsonl\"\nformat = \"unpaired\"")
        .replace("name = \"a\"", "name = \"a\"\nloss_type = \"kto\"")
        .replace("kind = \"pairwise\"", "kind = \"pairwise\"\npath = \"judge\"")
}

#[test]
fn labelled_completions_train_losses_on_single_completions_and_nothing_else() {
    let suite = understood(&unpaired());
    assert!(!suite.dataset.has_pairs() && understood(PAIRS).dataset.has_pairs() && understood(WORLD).dataset.has_pairs());
    assert!(matches!(&suite.dataset, Dataset::Pairs(pairs) if (pairs.judge_share, pairs.heldout_share) == (0.0, 0.1)));
    understood(&unpaired().replace("\"kto\"", "\"apo_zero_unpaired\"\neval_steps = 2"));
    understood(&unpaired().replace("format", "heldout_share = 0.0\nformat"));
    refused(
        "labelled_completions_train_losses_on_single_completions_and_nothing_else",
        refusals(
            &unpaired(),
            &[
                ("loss_type = \"kto\"", "beta = 0.2"),
                ("loss_type = \"kto\"", "loss_type = [\"ipo\", \"sft\"]"),
                ("loss_type = \"kto\"", "checkpoint = \"policy\"\nbeta = 0.2"),
                ("path = \"judge\"", "max_length = 64"),
                ("path = \"judge\"", "path = \"judge\"\nmin_accuracy = 0.5"),
                ("[[judge]]\nname = \"pairwise\"\nkind = \"pairwise\"\npath = \"judge\"\n", ""),
                ("format", "judge_share = 0.1\nformat"),
                ("format", "heldout_share = 1.0\nformat"),
                ("[model]", "[checks]\ndisplacement_warn = 0.1\n[model]"),
                ("format = \"unpaired\"", "heldout_share = 0.0\nformat = \"unpaired\"\n[train]\neval_steps = 2"),
            ],
        ),
    );
}

#[test]
fn how_a_file_is_read_is_kept_and_what_has_no_effect_on_it_is_refused() {
    let reading = "path = \"pairs.csv.gz\"\nformat = \"conversations\"\nchat_template = \"chat.jinja\"\nchat_date = \"2024-07-06\"\n\
                   [dataset.columns]\nprompt = \"question\"\n[dataset.audit]\nboundary_mismatch = 0.5";
    let suite = understood(&PAIRS.replace("path = \"pairs.jsonl\"", reading));
    let Dataset::Pairs(pairs) = &suite.dataset else { panic!("{:?}", suite.dataset) };
    assert_eq!(pairs.reading.columns, [("prompt".to_owned(), "question".to_owned())].into());
    assert_eq!(pairs.reading.chat_template.as_ref().unwrap().path, Path::new("chat.jinja"));
    assert_eq!(pairs.reading.audit.as_ref().unwrap().0, [("boundary-mismatch".to_owned(), 0.5)].into());
    assert!(suite.dataset.is_conversational() && suite.dataset.has_pairs());
    let separate = understood(&PAIRS.replace("path = \"pairs.jsonl\"", "path = \"pairs.jsonl\"\ntokenization = \"separate\""));
    assert_eq!(separate.dataset.tokenization(), Tokenization::Separate);
    assert_ne!(separate.digest(), understood(PAIRS).digest());
    // Digests of suites that say nothing of it don't know of it.
    let Dataset::Pairs(usual) = understood(PAIRS).dataset else { panic!("pairs") };
    let keys = serde_json::to_value(&usual).unwrap();
    assert_eq!(keys.as_object().unwrap().len(), 9, "{keys}");
    let path = "path = \"pairs.jsonl\"";
    let messages = refusals(
        PAIRS,
        &[
            (path, "path = \"p\"\nchat_template = \"chat.jinja\""),
            (path, "path = \"p\"\nformat = \"hh\"\nchat_date = \"2024-07-06\""),
            (path, "path = \"p\"\nformat = \"conversations\"\nchat_date = \"6 July\""),
            (path, "path = \"p\"\n[dataset.columns]\nlabel = \"good\""),
            (path, "path = \"p\"\n[dataset.columns]\nprompts = \"good\""),
            (path, "path = \"p\"\ncolumns = [\"a\"]"),
            (path, "path = \"p\"\n[dataset.audit]\ntruncated = 2"),
            (path, "path = \"p\"\n[dataset.audit]\ntruncation = 0.5"),
            (path, "path = \"p\"\ntokenization = \"split\""),
        ],
    );
    let world = refusals(
        WORLD,
        &[
            ("vocab_size = 500", "[dataset.audit]\ntruncated = 0.5"),
            ("vocab_size = 500", "vocab_size = 500\ntokenization = \"separate\""),
        ],
    );
    refused("how_a_file_is_read_is_kept_and_what_has_no_effect_on_it_is_refused", messages + &world);
}

#[test]
fn several_sources_have_weights_and_forms_of_their_own() {
    let path = "path = \"pairs.jsonl\"\n";
    let one = "[[dataset.source]]\nname = \"one\"\npath = \"a.jsonl\"\n";
    let two = "[[dataset.source]]\nname = \"two\"\npath = \"org/name@0123456789abcdef0123456789abcdef01234567:b.csv\"\n";
    let suite = understood(
        &PAIRS.replace(path, &format!("{one}weight = 0.5\n{two}limit = 9\n[dataset.source.columns]\nprompt = \"q\"\n")),
    );
    let Dataset::Pairs(pairs) = &suite.dataset else { panic!("{:?}", suite.dataset) };
    let weights: Vec<f64> = pairs.sources.iter().map(|source| source.weight).collect();
    assert_eq!(weights, [0.5, 1.0]);
    assert_eq!((pairs.sources[1].limit, pairs.sources[1].columns["prompt"].as_str()), (Some(9), "q"));
    let wanted = suite.on_hub();
    assert_eq!(wanted.iter().map(|wanted| wanted.reference.to_string()).collect::<Vec<_>>(), ["org/name@0123456789ab:b.csv"]);
    let with = |text: &str| format!("{one}{text}");
    let raw = "[[dataset.source]]\nname = \"raw\"\npath = \"u.jsonl\"\nformat = \"ultrafeedback\"\n";
    let cases = [
        format!("{path}{one}"),
        format!("limit = 7\n{one}"),
        with("weight = 0\n"),
        with("weight = nan\n"),
        with(&one.replace("a.jsonl", "b.jsonl")),
        with("[[dataset.source]]\nname = \"t/wo\"\npath = \"b\"\n"),
        with("[[dataset.source]]\nname = \"two\"\npath = \"b\"\nformat = \"unpaired\"\n"),
        with(raw),
        with("[[dataset.source]]\nname = \"two\"\n"),
        with("[dataset.source.columns]\nlabel = \"good\"\n"),
        format!("rated_by = \"ratings\"\n{one}"),
        format!("rated_by = \"stars\"\n{raw}"),
    ];
    let changes: Vec<(&str, &str)> = cases.iter().map(|case| (path, case.as_str())).collect();
    refused("several_sources_have_weights_and_forms_of_their_own", refusals(PAIRS, &changes));
    let rated = understood(&PAIRS.replace(path, &format!("rated_by = \"overall_score\"\nrejected_by = \"worst\"\n{raw}")));
    assert!(rated.dataset.is_conversational() && rated.dataset.has_pairs());
    assert_ne!(rated.digest(), understood(&PAIRS.replace(path, raw)).digest());
}

#[test]
fn names_and_seeds_are_usable_and_differ() {
    refused(
        "names_and_seeds_are_usable_and_differ",
        refusals(
            WORLD,
            &[
                ("name = \"toy\"", "name = \"to y\""),
                ("name = \"toy\"", "name = \"\""),
                ("name = \"a\"", "name = \"../a\""),
                ("name = \"a\"", "name = \"ä\""),
                ("name = \"a\"", "name = \"reference\""),
                ("name = \"pairwise\"", "name = \"gold\""),
                ("name = \"b\"", "name = \"a\""),
                ("seeds = [1, 2]", "seeds = [1, 2, 1]"),
                ("seeds = [1, 2]", "seeds = []"),
                ("[generate]", "[[judge]]\nname = \"pairwise\"\nkind = \"reward_model\"\n[generate]"),
                ("[generate]", "[[judge]]\nname = \"reward\"\nkind = \"reward_model\"\n[generate]"),
                ("[generate]", "[compare]\njudge = \"pairwize\"\n[generate]"),
            ],
        ),
    );
}

#[test]
fn a_template_names_what_its_judge_reads() {
    refused(
        "a_template_names_what_its_judge_reads",
        refusals(
            WORLD,
            &[
                ("kind = \"pairwise\"\n", "kind = \"pairwise\"\ntemplate = \"{prompt} {a}\"\n"),
                ("kind = \"pairwise\"\n", "kind = \"pairwise\"\ntemplate = \"{prompt}{a}{b} {c\"\n"),
                ("kind = \"pairwise\"\n", "kind = \"pairwise\"\ntemplate = \"{prompt}{a}{b}{completion}\"\n"),
                ("kind = \"pairwise\"\n", "kind = \"reward_model\"\ntemplate = \"{prompt}\"\n"),
            ],
        ),
    );
}

#[test]
fn gold_decides_only_in_a_world() {
    let text = format!("{WORLD}\n[compare]\njudge = \"gold\"\n");
    assert_eq!(understood(&text).compare.judge, "gold");
    assert_eq!(understood(WORLD).compare.judge, "pairwise");
    let text = format!("{PAIRS}\n[compare]\njudge = \"gold\"\n");
    assert!(parse(&text, Path::new("toy.toml")).is_err());
}

#[test]
fn a_suite_file_that_is_missing_or_a_folder_or_not_utf8_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let absent = load(&folder.path().join("no.toml")).unwrap_err();
    assert_eq!(absent.kind, crate::error::Kind::Input);
    assert!(absent.help.unwrap().contains("suite init"));
    assert_eq!(load(folder.path()).unwrap_err().kind, crate::error::Kind::Input);
    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"name = \"a\"\ntitle = \"\xe9\"\n").unwrap();
    let error = load(&latin).unwrap_err();
    assert_eq!((error.kind, error.place.unwrap().line), (crate::error::Kind::Usage, Some(2)));
}

#[test]
fn inputs_that_are_not_there_are_named_at_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("toy.toml");
    std::fs::write(&file, PAIRS).unwrap();
    let line = |error: Error| (error.kind, error.place.unwrap().line.unwrap());
    assert_eq!(line(load(&file).unwrap_err()), (crate::error::Kind::Input, 5));
    std::fs::write(folder.path().join("pairs.jsonl"), "").unwrap();
    assert_eq!(line(load(&file).unwrap_err()), (crate::error::Kind::Input, 8));
    std::fs::create_dir(folder.path().join("model")).unwrap();
    let incomplete = load(&file).unwrap_err();
    assert!(incomplete.message.ends_with("has no config.json"), "{incomplete}");
    assert_eq!(line(incomplete), (crate::error::Kind::Input, 8));
    for name in ["config.json", "tokenizer.json"] {
        std::fs::write(folder.path().join("model").join(name), "").unwrap();
    }
    assert_eq!(load(&file).unwrap().base, folder.path());
}

#[test]
fn a_variant_overrides_train_and_train_overrides_the_defaults() {
    let suite = understood(WORLD);
    let (a, b) = (trained(&suite, "a"), trained(&suite, "b"));
    assert_eq!((a.objective.beta, b.objective.beta), (0.2, 0.1));
    assert_eq!((a.learning_rate, a.warmup_steps), (1e-4, 5));
    assert_eq!((a.adam_beta1, a.max_grad_norm, a.num_train_epochs), (0.9, Some(1.0), 3.0));
    assert_ne!(a.optim, b.optim);
    assert_eq!(suite.sft.as_ref().unwrap().learning_rate, 1e-3);
}

#[test]
fn epochs_in_a_variant_take_the_place_of_steps_in_train() {
    let text = WORLD.replace("[train]", "[train]\nmax_steps = 7").replace("beta = 0.2", "num_train_epochs = 2");
    let suite = understood(&text);
    assert_eq!((trained(&suite, "a").max_steps, trained(&suite, "a").num_train_epochs), (None, 2.0));
    assert_eq!(trained(&suite, "b").max_steps, Some(7));
}

#[test]
fn zero_switches_a_limit_off() {
    let text = WORLD.replace("beta = 0.2", "max_grad_norm = 0\nmax_length = 0\nsave_steps = 0");
    let suite = understood(&text.replace("[train]", "[train]\nsave_steps = 3"));
    let a = trained(&suite, "a");
    assert_eq!((a.max_grad_norm, a.max_length, a.save_steps), (None, None, None));
    assert_eq!(trained(&suite, "b").save_steps, Some(3));
}

#[test]
fn sampling_is_that_of_the_dataset_everywhere() {
    let suite = understood(&WORLD.replace("vocab_size = 500", "sampling = \"sequential\""));
    let sequential = super::settings::Sampling::Sequential;
    assert!(matches!(&suite.dataset, Dataset::World(world) if world.sampling == sequential));
    assert_eq!(suite.sft.as_ref().unwrap().sampling, sequential);
    assert_eq!(trained(&suite, "a").sampling, sequential);
}

#[test]
fn relative_paths_start_at_the_suite_file() {
    let suite = understood(PAIRS);
    assert_eq!(suite.locate(Path::new("pairs.jsonl")), Path::new("suites/pairs.jsonl"));
    assert_eq!(suite.gate.golden, Path::new("golden/toy.json"));
}

#[test]
fn the_digest_knows_nothing_of_place_comments_and_layout() {
    let suite = understood(PAIRS);
    let elsewhere = parse(PAIRS, Path::new("/another/checkout/toy.toml")).unwrap();
    assert_eq!(suite.digest(), elsewhere.digest());
    let commented = PAIRS.replace('\n', " # note\n").replace("[[judge]]", "\n\n  [[judge]]");
    assert_eq!(suite.digest(), understood(&commented).digest());
    let crlf = PAIRS.replace('\n', "\r\n");
    assert_eq!(suite.digest(), understood(&crlf).digest());
}

#[test]
fn the_digest_knows_every_value() {
    let templates = TEMPLATES.map(|template| uncommented(template.text));
    for text in templates {
        let base = understood(&text).digest();
        let mut changed = 0;
        let mut table = "";
        for (index, line) in text.lines().enumerate() {
            table = if line.starts_with('[') { line } else { table };
            if table == "[train]" && line.starts_with("beta") {
                continue; // every variant has its own
            }
            let replaced = |other: &String| {
                text.lines().enumerate().map(|(at, old)| if at == index { other } else { old }).collect::<Vec<_>>().join("\n")
            };
            let valid = |other: &String| parse(&replaced(other), Path::new("toy.toml")).ok();
            if let Some(suite) = other_values(line).iter().find_map(valid) {
                assert_ne!(suite.digest(), base, "`{line}` in {table} doesn't matter");
                changed += 1;
            }
        }
        assert!(changed > 10, "only {changed} values could be changed");
    }
}

/// The line with another value, tried in turn until the suite is valid again.
fn other_values(line: &str) -> Vec<String> {
    let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else { return Vec::new() };
    let with = |value: String| format!("{key} = {value}");
    if let Ok(number) = value.parse::<i64>() {
        return vec![with((number + 1).to_string()), with((number * 2).to_string()), with((number - 1).to_string())];
    }
    if let Ok(number) = value.parse::<f64>() {
        let smaller = with(format!("{:e}", number * 0.9));
        return if number == 0.0 { vec![with("0.1".to_owned())] } else { vec![smaller] };
    }
    match value {
        "true" => vec![with("false".to_owned())],
        "\"shuffle\"" => vec![with("\"sequential\"".to_owned())],
        "\"linear\"" => vec![with("\"cosine\"".to_owned())],
        "\"fail\"" => vec![with("\"pass\"".to_owned())],
        "\"explicit\"" => vec![with("\"hh\"".to_owned())],
        text if text.starts_with('"') => vec![with(format!("\"x{}", &text[1..]))],
        _ => Vec::new(),
    }
}

/// A template with its commented defaults made real.
fn uncommented(text: &str) -> String {
    let is_default = |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    text.lines().map(|line| if is_default(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn templates_load_and_the_defaults_that_they_show_are_the_defaults() {
    let meant = |text: &str| Suite { text: String::new(), ..understood(text) };
    for template in &TEMPLATES {
        assert_eq!(meant(template.text), meant(&uncommented(template.text)), "{}", template.name);
    }
}

#[test]
fn the_templates_show_every_key() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let all = TEMPLATES.map(|template| template.text).join("\n");
    let tables = schema["definitions"].as_object().unwrap().values().chain([&schema]);
    for key in tables.filter_map(|table| table["properties"].as_object()).flat_map(|properties| properties.keys()) {
        let shown = [format!("\n{key} ="), format!("\n#{key} ="), format!("\n# {key} ="), format!("[{key}]"), format!(".{key}]")];
        assert!(shown.iter().any(|form| all.contains(form)), "no template shows `{key}`");
    }
}

#[test]
fn the_suites_of_the_repository_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.push(understood(&std::fs::read_to_string(&path).unwrap()).name);
        }
    }
    names.sort();
    assert!(names.contains(&"quickstart".to_owned()) && names.contains(&"smoke".to_owned()), "{names:?}");
}

/// `DPO_EVAL_WRITE_SCHEMA=1` writes the committed schema instead.
#[test]
fn the_committed_schema_is_the_one_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/suite.schema.json");
    if std::env::var_os("DPO_EVAL_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, schema()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == schema(), "{} is out of date: run this test with DPO_EVAL_WRITE_SCHEMA=1", path.display());
}

#[test]
fn the_quickstart_resolves_to_these_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/quickstart.toml");
    let suite = Suite { base: PathBuf::new(), ..load(&path).unwrap() };
    assert_eq!(suite.variants.len(), 2);
    assert_eq!(trained(&suite, "dpo-b0.5").max_length, Some(256));
    assert_eq!(suite.seeds, [1, 2]);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(at in 0..WORLD.len(), length in 0..20usize, insert in "[a-z\\[\\]=\"{}.#0-9\n é-]{0,12}") {
        let end = (at + length).min(WORLD.len());
        let text = format!("{}{insert}{}", &WORLD[..at], &WORLD[end..]);
        if let Err(error) = parse(&text, Path::new("toy.toml")) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_number_that_is_written_is_the_number_that_counts(beta in 1e-6f64..1e3, steps in 1u64..1_000_000) {
        let text = WORLD.replace("beta = 0.2", &format!("beta = {beta:e}\nmax_steps = {steps}"));
        let suite = understood(&text);
        prop_assert_eq!(trained(&suite, "a").objective.beta, beta);
        prop_assert_eq!(trained(&suite, "a").max_steps, Some(steps));
    }
}

#[test]
fn a_rank_trains_an_adapter_with_trls_and_pefts_defaults_and_each_table_lays_over_the_one_below() {
    use super::settings::{AdapterSource, Linear, LoraSettings};
    let train = "warmup_steps = 5\nlora_r = 16\nlora_target_modules = [\"down_proj\", \"q_proj\", \"q_proj\"]";
    let variant = "optim = \"sgd\"\nlora_r = 4\nlora_alpha = 8\nuse_rslora = true\nlora_target_modules = \"all-linear\"";
    let suite = understood(&WORLD.replace("warmup_steps = 5", train).replace("optim = \"sgd\"", variant));
    let of = |name: &str| trained(&suite, name).lora.clone();
    let target_modules = vec![Linear::QProj, Linear::DownProj];
    let below = LoraSettings { r: 16, lora_alpha: 32.0, lora_dropout: 0.0, target_modules, use_rslora: false };
    assert_eq!(of("a"), Some(AdapterSource::Fresh(below)));
    let target_modules = Linear::ALL.to_vec();
    let above = LoraSettings { r: 4, lora_alpha: 8.0, lora_dropout: 0.0, target_modules, use_rslora: true };
    assert_eq!(of("b"), Some(AdapterSource::Fresh(above)));
    let suite = understood(&WORLD.replace("optim = \"sgd\"", "lora_r = 4\nlora_target_modules = [\"v_proj\"]"));
    assert_eq!(trained(&suite, "a").lora, None);
    let suite = understood(&WORLD.replace("optim = \"sgd\"", "lora_adapter = \"tuned\"\nlora_dropout = 0.1"));
    assert_eq!(trained(&suite, "b").lora, Some(AdapterSource::Folder { path: "tuned".into(), lora_dropout: 0.1 }));
}

#[test]
fn adapters_that_cannot_be_trained_are_refused_with_the_reason() {
    let messages = refusals(
        WORLD,
        &[
            ("optim = \"sgd\"", "lora_r = 0"),
            ("optim = \"sgd\"", "lora_r = 4\nlora_dropout = 1"),
            ("optim = \"sgd\"", "lora_r = 4\nlora_alpha = 0"),
            ("optim = \"sgd\"", "lora_r = 4\nlora_target_modules = []"),
            ("optim = \"sgd\"", "lora_r = 4\nlora_target_modules = [\"q_proj\", \"lm_head\"]"),
            ("optim = \"sgd\"", "lora_alpha = 8"),
            ("warmup_steps = 5", "lora_dropout = 0.1"),
            ("optim = \"sgd\"", "lora_adapter = \"tuned\"\nlora_r = 8"),
            ("max_steps = 9", "lora_r = 8"),
        ],
    );
    let fast = WORLD.replace("optim = \"sgd\"", "lora_r = 4");
    let fast = refusals(&fast, &[("seeds = [1, 2]", "numerics = \"fast\"")]);
    let dropout = WORLD.replace("optim = \"sgd\"", "resid_pdrop = 0.1");
    let dropout = refusals(&dropout, &[("seeds = [1, 2]", "numerics = \"fast\"")]);
    refused("adapters_that_cannot_be_trained_are_refused_with_the_reason", messages + &fast + &dropout);
}
