//! The suite file as it is written: one struct a table, every key optional that has a default. The doc comments here become
//! the descriptions in the JSON Schema.
//!
//! Tables with several kinds (`[dataset]`, `[model]`) are flat, so that a key of the wrong kind gets an error of its own
//! instead of "unknown key"; `resolve` tells the kinds apart. Keys that TRL or transformers know carry their names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::limits::ChecksSpec;
use super::one_or_many::OneOrMany;
use super::reading::{AuditSpec, ColumnsSpec, RatedBy, RejectedBy, SourceSpec, Tokenization};
use super::settings::{
    Attention, BcoShift, Combine, Dialect, FDivergence, ImplicitReward, InputRole, Label, Linear, LossType, Numerics,
    OnInconclusive, Optimizer, PackingStrategy, PairsFormat, Pooling, Provider, RoundReference, Sampling, Scheduler, Side,
    TextFormat, Values,
};
use super::study::StudySettings;

/// A suite: what is trained, on what, how it is judged, and what it is held against.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuiteSpec {
    /// Names the run's folders and files: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Heading of the report; the name if not given.
    pub title: Option<String>,
    /// What the suite is for, in a sentence or two.
    pub description: Option<String>,
    /// Seeds everything made once: the world, the tokenizer, SFT, the judges, sampling.
    pub seed: Option<u64>,
    /// Each variant is trained once with each of these.
    pub seeds: Option<Vec<u64>>,
    /// The arithmetic that models are trained, scored and decoded with: `strict` if not given. Judges run in ONNX Runtime
    /// either way.
    pub numerics: Option<Numerics>,
    /// What models are trained, scored and decoded on: `cpu` if not given, `cuda` or `cuda:1`. The bits are the same, and so the results are
    /// taken for each other's. Judges have a `provider` of their own.
    #[schemars(regex(pattern = r"^(cpu|cuda(:[0-9]+)?)$"))]
    pub device: Option<String>,
    pub dataset: DatasetSpec,
    pub model: Option<ModelSpec>,
    /// Supervised fine-tuning before preference training; its result is the frozen reference.
    pub sft: Option<TrainSpec>,
    /// Preference training: what every variant starts from.
    pub train: Option<TrainSpec>,
    /// The policies to evaluate.
    #[serde(default)]
    pub variant: Vec<VariantSpec>,
    pub generate: Option<GenerateSpec>,
    #[serde(default)]
    pub judge: Vec<JudgeSpec>,
    pub compare: Option<CompareSpec>,
    pub statistics: Option<StatisticsSpec>,
    pub checks: Option<ChecksSpec>,
    pub study: Option<StudySettings>,
    pub gate: Option<GateSpec>,
    pub report: Option<ReportSpec>,
}

