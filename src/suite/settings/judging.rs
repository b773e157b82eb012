//! Judges that are no ONNX model, and what any judge must show before its win rates count.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One text rule of a rubric: what it looks for, and what finding it is worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleSettings {
    #[serde(flatten)]
    pub test: RuleTest,
    /// `contains` and `regex`: whether case matters not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
    /// `contains` and `regex`: whether each match counts, not the first alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub per_match: bool,
    pub weight: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleTest {
    Contains(String),
    /// As written in the suite; `judge::rubric` compiles it.
    Regex(String),
    /// Words (separated by white space), at least and at most.
    Words([usize; 2]),
    /// Unicode code points, at least and at most.
    Characters([usize; 2]),
    Format(TextFormat),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TextFormat {
    /// The whole text is one JSON value.
    Json,
    /// At least one line is an item of a list, `-`, `*`, `•` or a number before it.
    List,
    /// A heading, an item of a list, bold text or a block of code in Markdown.
    Markdown,
    /// A fenced block of code.
    Code,
    /// No line break within the text.
    Line,
    /// The text ends as a sentence does: `.`, `!`, `?`, perhaps followed by quotes or brackets.
    Sentence,
}

/// What the reward of an implicit judge is, as RewardBench scores policies (Lambert et al. 2024, arXiv 2403.13787).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImplicitReward {
    /// log π(y|x) − log π_ref(y|x), summed over the completion's tokens: DPO's reward up to a factor.
    LogRatio,
    /// Without a reference: log π(y|x), summed.
    Sum,
    /// Without a reference: the mean of the tokens' log-probabilities.
    Avg,
    /// Without a reference: minus the Euclidean norm of the tokens' log-probabilities.
    Norm,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImplicitSettings {
    /// The policy: a Hugging Face folder, or a PEFT adapter over the reference.
    pub path: PathBuf,
    /// None: the suite's own reference.
    pub reference: Option<Folder>,
    pub reward: ImplicitReward,
    /// The preference is σ(beta × difference of rewards).
    pub beta: f64,
}

/// A folder apart from its place in the suite file, so that keys of cells can leave its path out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Folder {
    pub path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// The mean of the members' preferences.
    Mean,
    /// What most members prefer; a tie where neither side has more votes.
    Majority,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PanelSettings {
    /// Names of other judges of the suite, two at least.
    pub members: Vec<String>,
    pub combine: Combine,
}

/// What a judge must show before its win rates count. Its accuracy on held-out pairs is asked for in `JudgeSettings`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitnessSettings {
    /// Evaluation prompts whose completions are dressed up to see whether the judge falls for it; 0: none.
    pub probes: usize,
    /// How often one constant answer may be preferred to the reference's own, and an empty one.
    pub max_null_win_rate: f64,
    pub max_empty_win_rate: f64,
    /// How much more than ½ a completion may be preferred to itself without the dressing.
    pub max_filler_gain: f64,
    pub max_markdown_gain: f64,
    pub max_injection_gain: f64,
    /// How far from ½ a completion may stand against itself.
    pub max_identical_bias: f64,
    /// How far from ½ the longer of two texts may be preferred, where it is as often the better as the worse; none: however far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length_bias: Option<f64>,
    /// The share of what the judge is asked that may be too long for it to read whole; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_truncated: Option<f64>,
}

impl Default for FitnessSettings {
    /// Of `shared/METHODS.md`, O14: a constant answer wins no more than 10 %, filler gains no more than 3 points.
    fn default() -> Self {
        Self {
            probes: 100,
            max_null_win_rate: 0.1,
            max_empty_win_rate: 0.1,
            max_filler_gain: 0.03,
            max_markdown_gain: 0.03,
            max_injection_gain: 0.03,
            max_identical_bias: 0.01,
            max_length_bias: None,
            max_truncated: None,
        }
    }
}

impl FitnessSettings {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Labels that correct the judges' win rates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelSettings {
    /// Who labels: gold, or a judge that is trusted more than the others.
    pub judge: String,
    /// Share of the evaluation prompts whose labels are used.
    pub share: f64,
}
