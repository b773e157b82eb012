//! What every column of every CSV means; the headers are written from here.

use std::fmt::Write;

use super::metrics::METRICS;

pub(crate) struct Table {
    pub file: &'static str,
    pub about: &'static str,
    pub columns: &'static [Column],
}

pub(crate) struct Column {
    pub name: &'static str,
    pub about: &'static str,
}

const fn column(name: &'static str, about: &'static str) -> Column {
    Column { name, about }
}

const VARIANT: Column = column("variant", "Name of the variant in the suite file.");
const STEP: Column = column("checkpoint", "Optimizer step of the checkpoint.");
const PROMPT_ID: Column = column("prompt_id", "The prompt; intervals are clustered by it.");

pub(crate) const CELLS: Table = Table {
    file: "cells.csv",
    about: "One row a cell of the plan: what was computed, under which key, with which result.",
    columns: &[
        column("id", "The cell's name in the plan."),
        column("stage", "The stage it belongs to."),
        column("key", "SHA-256 over everything that can change its output."),
        column("output", "SHA-256 over the names and digests of its outputs."),
    ],
};

pub(crate) const TRAIN_LOG: Table = Table {
    file: "train_log.csv",
    about: "One row an optimizer step, under TRL's names. Log-probabilities and rewards are means over the batch, in nats. \
            Empty: the objective, or the batch, has no such thing.",
    columns: &[
        VARIANT,
        column("seed", "Training seed."),
        column("step", "Optimizer step, from 1."),
        column("epoch", "Passes over the training pairs."),
        column("loss", "Loss of the batch before this step's update."),
        column("rewards/chosen", "β (log π(chosen) − log π_ref(chosen)); β log π(chosen) for objectives without a reference."),
        column("rewards/rejected", "The same of rejected."),
        column("rewards/margins", "rewards/chosen − rewards/rejected."),
        column("rewards/accuracies", "Share of pairs whose chosen reward is strictly greater."),
        column("rewards/ties", "Share of pairs whose rewards are equal."),
        column("logps/chosen", "log π(chosen), summed over the completion's tokens."),
        column("logps/rejected", "log π(rejected), summed over the completion's tokens."),
        column("logps/chosen_fell", "Share of chosen completions that are less likely than under the reference."),
        column("kl/chosen", "Implicit KL: log π(chosen) − log π_ref(chosen), nats."),
        column("kl/rejected", "Implicit KL: log π(rejected) − log π_ref(rejected), nats."),
        column("kl", "KTO's KL: mean log-ratio of mismatched completions, 0 at least, nats."),
        column("nll_loss", "Cross-entropy of the chosen completions, where it is part of the loss."),
        column("log_odds_ratio", "ORPO: mean of log σ(log odds ratio)."),
        column("log_odds_chosen", "ORPO: mean log odds ratio."),
        column("logits/chosen", "Mean logit over the vocabulary and the chosen completion's positions."),
        column("logits/rejected", "Mean logit over the vocabulary and the rejected completion's positions."),
        column("entropy", "Mean entropy of the next-token distribution, nats."),
        column("grad_norm", "Euclidean norm of the gradient before clipping."),
        column("learning_rate", "Learning rate of this step."),
        column("num_tokens", "Tokens through the policy since step 1, prompts counted once a sequence."),
    ],
};

pub(crate) const ONLINE_LOG: Table = Table {
    file: "online_log.csv",
    about: "One row an optimizer step of training on what the policy writes (PPO, RLOO): TRL's names, means over the step's completions, \
            and over its updates where it has several. Nats. Empty: not PPO.",
    columns: &[
        VARIANT,
        column("seed", "Training seed."),
        column("step", "Optimizer step, from 1."),
        column("objective/scores", "What the reward model gives, less what an unfinished completion costs."),
        column("objective/kl", "Σ log π − log π_ref over a completion's tokens."),
        column("objective/kl_coef", "β at this step."),
        column("objective/rlhf_reward", "objective/scores − objective/kl_coef · objective/kl."),
        column("objective/entropy", "−Σ log π over a completion's tokens."),
        column("completions/mean_length", "Tokens a completion."),
        column("completions/clipped_ratio", "Share of completions that don't end with EOS."),
        column("loss/policy_avg", "Clipped surrogate."),
        column("loss/value_avg", "Clipped squared error of the value head, halved."),
        column("policy/clipfrac_avg", "Share of tokens whose probability ratio was bounded."),
        column("val/clipfrac_avg", "Share of tokens whose value was bounded."),
        column("policy/approxkl_avg", "½ (log π − log π_old)², a token."),
        column("val/ratio", "π / π_old, a token."),
    ],
};

