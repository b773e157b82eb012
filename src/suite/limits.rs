//! `[checks]`: the thresholds at which a run warns or fails, each with its default and its range in one place.
//!
//! Those that came later stand in digests only where a suite changes them, so that suites without them keep their digest.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::document::Table;
use super::rules;
use crate::error::Result;

/// Declares the table as it is written and what it means from one list. Defaults are those of METHODS' checks O1 to O14 (sources stand
/// in `checks`); `first` are as old as the table.
macro_rules! thresholds {
    (
        first { $($(#[$old_doc:meta])* $old:ident = $old_default:expr, $old_rule:ident;)* }
        later { $($(#[$doc:meta])* $key:ident = $default:expr, $rule:ident;)* }
    ) => {
        /// Thresholds at which a run warns or fails.
        #[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct ChecksSpec {
            $($(#[$old_doc])* pub $old: Option<f64>,)*
            $($(#[$doc])* pub $key: Option<f64>,)*
            /// Pairs: a file of `{"prompt", "chosen", "rejected"}` a line whose rejected text means the opposite of the chosen one (an answer
            /// where a refusal is wanted, say), relative to the suite file: what mass may move to unseen. A world makes its own.
            pub opposites: Option<PathBuf>,
        }

        /// Thresholds of the checks; see `checks` for their meaning.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct CheckSettings {
            $($(#[$old_doc])* pub $old: f64,)*
            #[serde(flatten)]
            pub more: CheckLimits,
            /// The file of opposites, as written.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub opposites: Option<PathBuf>,
        }

        #[derive(Debug, Clone, PartialEq)]
        pub struct CheckLimits {
            $($(#[$doc])* pub $key: f64,)*
        }

        impl Default for CheckSettings {
            fn default() -> Self {
                Self { $($old: $old_default,)* more: CheckLimits::default(), opposites: None }
            }
        }

        impl Default for CheckLimits {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        /// What a suite changes.
        impl Serialize for CheckLimits {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                let usual = Self::default();
                let mut map = serializer.serialize_map(None)?;
                $(if self.$key != usual.$key {
                    map.serialize_entry(stringify!($key), &self.$key)?;
                })*
                map.end()
            }
        }

        impl CheckSettings {
            /// Overwrites what `table` writes.
            pub(super) fn overlay(&mut self, written: &ChecksSpec, table: &Table<'_>) -> Result<()> {
                $(table.set(&mut self.$old, stringify!($old), written.$old, rules::$old_rule)?;)*
                $(table.set(&mut self.more.$key, stringify!($key), written.$key, rules::$rule)?;)*
                Ok(())
            }

            /// Every threshold by its key, in the order of the table.
            pub fn thresholds(&self) -> Vec<(&'static str, f64)> {
                vec![$((stringify!($old), self.$old),)* $((stringify!($key), self.more.$key),)*]
            }
        }
    };
}

thresholds! {
    first {
        /// KL to the reference, nats a sequence.
        kl_warn = 10.0, POSITIVE;
        kl_fail = 50.0, POSITIVE;
        /// Fall of the log-probability of chosen completions below the reference, nats a token.
        displacement_warn = 0.05, POSITIVE;
        displacement_fail = 0.25, POSITIVE;
        /// Mean length of the policy's completions over the reference's.
        length_ratio_warn = 1.3, POSITIVE;
        length_ratio_fail = 1.6, POSITIVE;
        /// Rise of the share of completions without EOS over the reference's.
        no_eos_fail = 0.02, SHARE;
        /// Position effect of a judge, in probability.
        position_warn = 0.1, SHARE;
    }
    later {
        /// Fall of the win rate from its best checkpoint to the last one that fails, as a fraction.
        drop_fail = 0.02, SHARE;
        /// Distance from the reference, as a share of the fitted peak's, from which on a run is near its peak.
        peak_warn = 0.8, PROBABILITY;
        /// KL to the reference, nats a token.
        kl_per_token_warn = 0.1, POSITIVE;
        /// Standard errors by which two estimators of one KL may differ.
        kl_errors_warn = 3.0, POSITIVE;
        /// Share of held-out pairs whose chosen completion is less likely than under the reference.
        chosen_fell_warn = 0.9, SHARE;
        /// Rise of the log-probability of texts that mean the opposite of chosen ones, nats a token, while chosen ones become less likely.
        opposite_rise_fail = 0.02, POSITIVE;
        /// Fall of the share of prompts that are refused, of those that the reference refuses or answers.
        refusal_drop_fail = 0.05, SHARE;
        /// Implicit-reward accuracy on training pairs minus that on held-out pairs.
        accuracy_gap_warn = 0.1, SHARE;
        accuracy_gap_fail = 0.2, SHARE;
        /// Share of training pairs whose implicit preference is above 0.99.
        saturation_warn = 0.8, SHARE;
        /// Rank correlation of accuracy and win rate over checkpoints that its interval must stay below to warn.
        decoupling_warn = 0.2, SHARE;
        /// Share of completions that are longer than all but a hundredth of the chosen ones.
        beyond_chosen_warn = 0.1, SHARE;
        beyond_chosen_fail = 0.3, SHARE;
        /// Win rate minus the win rate at equal length.
        length_gain_warn = 0.05, SHARE;
        /// Share of the implicit reward's variance that length explains on the policy's own completions minus that on held-out pairs.
        length_coupling_warn = 0.2, SHARE;
        length_coupling_fail = 0.4, SHARE;
        /// Mean entropy of the next token over the reference's.
        entropy_ratio_fail = 0.6, SHARE;
        /// Distinct bigrams of the completions over those of as many of the reference's.
        distinct_ratio_fail = 0.7, SHARE;
        /// Rise of the self-BLEU of a prompt's samples over the reference's.
        self_bleu_rise_fail = 0.2, SHARE;
        /// Rises over the reference's: of the share of repeated 4-grams, and of completions that loop, are empty, hold special tokens, or hold
        /// letters of a script that neither prompts nor the reference write.
        repetition_rise_fail = 0.05, SHARE;
        loop_rise_fail = 0.02, SHARE;
        empty_rise_fail = 0.01, SHARE;
        leak_rise_fail = 0.01, SHARE;
        script_rise_fail = 0.01, SHARE;
        /// Win rate by the judge that decides minus that by another one.
        judge_gap_fail = 0.05, SHARE;
        /// Krippendorff's alpha of several judges on the same items.
        alpha_warn = 0.4, SHARE;
    }
}