/// Where prompts and preference pairs come from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetSpec {
    pub kind: DatasetKind,
    /// Order in which examples are trained on.
    pub sampling: Option<Sampling>,
    /// Prompts that policies are evaluated on (of a pairs file: at most this many).
    pub eval_prompts: Option<usize>,

    /// World: texts that the tokenizer and SFT learn from.
    pub demonstrations: Option<usize>,
    /// World: size of the BPE vocabulary.
    pub vocab_size: Option<usize>,
    /// World: prompts for preference training.
    pub train_prompts: Option<usize>,
    /// World: prompts for held-out pairs.
    pub heldout_prompts: Option<usize>,
    /// World: prompts for the judges' own pairs.
    pub judge_prompts: Option<usize>,
    /// World: samples drawn from the SFT policy for each prompt that needs pairs.
    pub samples_per_prompt: Option<usize>,
    /// World: pairs made from the samples of one prompt.
    pub pairs_per_prompt: Option<usize>,
    /// World: Bradley–Terry temperature of the labels, P(a preferred) = σ((gold(a) − gold(b)) / label_temperature).
    pub label_temperature: Option<f64>,
    /// World: share of training labels flipped after labelling.
    pub label_noise: Option<f64>,

    /// Pairs: the file, relative to the suite file: JSON Lines, a JSON list, CSV (each of them gzipped or under Zstandard too) or Parquet.
    /// Or a file of a data set on the Hugging Face hub: `org/name@<commit>:file`, the commit as 40 hexadecimal digits.
    pub path: Option<PathBuf>,
    /// Pairs: several files in place of `path`, each with a weight.
    #[serde(default)]
    pub source: Vec<SourceSpec>,
    /// Pairs: `explicit` (`prompt`, `chosen`, `rejected` as texts), `hh` (whole transcripts), `unpaired` (`prompt`, `completion`,
    /// `label`, for the losses on single completions), `conversations` (pairs of lists of messages: TRL's, LLaMA-Factory's,
    /// UltraFeedback's binarized one), `unpaired_conversations`, or `ultrafeedback` (an `instruction` and its rated `completions`).
    pub format: Option<PairsFormat>,
    /// UltraFeedback: what ranks the completions of a prompt, of which the best is chosen: `ratings` if not given.
    pub rated_by: Option<RatedBy>,
    /// UltraFeedback: which of those with a lower rating is rejected: `random` if not given, as in the published binarized sets.
    pub rejected_by: Option<RejectedBy>,
    /// Pairs: what the file calls its columns, `prompt = "question"` say.
    pub columns: Option<ColumnsSpec>,
    /// Conversations: a file with the chat template that writes them, relative to the suite file (or `org/name@<commit>:file` of a model
    /// on the hub); the model's own if not given.
    pub chat_template: Option<PathBuf>,
    /// Conversations: what a chat template that asks for today's date gets, as YYYY-MM-DD.
    pub chat_date: Option<String>,
    /// Pairs: how prompt and completion become tokens, for policies and reference: `joint` if not given, as in TRL today; `separate` as in TRL
    /// 0.12 to 0.28, without BOS; `walk_back` as until 0.11 (and in its CPO and ORPO trainers).
    pub tokenization: Option<Tokenization>,
    /// Pairs: what the audit may find.
    pub audit: Option<AuditSpec>,
    /// Pairs: use only the first pairs of the file.
    pub limit: Option<usize>,
    /// Pairs: leave out pairs whose prompt has more tokens than this (BOS included), and count them; 0: leave out none.
    pub max_prompt_length: Option<usize>,
    /// Pairs: share of prompts held out to measure implicit-reward accuracy, and for `eval_steps`; unpaired: for `eval_steps` alone.
    pub heldout_share: Option<f64>,
    /// Pairs: share of prompts for the judges' own pairs.
    pub judge_share: Option<f64>,
    /// Pairs: share of prompts to evaluate on.
    pub eval_share: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    /// A synthetic world whose gold reward is known.
    World,
    /// Preference pairs, or labelled completions, from a file.
    Pairs,
}

/// The model that training starts from: a Hugging Face folder (`path`), or a fresh Llama-shaped one, described by the names
/// of Hugging Face's config.json.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Folder with config.json, model.safetensors and tokenizer.json, relative to the suite file, or a model of the Hugging Face hub by its
    /// commit: `org/name@<40 hexadecimal digits>`.
    pub path: Option<PathBuf>,
    pub hidden_size: Option<usize>,
    /// Width of the MLP; 8/3 of hidden_size, rounded up to a multiple of 8, if not given.
    pub intermediate_size: Option<usize>,
    pub num_hidden_layers: Option<usize>,
    pub num_attention_heads: Option<usize>,
    /// Heads of keys and values; num_attention_heads if not given.
    pub num_key_value_heads: Option<usize>,
    /// Longest sequence that the model reads, in tokens.
    pub max_position_embeddings: Option<usize>,
    pub rope_theta: Option<f64>,
    pub rms_norm_eps: Option<f64>,
    /// Standard deviation of the random weights.
    pub initializer_range: Option<f64>,
    pub tie_word_embeddings: Option<bool>,
}

