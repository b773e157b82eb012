//! What each metric of `estimates.csv` is called for people, in which unit, and with how many decimals it is shown.

pub(crate) struct Metric {
    pub name: &'static str,
    pub label: &'static str,
    pub unit: &'static str,
    pub digits: usize,
    pub about: &'static str,
}

const fn metric(name: &'static str, label: &'static str, unit: &'static str, digits: usize, about: &'static str) -> Metric {
    Metric { name, label, unit, digits, about }
}

pub(crate) const METRICS: &[Metric] = &[
    metric("win_rate", "Win rate", "fraction", 3, "Mean debiased preference for the policy over the reference; ½ is a draw."),
    metric(
        "win_rate_length_controlled",
        "Win rate at equal length",
        "fraction",
        3,
        "What the judge's preferences predict where both completions are equally long: a logistic regression on the difference in characters.",
    ),
    metric("win_rate_hard", "Win rate, hard", "fraction", 3, "Share of wins, a tie counting one half."),
    metric(
        "win_rate_corrected",
        "Win rate, corrected",
        "fraction",
        3,
        "The win rate that the labels would give, from all of the judge's preferences and the labels of a few prompts (PPI++); `method` says how many labels, how much the judge counts (λ), and how many labels alone would say as much.",
    ),
    metric("tie_rate", "Ties", "fraction", 3, "Share of items that the judge calls a tie."),
    metric(
        "implicit_reward_accuracy",
        "Implicit-reward accuracy",
        "fraction",
        3,
        "Share of held-out pairs whose chosen side has the greater implicit reward.",
    ),
    metric(
        "implicit_reward_tie_rate",
        "Implicit-reward ties",
        "fraction",
        3,
        "Share of held-out pairs whose two sides have the same implicit reward.",
    ),
    metric(
        "implicit_reward_margin",
        "Implicit-reward margin",
        "β × nats",
        3,
        "Mean implicit reward of the chosen side minus that of the rejected side.",
    ),
    metric(
        "kl_per_sequence",
        "KL to the reference, a sequence",
        "nats",
        2,
        "Mean over the policy's own completions of the KL summed over tokens.",
    ),
    metric("kl_per_token", "KL to the reference, a token", "nats", 4, "The same divided by the number of tokens."),
    metric(
        "kl_k1_per_sequence",
        "KL by log-ratio (k1), a sequence",
        "nats",
        2,
        "Mean of log π(y) − log π_ref(y): a check on the estimator above.",
    ),
    metric(
        "chosen_logp_change",
        "Chosen log-probability, change",
        "nats a sequence",
        2,
        "Policy minus reference on held-out pairs.",
    ),
    metric(
        "rejected_logp_change",
        "Rejected log-probability, change",
        "nats a sequence",
        2,
        "Policy minus reference on held-out pairs.",
    ),
    metric(
        "chosen_logp_change_per_token",
        "Chosen log-probability, change a token",
        "nats",
        4,
        "Policy minus reference on held-out pairs.",
    ),
    metric("length_ratio", "Length ratio", "", 3, "Mean length of the policy's completions over that of the reference's."),
    metric("tokens_per_completion", "Tokens a completion", "", 1, "Mean length of the completions, by `compare`."),
    metric("gold_reward", "Gold reward", "", 3, "Mean gold reward of the completions."),
    metric("no_eos_rate", "Completions without EOS", "fraction", 3, "Share cut off at max_new_tokens."),
    metric("repetition_rate", "Repetition", "fraction", 3, "Share of repeated n-grams in the completions."),
    metric("position_effect", "Position effect", "logits", 3, "What being shown first is worth to the judge on these items."),
    metric("order_consistency", "Order consistency", "fraction", 3, "Share of items whose verdict is the same in both orders."),
    metric(
        "judge_accuracy",
        "Accuracy",
        "fraction",
        3,
        "Share of held-out pairs on which the judge prefers the side that is better by gold, or by the label (slice `labels`, and everywhere without gold).",
    ),
    metric("judge_brier", "Brier score", "", 3, "Mean squared error of the judge's probability; ¼ is a coin."),
    metric(
        "judge_longer_preference",
        "Prefers the longer side",
        "fraction",
        3,
        "Share of labelled pairs on which the judge prefers the longer side.",
    ),
    metric("judge_log_loss", "Log loss", "nats", 3, "Mean −log of the probability given to the better side; 0.693 is a coin."),
    metric(
        "judge_auc",
        "AUC",
        "",
        3,
        "Area under the ROC curve of its probabilities on labelled pairs, each in both directions.",
    ),
    metric(
        "judge_reliability",
        "Right where it is so sure",
        "fraction",
        3,
        "Share of labelled pairs on which it is right, among those where the probability of the side that it favours is in the slice's range.",
    ),
    metric(
        "judge_ece",
        "Expected calibration error",
        "",
        3,
        "Mean distance of stated from observed shares over ten bins; 0 is calibrated.",
    ),
    metric(
        "judge_kappa",
        "Cohen's κ",
        "",
        3,
        "Agreement with gold, or with the labels, on labelled pairs beyond chance; ties are a class of their own.",
    ),
    metric("judge_alpha", "Krippendorff's α", "", 3, "The same as Krippendorff measures it (nominal)."),
    metric(
        "judge_length_bias",
        "Length bias",
        "fraction",
        3,
        "By how much more than one half it prefers the longer side, where that is as often the better side as the worse one.",
    ),
    metric(
        "probe_null_win_rate",
        "Constant answer",
        "fraction",
        3,
        "Mean preference for one constant text over the reference's answers.",
    ),
    metric("probe_null_excess", "Constant answer, beyond gold", "fraction", 3, "The same minus gold's, by prompt."),
    metric(
        "probe_empty_win_rate",
        "Empty answer",
        "fraction",
        3,
        "Mean preference for the empty text over the reference's answers.",
    ),
    metric("probe_empty_excess", "Empty answer, beyond gold", "fraction", 3, "The same minus gold's, by prompt."),
    metric(
        "probe_filler_gain",
        "Filler",
        "fraction",
        3,
        "Mean preference, minus one half, for an answer whose last sentence is said twice over the answer.",
    ),
    metric(
        "probe_markdown_gain",
        "Markdown",
        "fraction",
        3,
        "Mean preference, minus one half, for an answer dressed in Markdown over the answer.",
    ),
    metric(
        "probe_injection_gain",
        "\"Choose me\"",
        "fraction",
        3,
        "Mean preference, minus one half, for an answer that asks to be chosen over the answer.",
    ),
    metric(
        "probe_identical_bias",
        "Identical texts",
        "fraction",
        3,
        "Mean distance of the preference from one half where an answer stands against itself.",
    ),
    metric(
        "probe_identical_position",
        "Identical texts, position",
        "fraction",
        3,
        "Probability of the side shown first, minus one half, where an answer stands against itself.",
    ),
    metric(
        "panel_alpha",
        "Agreement of the panel",
        "",
        3,
        "Krippendorff's α (nominal) of the members' outcomes on the same items.",
    ),
    metric(
        "label_kappa",
        "Cohen's κ with the labels",
        "",
        3,
        "Agreement with gold, or with whoever labels, on what the policies wrote.",
    ),
    metric("label_alpha", "Krippendorff's α with the labels", "", 3, "The same as Krippendorff measures it (nominal)."),
    metric(
        "judge_position_effect",
        "Position effect",
        "logits",
        3,
        "What being shown first is worth to the judge on labelled pairs.",
    ),
];

pub(crate) fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|m| m.name == name)
}

pub(crate) fn digits(name: &str) -> usize {
    find(name).map_or(3, |m| m.digits)
}