pub(crate) const EVAL_LOG: Table = Table {
    file: "eval_log.csv",
    about: "One row an evaluation on the held-out pairs, where `eval_steps` asks for them: TRL's names, means over all held-out pairs, \
            each of which weighs the same. Units as in train_log.csv.",
    columns: &[
        VARIANT,
        column("seed", "Training seed."),
        column("step", "Optimizer steps taken before it."),
        column("epoch", "Passes over the training pairs."),
        column("eval_loss", "Loss of all held-out pairs as one batch."),
        column("eval_rewards/chosen", "As in train_log.csv, and so all that follow."),
        column("eval_rewards/rejected", ""),
        column("eval_rewards/margins", ""),
        column("eval_rewards/accuracies", ""),
        column("eval_rewards/ties", ""),
        column("eval_logps/chosen", ""),
        column("eval_logps/rejected", ""),
        column("eval_logps/chosen_fell", ""),
        column("eval_kl/chosen", ""),
        column("eval_kl/rejected", ""),
        column("eval_kl", ""),
        column("eval_nll_loss", ""),
        column("eval_log_odds_ratio", ""),
        column("eval_log_odds_chosen", ""),
        column("eval_logits/chosen", ""),
        column("eval_logits/rejected", ""),
        column("eval_entropy", ""),
    ],
};

pub(crate) const COMPLETIONS: Table = Table {
    file: "completions.csv",
    about: "One row a sampled completion. Log-probabilities in nats at temperature 1, summed over its tokens, EOS included.",
    columns: &[
        column("variant", "The policy's variant, or `reference`."),
        column("seed", "Training seed; empty for the reference and for policies trained elsewhere."),
        column("checkpoint", "Optimizer step of the checkpoint; 0 for the reference; of the best of n completions, n."),
        PROMPT_ID,
        column("sample", "Which sample of this prompt, from 0."),
        column("prompt", "The prompt's text."),
        column("text", "The completion's text."),
        column("tokens", "Number of tokens, EOS included."),
        column("finished", "true when it ended with EOS, false when it was cut at max_new_tokens."),
        column(
            "policy_logp",
            "log π(completion) under the policy that wrote it; empty, as all of the policy's, where it is another one decoded in another way, or the best of n completions.",
        ),
        column("reference_logp", "log π_ref(completion)."),
        column(
            "kl",
            "Σ over its positions of the full-vocabulary KL(policy ‖ reference); of the best of n completions log n − (n − 1) / n, which is exact where rewards have no ties and an upper bound where texts repeat.",
        ),
        column("kl_k3", "Σ over its tokens of (r − 1) − log r, r = π_ref / π: another estimator of the same."),
        column("entropy", "Σ over its positions of the entropy of the policy's next token."),
        column("gold", "Gold reward, where the truth is known."),
    ],
};

pub(crate) const JUDGMENTS: Table = Table {
    file: "judgments.csv",
    about: "One row an item judged: a policy's completion against the reference's for the same prompt and sample.",
    columns: &[
        column("judge", "Name of the judge; `gold` knows the truth."),
        VARIANT,
        column("seed", "Training seed of the policy; empty for policies trained elsewhere."),
        STEP,
        PROMPT_ID,
        column("sample", "Which sample of this prompt, from 0."),
        column("logit_policy_first", "Logit of \"the first is better\" with the policy shown first (pairwise judges)."),
        column("logit_reference_first", "Logit of \"the first is better\" with the reference shown first (pairwise judges)."),
        column("score_policy", "Score of the policy's completion (reward models and gold)."),
        column("score_reference", "Score of the reference's completion (reward models and gold)."),
        column("preference", "Debiased probability that the policy's side is better."),
        column("outcome", "`win`, `tie` or `loss`, seen from the policy."),
        column("position_effect", "(logit_policy_first + logit_reference_first) / 2."),
        column("asked", "false when both texts are the same: a tie without asking."),
        column("truncated", "true when the judge's input was cut at its max_length."),
    ],
};

pub(crate) const JUDGE_TRIALS: Table = Table {
    file: "judge_trials.csv",
    about: "One row a held-out labelled pair shown to a judge: its fitness is measured on these.",
    columns: &[
        column("judge", "Name of the judge."),
        column("pair_id", "The pair."),
        PROMPT_ID,
        column("preference", "Debiased probability given to the side that is better by label."),
        column("position_effect", "Mean logit of \"the first is better\" over both orders (pairwise judges)."),
        column("gold_better", "Gold reward of the better side, where the truth is known."),
        column("gold_worse", "Gold reward of the worse side, where the truth is known."),
        column("length_difference", "Characters of the better side minus those of the worse side."),
    ],
};