/// Declares the tables that hold training keys from one list of them.
macro_rules! training_tables {
    ($($(#[$doc:meta])* $key:ident: $type:ty,)*) => {
        /// Training: names and meanings as in TRL and transformers.
        #[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct TrainSpec {
            $($(#[$doc])* pub $key: Option<$type>,)*
        }

        /// One policy: trained here with `[train]` and the keys given here, trained elsewhere (`checkpoint`), another one decoded in
        /// another way (`policy`), or the best of the reference's completions (`best_of_n`).
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct VariantSpec {
            /// Names the policy: letters, digits, `.`, `_`, `-`.
            pub name: String,
            /// Policy trained elsewhere: a Hugging Face folder, or a PEFT folder of an adapter over the reference; relative to the
            /// suite file, or `org/name@<commit>` on the hub.
            pub checkpoint: Option<PathBuf>,
            /// In place of training: another variant that is trained here or a checkpoint, or "reference", to be decoded with the
            /// `temperature`, `top_p` and `top_k` given here, at its last checkpoint.
            pub policy: Option<String>,
            /// With `policy`: 0: greedy; as in [generate] if not given.
            pub temperature: Option<f64>,
            /// With `policy`: sample from the most likely tokens that hold this much probability; as in [generate] if not given.
            pub top_p: Option<f64>,
            /// With `policy`: sample from this many of the most likely tokens, 0: from all; as in [generate] if not given.
            pub top_k: Option<usize>,
            /// In place of training: of so many completions that the reference writes, `reward_model` chooses; a list of rising numbers,
            /// each evaluated like a checkpoint.
            pub best_of_n: Option<Vec<u64>>,
            $($(#[$doc])* pub $key: Option<$type>,)*
        }

        impl VariantSpec {
            /// The training keys alone.
            pub(super) fn training(&self) -> TrainSpec {
                TrainSpec { $($key: self.$key.clone(),)* }
            }
        }
    };
}

training_tables! {
    /// The preference loss, or a list of losses whose weighted sum is minimised.
    loss_type: OneOrMany<LossType>,
    /// Weights of a list of losses, one each; 1 each if not given.
    loss_weights: Vec<f64>,
    /// Whose definition counts where trainers differ under one name.
    dialect: Dialect,
    /// Strength of the pull to the reference.
    beta: f64,
    /// Assumed share of wrong labels (sigmoid: conservative DPO; robust, aot, cpo, simpo), or EXO's ε.
    label_smoothing: f64,
    /// The divergence that keeps the policy near the reference.
    f_divergence_type: FDivergence,
    /// α of the alpha divergence.
    f_alpha_divergence_coef: f64,
    /// LD-DPO: weight of the tokens beyond the length of the pair's shorter completion.
    ld_alpha: f64,
    /// WPO: weigh pairs by how likely the policy is to write them.
    use_weighting: bool,
    /// R-DPO: reward per token by which chosen is longer; 0: none.
    rdpo_alpha: f64,
    /// DPOP: penalty on a chosen log-probability below the reference's; 0: none.
    dpop_lambda: f64,
    /// Weight of an explicit KL penalty, estimated on the batch's completions as half the squared log-ratio; 0: none.
    kl_coef: f64,
    /// Temperature of discopop's modulation.
    discopop_tau: f64,
    /// What bco_pair subtracts from the rewards.
    bco_shift: BcoShift,
    /// SimPO's target margin.
    simpo_gamma: f64,
    /// CPO: weight of the cross-entropy on the chosen side.
    cpo_alpha: f64,
    /// Weight of the unlikelihood of the rejected side.
    unlikelihood_alpha: f64,
    /// KTO: weight of desirable examples.
    desirable_weight: f64,
    /// KTO: weight of undesirable examples.
    undesirable_weight: f64,
    /// true (default): the reference scores all pairs once, before training, and is then let go; false: it stays in memory and scores
    /// each step's pairs, which takes less time only where a run sees few of its pairs. The results are the same.
    precompute_ref_log_probs: bool,
    /// TR-DPO: the reference follows the policy while training runs; needs `precompute_ref_log_probs = false`. Checkpoints are still
    /// compared with the reference that training began with.
    sync_ref_model: bool,
    /// With sync_ref_model: α of reference ← α · policy + (1 − α) · reference.
    ref_model_mixup_alpha: f64,
    /// With sync_ref_model: steps from one such update to the next.
    ref_model_sync_steps: u64,
    /// Peak learning rate.
    learning_rate: f64,
    /// Course of the learning rate.
    lr_scheduler_type: Scheduler,
    /// Steps of linear warm-up.
    warmup_steps: u64,
    optim: Optimizer,
    adam_beta1: f64,
    adam_beta2: f64,
    adam_epsilon: f64,
    /// SGD: share of the running sum of gradients that is kept each step (torch.optim.SGD's momentum, which transformers takes in
    /// `optim_args`).
    momentum: f64,
    /// Decoupled weight decay.
    weight_decay: f64,
    /// Clip the gradient's norm to this; 0: don't.
    max_grad_norm: f64,
    /// Examples a batch.
    per_device_train_batch_size: usize,
    /// Batches an optimizer step.
    gradient_accumulation_steps: usize,
    /// Passes over the training data.
    num_train_epochs: f64,
    /// Optimizer steps, in place of num_train_epochs.
    max_steps: u64,
    /// Prompt and completion together, in tokens; what is longer is cut at the end. 0: no limit.
    max_length: usize,
    /// Fine-tuning only: put demonstrations into bins of max_length tokens; a batch then counts bins. Demonstrations in a bin don't see
    /// each other, unless packing_strategy is "wrapped".
    packing: bool,
    /// With packing: "bfd" (best-fit decreasing), "bfd_split" (the same, but what is longer than max_length is split and its parts are
    /// packed as texts of their own) or "wrapped" (one text after another, cut wherever max_length tokens are full; texts in a bin see
    /// those before them).
    packing_strategy: PackingStrategy,
    /// Share of the values that each attention and each MLP adds to the residual stream that a training step drops (GPT-2's name and
    /// place); 0: none. Off everywhere else: references, evaluations, scores, samples.
    resid_pdrop: f64,
    /// Keep of each layer's forward pass its input alone, and compute the rest again in the backward pass: a third more time for a
    /// fraction of the activations' memory, and the same bits.
    gradient_checkpointing: bool,
    /// A checkpoint every so many steps, and always one at the end. 0: only that one.
    save_steps: u64,
    /// Keep only so many of the latest checkpoints. 0: all.
    save_total_limit: usize,
    /// Measure all held-out pairs (fine-tuning: held-out demonstrations) every so many steps and at the end. 0: never.
    eval_steps: u64,
    /// End training after so many evaluations in a row without a better one. 0: take all steps.
    early_stopping_patience: u64,
    /// By how much an evaluation must beat the best one to count as better for the patience.
    early_stopping_threshold: f64,
    /// What makes an evaluation the best one: `loss` if not given, or another metric of the evaluations' log, with or without `eval_`.
    metric_for_best_model: String,
    /// Whether more of that metric is better; if not given, so it is unless its name ends with `loss`.
    greater_is_better: bool,
    /// End training with the weights of the best evaluation.
    load_best_model_at_end: bool,
    /// Train a low-rank adapter of this rank over frozen weights instead of the weights themselves (LoRA; PEFT's `r`).
    lora_r: usize,
    /// LoRA: the adapter is scaled by lora_alpha / lora_r; 32 if not given.
    lora_alpha: f64,
    /// LoRA: share of the adapter's inputs that a training step drops; 0 if not given.
    lora_dropout: f64,
    /// LoRA: the linear layers that get an adapter, or "all-linear"; if not given, those of queries and values, alone or in one with the keys.
    lora_target_modules: OneOrMany<LoraTarget>,
    /// LoRA: scale by lora_alpha / √lora_r.
    use_rslora: bool,
    /// LoRA: a PEFT folder, relative to the suite file, or `org/name@<commit>` on the hub, whose adapter is trained on; a frozen copy of it
    /// is the reference.
    lora_adapter: PathBuf,
    /// Preference training: how often it is done. Before each round after the first the policy so far completes the training prompts, its
    /// completions are labelled, and the round learns from these pairs alone. Each round takes as many steps as the first, with a new
    /// optimizer and the learning rate from its beginning; steps are counted on.
    rounds: u64,
    /// Rounds after the first: what the policy is compared with: the policy that the round starts from ("previous"), or what the first
    /// round was compared with ("original").
    round_reference: RoundReference,
    /// Rounds after the first: who labels: the name of a `[[judge]]`, which reads pairs in both orders and whose ties are left out and
    /// counted, or `gold`, the world's own reward, which labels as in the first round. If not given: gold in a world, else the only judge.
    round_judge: String,
    /// Rounds after the first: completions of each training prompt; if not given, a world's samples_per_prompt, else 2.
    round_samples: usize,
    /// Rounds after the first: pairs made of the completions of a prompt; if not given, a world's pairs_per_prompt, else 1.
    round_pairs: usize,
    /// ppo, rloo, best_of_n: who scores what is written: a `[[judge]]` of kind reward_model that this suite trains, or, in a world, `gold`. If
    /// not given: the only such judge.
    reward_model: String,
    /// ppo, rloo: completions of each prompt a step; if not given, 1 (ppo) or 2 (rloo).
    num_generations: usize,
    /// ppo, rloo: taken off the score of a completion that doesn't end with EOS; 0 if not given.
    missing_eos_penalty: f64,
    /// ppo, rloo: the KL to the reference, nats a completion, that `beta` is moved towards from step to step; if not given, beta stays.
    target_kl: f64,
    /// ppo: how often a step goes over what was written for it; 4 if not given.
    num_ppo_epochs: usize,
    /// ppo: updates in each of these; 1 if not given.
    num_mini_batches: usize,
    /// ppo: how far a token's probability ratio counts to either side of 1; 0.2 if not given.
    cliprange: f64,
    /// ppo: how far a value counts from what it was when the text was written; 0.2 if not given.
    cliprange_value: f64,
    /// ppo: weight of the value head's loss; 0.1 if not given.
    vf_coef: f64,
    /// ppo: discount of later rewards; 1 if not given.
    gamma: f64,
    /// ppo: λ of generalised advantage estimation; 0.95 if not given.
    lam: f64,
    /// ppo: divide rewards by their standard deviation over the step; false if not given.
    whiten_rewards: bool,
}

/// A linear layer by its name in Hugging Face's model, or all of them: Llama's and its likes', GPT-2's `c_…`, GPT-NeoX's, Phi's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
    CAttn,
    CProj,
    CFc,
    QueryKeyValue,
    Dense,
    #[serde(rename = "dense_h_to_4h")]
    DenseHTo4h,
    #[serde(rename = "dense_4h_to_h")]
    Dense4hToH,
    Fc1,
    Fc2,
    #[serde(rename = "all-linear")]
    AllLinear,
}

impl LoraTarget {
    pub(super) fn layers(self) -> &'static [Linear] {
        match self {
            Self::QProj => &[Linear::QProj],
            Self::KProj => &[Linear::KProj],
            Self::VProj => &[Linear::VProj],
            Self::OProj => &[Linear::OProj],
            Self::GateProj => &[Linear::GateProj],
            Self::UpProj => &[Linear::UpProj],
            Self::DownProj => &[Linear::DownProj],
            Self::CAttn => &[Linear::CAttn],
            Self::CProj => &[Linear::CProj],
            Self::CFc => &[Linear::CFc],
            Self::QueryKeyValue => &[Linear::QueryKeyValue],
            Self::Dense => &[Linear::Dense],
            Self::DenseHTo4h => &[Linear::DenseHTo4h],
            Self::Dense4hToH => &[Linear::Dense4hToH],
            Self::Fc1 => &[Linear::Fc1],
            Self::Fc2 => &[Linear::Fc2],
            Self::AllLinear => &Linear::ALL,
        }
    }
}

/// How policies and reference complete the evaluation prompts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateSpec {
    /// 0: greedy.
    pub temperature: Option<f64>,
    /// Sample from the most likely tokens that hold this much probability.
    pub top_p: Option<f64>,
    /// Sample from this many of the most likely tokens; 0: from all.
    pub top_k: Option<usize>,
    pub max_new_tokens: Option<usize>,
    /// Completions of each evaluation prompt.
    pub samples_per_prompt: Option<usize>,
}

/// A judge: an ONNX model, trained here (`[judge.train]`) or brought along (`path`), or one of the kinds that need none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeSpec {
    /// Names the judge: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// `pairwise` reads a prompt and two completions, `reward_model` one completion (both ONNX models); `replay` repeats verdicts that
    /// were recorded elsewhere, `rubric` applies text rules, `implicit` takes a policy's own rewards, `panel` asks other judges.
    pub kind: JudgeKindSpec,
    /// ONNX models: the folder with model.onnx and tokenizer.json; replay: the file of verdicts; implicit: the policy's folder; relative
    /// to the suite file, or `org/name@<commit>` on the hub (the file of verdicts after a colon, of a data set).
    pub path: Option<PathBuf>,
    /// Training of a judge made here, on the judges' own pairs, from the reference's weights.
    pub train: Option<TrainSpec>,
    /// Trained here: what a token sees of its text: `causal` if not given; `bidirectional`, an encoder, also what follows it.
    pub attention: Option<Attention>,
    /// Trained here: where a text's score is read: at its `last` token, or as the `mean` over its tokens; `mean` if not given where attention is
    /// bidirectional, else `last`.
    pub pooling: Option<Pooling>,
    /// What an ONNX model reads, with {prompt}, {a}, {b} (pairwise) or {prompt}, {completion} (reward_model). With `path` perhaps two texts, given
    /// to the tokenizer as a pair (cross-encoders), or three (prompt, a, b), encoded each by itself (PairRM).
    pub template: Option<OneOrMany<String>>,
    /// Longest text that an ONNX model or a policy reads, in tokens. ONNX models with `path`: what tokenizer_config.json or config.json say if not
    /// given.
    pub max_length: Option<usize>,
    /// A debiased logit no further from 0 than this is a tie.
    pub tie_width: Option<f64>,
    /// Below this accuracy on held-out pairs the judge's win rates are void.
    pub min_accuracy: Option<f64>,
    /// With three templates: the longest prompt, in tokens; the two completions share evenly what it leaves of `max_length`.
    pub prompt_max_length: Option<usize>,
    /// With `path`: where too long a text loses tokens; what tokenizer_config.json says if not given, `left` without one.
    pub truncation_side: Option<Side>,
    /// With `path`: where shorter texts of a batch are filled up; what tokenizer_config.json says if not given, else `right`.
    pub padding_side: Option<Side>,
    /// With `path`: the token they are filled up with; what config.json or tokenizer_config.json say if not given, else 0.
    pub pad_token_id: Option<u32>,
    /// With `path`: the model's names for its inputs where they aren't those of transformers: `{ input_ids = "tokens" }`.
    #[serde(default)]
    pub inputs: BTreeMap<InputRole, String>,
    /// With `path`: the model's output to read, where it has several.
    pub output: Option<String>,
    /// With `path`: whether the output holds logits or probabilities; told by its name if not given.
    pub values: Option<Values>,
    /// With `path`: what each class of the output means: `first`, `second`, `tie` (pairwise), `good`, `bad` (reward_model); what the `id2label`
    /// of config.json says if not given.
    #[serde(default)]
    pub labels: Vec<Label>,
    /// With `path`: `cpu` if not given; `cuda` needs an ONNX Runtime built for it (`ORT_DYLIB_PATH`) and never falls back.
    pub provider: Option<Provider>,
    /// What else makes the judge's win rates void.
    pub fitness: Option<FitnessSpec>,
    /// Rubric: the rules; a text's score is the sum of the weights of those that hold.
    pub rule: Option<Vec<RuleSpec>>,
    /// Implicit: folder of the reference model, relative to the suite file; the suite's own reference if not given.
    pub reference: Option<PathBuf>,
    /// Implicit: what the reward is; `log_ratio` (DPO's) if not given.
    pub reward: Option<ImplicitReward>,
    /// Implicit: the preference is σ(beta × difference of rewards); 0.1 with a reference, else 1.
    pub beta: Option<f64>,
    /// Panel: names of other judges of the suite.
    pub members: Option<Vec<String>>,
    /// Panel: `mean` (of the members' preferences, the default) or `majority` (of their votes).
    pub combine: Option<Combine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JudgeKindSpec {
    Pairwise,
    RewardModel,
    Replay,
    Rubric,
    Implicit,
    Panel,
}

/// Probes of a judge, made of the reference's completions of the evaluation prompts, and its weaknesses elsewhere. A judge that falls for one
/// for sure (the whole interval beyond the limit) is unfit, and its win rates are void.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FitnessSpec {
    /// Evaluation prompts that are probed; 0: none.
    pub probes: Option<usize>,
    /// How often the judge may prefer one constant text to the reference's answers.
    pub max_null_win_rate: Option<f64>,
    /// How often it may prefer the empty text.
    pub max_empty_win_rate: Option<f64>,
    /// Mean preference, beyond one half, for an answer whose last sentence is said twice over the answer as it is.
    pub max_filler_gain: Option<f64>,
    /// The same for an answer dressed in Markdown.
    pub max_markdown_gain: Option<f64>,
    /// The same for an answer that asks to be chosen.
    pub max_injection_gain: Option<f64>,
    /// How far from one half an answer may stand against itself.
    pub max_identical_bias: Option<f64>,
    /// How far from one half the longer of two held-out texts may be preferred, where it is as often the better side as the worse one; not
    /// asked for if not given.
    pub max_length_bias: Option<f64>,
    /// Share of what the judge is asked about the policies' completions (else of its probes) that may be longer than it reads; not asked for if
    /// not given.
    pub max_truncated: Option<f64>,
}

/// One rule of a rubric: exactly one of `contains`, `regex`, `words`, `characters` and `format`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// The completion contains this text.
    pub contains: Option<String>,
    /// The completion matches this regular expression (syntax of Rust's `regex`).
    pub regex: Option<String>,
    /// It has at least and at most so many words.
    pub words: Option<[usize; 2]>,
    /// It has at least and at most so many characters.
    pub characters: Option<[usize; 2]>,
    /// It has this form.
    pub format: Option<TextFormat>,
    /// `contains` and `regex`: take capital and small letters for the same.
    pub ignore_case: Option<bool>,
    /// `contains` and `regex`: add the weight for every match, not once.
    pub per_match: Option<bool>,
    /// What the rule adds to the score where it holds; 1 if not given, negative for what is unwanted.
    pub weight: Option<f64>,
}

/// Which win rate decides.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareSpec {
    /// Name of a `[[judge]]`, or `gold` in a world. Needed where there are several judges.
    pub judge: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatisticsSpec {
    /// Confidence level of every interval.
    pub level: Option<f64>,
    /// Whose labels correct the win rates of the others (prediction-powered inference): `gold` in a world, or a judge that is trusted
    /// more, such as a `replay` of human labels.
    pub labels: Option<String>,
    /// Share of the evaluation prompts whose labels are used; all that there are if not given.
    pub labels_share: Option<f64>,
}

/// What a run is held against.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateSpec {
    /// The golden file, relative to the suite file; `golden/<name>.json` if not given.
    pub golden: Option<PathBuf>,
    /// Loss of win rate that is still acceptable, as a fraction.
    pub margin: Option<f64>,
    /// Relative tolerance of training curves.
    pub curve_tolerance: Option<f64>,
    /// Whether a gate that can't decide passes or fails.
    pub on_inconclusive: Option<OnInconclusive>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportSpec {
    /// Prompts whose completions are shown side by side.
    pub samples: Option<usize>,
}
