//! Training on what the policy writes: what a suite may say of it.

use super::*;

const REWARD: &str = "\n[[judge]]\nname = \"reward\"\nkind = \"reward_model\"\n\n[compare]\njudge = \"pairwise\"\n";

fn world(keys: &str) -> String {
    with_keys(keys) + REWARD
}

#[test]
fn on_policy_losses_have_the_defaults_of_trl_and_keep_what_is_written() {
    let suite = understood(&world("loss_type = \"ppo\"\nreward_model = \"reward\"\nbeta = 0.05\nlam = 0.9\ntarget_kl = 6.0"));
    let settings = trained(&suite, "a");
    let online = settings.online.clone().unwrap();
    let ppo = online.ppo.unwrap();
    assert_eq!((online.reward_model.as_str(), online.num_generations, online.target_kl), ("reward", 1, Some(6.0)));
    assert_eq!(
        (ppo.num_ppo_epochs, ppo.num_mini_batches, ppo.cliprange, ppo.vf_coef, ppo.gamma, ppo.lam),
        (4, 1, 0.2, 0.1, 1.0, 0.9)
    );
    assert_eq!(settings.objective.beta, 0.05);
    let suite = understood(&world("loss_type = \"rloo\"\nreward_model = \"gold\""));
    let online = trained(&suite, "a").online.clone().unwrap();
    assert_eq!((online.reward_model.as_str(), online.num_generations, online.ppo), ("gold", 2, None));
    assert_eq!(trained(&suite, "b").online, None);
    // Without a reward model in the suite there is one to ask.
    let suite = understood(&with_keys("loss_type = \"rloo\""));
    assert_eq!(trained(&suite, "a").online.as_ref().unwrap().reward_model, "gold");
}

#[test]
fn what_train_says_of_other_losses_does_not_reach_on_policy_ones() {
    let train = "learning_rate = 1e-4\neval_steps = 5\nresid_pdrop = 0.1\nrounds = 2";
    let text = world("loss_type = \"ppo\"\nreward_model = \"reward\"").replacen("learning_rate = 1e-4", train, 1);
    let suite = understood(&text);
    let (own, other) = (trained(&suite, "a"), trained(&suite, "b"));
    assert_eq!((own.evaluation.eval_steps, own.resid_pdrop, own.rounds.clone()), (None, 0.0, None));
    assert_eq!((other.evaluation.eval_steps, other.resid_pdrop, other.rounds.is_some()), (Some(5), 0.1, true));
}

#[test]
fn on_policy_training_that_cannot_be_or_keys_that_change_nothing_are_errors() {
    let ppo = "loss_type = \"ppo\"\nreward_model = \"reward\"";
    let keys = |extra: &str| format!("{ppo}\n{extra}");
    let edits: Vec<String> = [
        "loss_type = \"ppo\"",
        "loss_type = \"ppo\"\nreward_model = \"pairwise\"",
        "loss_type = [\"ppo\", \"sft\"]\nreward_model = \"reward\"",
        "loss_type = \"rloo\"\nreward_model = \"reward\"\nnum_generations = 1",
        "loss_type = \"rloo\"\nreward_model = \"reward\"\ncliprange = 0.1",
        "reward_model = \"reward\"",
        "beta = 0.1\nnum_ppo_epochs = 2",
    ]
    .iter()
    .map(|keys| (*keys).to_owned())
    .chain(
        [
            "cliprange = 1.0",
            "lam = 1.5",
            "target_kl = 0.0",
            "num_mini_batches = 99",
            "lora_r = 4",
            "eval_steps = 5",
            "resid_pdrop = 0.1",
            "rounds = 2",
            "label_smoothing = 0.1",
            "precompute_ref_log_probs = false",
            "kl_coef = 0.1",
            "dialect = \"trl\"",
        ]
        .map(keys),
    )
    .collect();
    let changes: Vec<(&str, &str)> = edits.iter().map(|to| ("beta = 0.2", to.as_str())).collect();
    let base = WORLD.to_owned() + REWARD;
    let mut shown = refusals(&base, &changes);
    shown += &refusals(&world(ppo), &[("seeds = [1, 2]", "seeds = [1, 2]\nnumerics = \"fast\"")]);
    refused("on_policy_training_that_cannot_be_or_keys_that_change_nothing_are_errors", shown);
}