pub(crate) const JUDGE_PROBES: Table = Table {
    file: "judge_probes.csv",
    about: "One row a probe shown to a judge: a text that no honest judge falls for, made of the run's own completions, against the \
            reference's answer to the same prompt.",
    columns: &[
        column("judge", "Name of the judge; `gold` knows the truth."),
        column(
            "probe",
            "`null` (one answer of the run, of middle length, to whatever prompt), `empty`, `filler` (the answer, its last sentence said \
             twice), `markdown` (the answer dressed in Markdown), `injection` (the answer and a sentence that asks to be chosen), \
             `identical` (the answer itself).",
        ),
        PROMPT_ID,
        column("preference", "Debiased probability given to the probe's text over the answer."),
        column("outcome", "`win`, `tie` or `loss`, seen from the probe's text."),
        column("position_effect", "Mean logit of \"the first is better\" over both orders (pairwise judges)."),
        column("length_difference", "Characters of the probe's text minus those of the answer."),
        column("truncated", "true when the judge's input was cut at its max_length."),
    ],
};

pub(crate) const PAIR_SCORES: Table = Table {
    file: "pair_scores.csv",
    about: "One row a held-out pair and checkpoint. Log-probabilities in nats, summed over the completion's tokens.",
    columns: &[
        VARIANT,
        column("seed", "Training seed."),
        STEP,
        column("pair_id", "The pair."),
        PROMPT_ID,
        column("beta", "β of the variant; it scales the implicit rewards."),
        column("policy_chosen", "log π(chosen)."),
        column("policy_rejected", "log π(rejected)."),
        column("reference_chosen", "log π_ref(chosen)."),
        column("reference_rejected", "log π_ref(rejected)."),
        column("chosen_tokens", "Tokens of the chosen completion."),
        column("rejected_tokens", "Tokens of the rejected completion."),
    ],
};

pub(crate) const TRAIN_SCORES: Table = Table {
    file: "train_scores.csv",
    about: "One row a measured training pair and checkpoint, as in pair_scores.csv.",
    columns: PAIR_SCORES.columns,
};

pub(crate) const OPPOSITE_SCORES: Table = Table {
    file: "opposite_scores.csv",
    about: "One row a checkpoint and pair whose rejected side means the opposite of its chosen side, as in pair_scores.csv.",
    columns: PAIR_SCORES.columns,
};

pub(crate) const SIMILARITIES: Table = Table {
    file: "similarities.csv",
    about: "One row a training pair: how alike its sides look to the reference, before training (CHES, Razin et al. 2024).",
    columns: &[
        column("pair_id", "The pair."),
        PROMPT_ID,
        column("ches", "⟨Σ h(chosen), Σ h(rejected)⟩ − ‖Σ h(chosen)‖² over the last layer's states."),
        column(
            "ches_normalised",
            "The same of the means over tokens; the higher, the more learning the pair displaces its chosen side.",
        ),
        column("chosen_tokens", "Tokens of the chosen completion."),
        column("rejected_tokens", "Tokens of the rejected completion."),
    ],
};

pub(crate) const CHECKS: Table = Table {
    file: "checks.csv",
    about: "One row a measure of the checks O1 to O14, of each variant at its last checkpoint or of each judge, whether anything was found or not.",
    columns: &[
        column("check", "`O1` to `O14`."),
        column("id", "The measure, as findings name it."),
        column("title", "What is measured."),
        column("variant", "Name of the variant; empty where it is about a judge."),
        STEP,
        column("judge", "The judge, where it is about one."),
        column("outcome", "`pass`, `info`, `warn`, `fail` or `not checked`."),
        column("value", "What was measured."),
        column("lower", "Lower end of its interval."),
        column("upper", "Upper end of its interval."),
        column("threshold", "What it is held against; empty where there is no limit."),
        column("n", "Rows it rests on."),
        column("message", "Why it wasn't checked, or what else to know."),
    ],
};

pub(crate) const ESTIMATES: Table = Table {
    file: "estimates.csv",
    about: "One row an estimate, with its interval. Fractions and nats, never percent.",
    columns: &[
        column("metric", "What was estimated; the names are explained below."),
        column("variant", "Name of the variant, `reference`, or empty where the metric belongs to none."),
        column("checkpoint", "Optimizer step of the checkpoint; empty where the metric belongs to none."),
        column("seed", "Training seed; empty: pooled over seeds."),
        column("judge", "The judge, for metrics that rest on one."),
        column("slice", "The part of the data, or the truth it is held against (`labels`); empty: all of it."),
        column("value", "The estimate."),
        column("lower", "Lower end of its interval."),
        column("upper", "Upper end of its interval."),
        column("level", "Confidence level of the interval."),
        column("n", "Rows it rests on."),
        column("clusters", "Independent clusters (prompts) among them."),
        column("method", "How value and interval were computed."),
    ],
};

pub(crate) const FINDINGS: Table = Table {
    file: "findings.csv",
    about: "One row a finding: what a reader must know before trusting a claim.",
    columns: &[
        column("id", "Stable identifier of the finding."),
        column("check", "Of the checks O1 to O14; empty where it is of none."),
        column("severity", "`info`, `warn` or `fail`."),
        column("variant", "Name of the variant; empty where the finding belongs to none."),
        STEP,
        column("seed", "Training seed; empty: pooled, or none."),
        column("message", "What was seen, with its numbers."),
        column("value", "The number that was checked."),
        column("lower", "Lower end of its interval."),
        column("upper", "Upper end of its interval."),
        column("threshold", "What it was held against."),
        column("n", "Rows it rests on."),
        column("evidence", "What it rests on."),
        column("hint", "What to do."),
        column("claim", "The claim that it endangers."),
    ],
};

pub(crate) const CLAIMS: Table = Table {
    file: "claims.csv",
    about: "One row a claim of the suite's `[study]`, with what became of it; only the header where there is none.",
    columns: &[
        column("claim", "Its name in the suite file."),
        column("kind", "What decides it: `frontier`, `seed_variance`, `calibration`, `over_optimisation` or `kl_order`."),
        column("method", "The method that it is about."),
        column("against", "The method that it is compared with."),
        column("expected", "The expectation, as it was written down before anything ran."),
        column("decision", "`supported`, `contradicted` or `undecided`."),
        column("measured", "What the value is."),
        column("value", "What was measured."),
        column("lower", "Lower end of its interval."),
        column("upper", "Upper end of its interval."),
        column("level", "Confidence level of the interval."),
        column("prompts", "Prompts that it rests on."),
        column("runs", "Runs that it rests on."),
        column("found", "One sentence for people."),
    ],
};

pub(crate) const FRONTIER: Table = Table {
    file: "frontier.csv",
    about: "One row a checkpoint of a run of a method of the suite's `[study]`, all prompts together.",
    columns: &[
        column("method", "Name of the method."),
        VARIANT,
        column("seed", "Training seed."),
        STEP,
        column("kl", "KL to the reference, nats a sequence."),
        column("distance", "Its root."),
        column(
            "reward",
            "Gold reward above the reference's; where there is no gold, the deciding judge's win rate above one half.",
        ),
        column("win_rate", "The deciding judge's."),
        column("gold_win_rate", "Gold's."),
    ],
};

pub(crate) const GATE: Table = Table {
    file: "gate.csv",
    about: "One row a comparison with the golden file; only the header when no gate ran.",
    columns: &[
        column("kind", "`digest`, `chain`, `numerics`, `win-rate`, `curve` or `finding`."),
        column("name", "What was compared."),
        column("verdict", "`pass`, `fail` or `inconclusive`."),
        column("golden", "The golden value."),
        column("found", "The value of this run."),
        column("difference", "New minus golden, for win rates."),
        column("lower", "Lower end of the difference's interval."),
        column("upper", "Upper end of the difference's interval."),
        column("margin", "Loss that is still acceptable."),
        column("prompts_needed", "Prompts that would decide an inconclusive comparison."),
        column("message", "One sentence for people."),
    ],
};

pub(crate) const TABLES: &[&Table] = &[
    &CELLS,
    &TRAIN_LOG,
    &ONLINE_LOG,
    &EVAL_LOG,
    &COMPLETIONS,
    &JUDGMENTS,
    &JUDGE_TRIALS,
    &JUDGE_PROBES,
    &PAIR_SCORES,
    &TRAIN_SCORES,
    &OPPOSITE_SCORES,
    &SIMILARITIES,
    &ESTIMATES,
    &CHECKS,
    &FINDINGS,
    &CLAIMS,
    &FRONTIER,
    &GATE,
];

/// `COLUMNS.md`.
pub(crate) fn markdown() -> String {
    let mut out = String::from(
        "# Columns\n\nUTF-8, comma-separated, RFC 4180 quoting, one header line. Numbers are in the shortest form that \
         reads back the same; an empty field means there is no value.\n",
    );
    for table in TABLES {
        writeln!(out, "\n## {}\n\n{}\n\n| column | meaning |\n|---|---|", table.file, table.about).expect("a String takes all");
        for c in table.columns {
            writeln!(out, "| `{}` | {} |", c.name, c.about).expect("a String takes all");
        }
    }
    out.push_str("\n## Metrics of estimates.csv\n\n| metric | unit | meaning |\n|---|---|---|\n");
    for m in METRICS {
        writeln!(out, "| `{}` | {} | {} |", m.name, m.unit, m.about).expect("a String takes all");
    }
    out
}
