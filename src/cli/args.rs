//! What may be typed. Whatever can change a number stands in the suite file: flags say where, how fast, how it looks.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::suite::settings::Label;

/// Train on preferences, judge, measure, decide: with the evidence, and the same bits tomorrow.
#[derive(Debug, Parser)]
#[command(name = "dpo-eval", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Common {
    /// Where finished work is kept
    #[arg(long, global = true, value_name = "DIR", default_value = ".dpo-eval", env = "DPO_EVAL_STORE")]
    pub store: PathBuf,
    /// Threads in all; never changes a number [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Cells that run side by side [default: as many as threads]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// No progress on stderr, only errors and warnings
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

impl Common {
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }

    pub fn jobs(&self) -> usize {
        self.jobs.map_or_else(|| self.threads(), usize::from)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// Of rows: for people, for programs, for spreadsheets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    Table,
    Json,
    Csv,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a suite, or look at it without running
    #[command(subcommand)]
    Suite(SuiteCommand),
    /// Compare a finished run with its golden file
    Gate(GateArguments),
    /// Differences of two finished runs, or of two variants, paired by prompt
    Compare(CompareArguments),
    /// Compute a finished run's cells again under other settings and compare every bit
    Repro(ReproArguments),
    /// Write the report of a finished run again
    Report(ReportArguments),
    /// Accept, show or compare golden files
    #[command(subcommand)]
    Baseline(BaselineCommand),
    /// Train one variant of a suite by itself
    Train(TrainArguments),
    /// Print the log-probability of every token of a JSONL file under a model
    Logps(LogpsArguments),
    /// Add a low-rank adapter to the weights it was trained over
    Merge(MergeArguments),
    /// Ask a judge by itself, see whether it is fit, or how far recorded verdicts agree
    #[command(subcommand)]
    Judge(JudgeCommand),
    /// Win rates of recorded preferences, with honest intervals
    Winrate(WinrateArguments),
    /// Rate many policies by comparisons of two at a time
    Ratings(RatingsArguments),
    /// Look at preference data
    #[command(subcommand)]
    Data(DataCommand),
    /// Finished runs in the store
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Show what this machine offers and what is missing
    Doctor,
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
pub enum SuiteCommand {
    /// Train, generate, judge, measure, report, decide
    Run(SuiteRun),
    /// Show the cells of a suite, which are finished, and the expected time
    Plan(SuitePlan),
    /// Check a suite file without running anything
    Check { suite: PathBuf },
    /// List the suite files of a folder
    List {
        #[arg(default_value = "suites")]
        folder: PathBuf,
    },
    /// Write a commented suite file to start from
    Init(SuiteInit),
    /// Print the JSON Schema of suite files
    Schema,
}

#[derive(Debug, Args)]
pub struct SuiteRun {
    /// The suite file
    pub suite: PathBuf,
    /// Compare with the suite's golden file, and let that decide the exit code
    #[arg(long)]
    pub gate: bool,
    /// Judge prompts in random order and stop as soon as the deciding win rate is told from one half, with --gate from the golden's
    /// less the margin too; intervals then hold whenever it stops
    #[arg(long)]
    pub sequential: bool,
    /// Where the report is written [default: reports/<suite>]
    #[arg(long, value_name = "DIR")]
    pub report_dir: Option<PathBuf>,
    /// What is printed at the end
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct SuitePlan {
    /// The suite file
    pub suite: PathBuf,
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct SuiteInit {
    /// The file to write
    #[arg(default_value = "suite.toml")]
    pub file: PathBuf,
    /// What to start from
    #[arg(long, default_value = "world")]
    pub template: String,
}

#[derive(Debug, Args)]
pub struct GateArguments {
    /// A report folder, the name of a suite (its report in reports/), or the id of a run in the store
    pub run: String,
    /// The golden file [default: golden/<suite>.json]
    #[arg(long, value_name = "FILE")]
    pub golden: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct CompareArguments {
    /// A report folder, the name of a suite (its report in reports/), or the id of a run in the store
    pub old: String,
    /// The same; new minus old is shown
    pub new: String,
    /// A variant of the old run and one of the new [default: those of the same name]
    #[arg(long, value_name = "OLD=NEW", value_parser = variant_pair)]
    pub variant: Vec<(String, String)>,
    #[arg(long, value_enum, default_value = "table")]
    pub format: RowFormat,
}

fn variant_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("write it as OLD=NEW: a variant of the old run and one of the new")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

#[derive(Debug, Args)]
pub struct ReproArguments {
    /// The id of a run in the store (or its beginning), or the name of a suite: its latest run [default: the latest run]
    pub run: Option<String>,
    /// Cells to compute again, `*` stands for anything [default: all but what ONNX Runtime says]
    #[arg(long, value_name = "CELL", value_delimiter = ',')]
    pub cells: Vec<String>,
    /// Compare only the first steps of each training
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Instruction sets [default: all that this machine has]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub isa: Vec<String>,
    /// Numbers of threads; they and the next go along with the instruction sets in turn [default: 1,2,4]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub thread_counts: Vec<u16>,
    /// Examples that go through the model together, rounded down to a divisor of the batch [default: 2,1,4]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub micro_batches: Vec<u16>,
    /// A CUDA device, `cuda` or `cuda:1`, on which they are computed again too
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ReportArguments {
    /// A report folder, the name of a suite, or the id of a run in the store
    pub run: String,
    /// Where to write it
    #[arg(long, value_name = "DIR")]
    pub report_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum BaselineCommand {
    /// Make a run the golden one; the file is meant to be reviewed and committed
    Accept {
        /// A report folder, the name of a suite, or the id of a run in the store
        run: String,
        /// Why these results are right; kept in the file
        #[arg(long)]
        reason: String,
        /// The golden file [default: golden/<suite>.json]
        #[arg(long, value_name = "FILE")]
        golden: Option<PathBuf>,
    },
    /// Print a golden file for people
    Show { golden: PathBuf },
    /// What would change in the golden file if the run were accepted
    Diff {
        /// A report folder, the name of a suite, or the id of a run in the store
        run: String,
        #[arg(long, value_name = "FILE")]
        golden: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct TrainArguments {
    /// The suite file
    pub suite: PathBuf,
    /// The variant to train
    #[arg(long)]
    pub variant: String,
    /// One of the suite's seeds [default: the first]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Gets train_log.csv, online_log.csv of PPO and RLOO, eval_log.csv where the suite has eval_steps, timing.jsonl, tensorboard/ and
    /// final/, a Hugging Face folder (last/ beside it where training ends with its best weights and these are others); of an adapter
    /// final/ is a PEFT folder, and base/ what it adapts; with several rounds timing.jsonl and tensorboard/ are in round-1/, round-2/, …
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Gets the trained policy as a plain Hugging Face folder, which transformers loads; an adapter is merged into its weights
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct LogpsArguments {
    /// A Hugging Face folder, or org/name@<commit> on the hub
    pub model: PathBuf,
    /// JSONL of {"ids": […]} or {"prompt": …, "completion": …}
    pub file: PathBuf,
    #[arg(long, value_enum, default_value = "json")]
    pub format: LogpsFormat,
}

#[derive(Debug, Args)]
pub struct MergeArguments {
    /// A PEFT folder (adapter_config.json, adapter_model.safetensors)
    pub adapter: PathBuf,
    /// The Hugging Face folder of the model that it adapts
    #[arg(long, value_name = "DIR")]
    pub base: PathBuf,
    /// Gets config.json, model.safetensors and the base's tokenizer
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct WinrateArguments {
    /// Verdicts: AlpacaEval's annotations.json, Arena-Hard's or MT-bench's judgments, labels or comparisons (JSON Lines, JSON, CSV,
    /// Parquet), or the folder of a report; of two files the paired difference is shown too; `-` is the standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What the rows are [default: told by the columns of the first]
    #[arg(long, value_enum)]
    pub layout: Option<RecordedLayout>,
    /// What the file calls a column, say prompt_id=question
    #[arg(long, value_name = "OURS=THEIRS", value_delimiter = ',', value_parser = column_name)]
    pub columns: Vec<(String, String)>,
    /// The policy, where the file compares several
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// What it is compared with
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
    /// The policy's answers (AlpacaEval's model_outputs.json): lengths and texts for verdicts without; one for each FILE
    #[arg(long, value_name = "FILE")]
    pub outputs: Vec<PathBuf>,
    /// The baseline's answers, in the order of the evaluation set
    #[arg(long, value_name = "FILE")]
    pub baseline_outputs: Option<PathBuf>,
    /// Difficulty of the instructions (AlpacaEval's instruction_difficulty.csv): controlled for beside length
    #[arg(long, value_name = "FILE")]
    pub difficulty: Option<PathBuf>,
    /// Verdicts on gamed baselines (AlpacaEval's df_gamed.csv): part of the length-controlled fit
    #[arg(long, value_name = "FILE")]
    pub gamed: Option<PathBuf>,
    /// Trusted labels (of people, say) on a part of the items: the win rate is corrected by them
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Show also an interval that holds at every time, for whoever stops when the numbers look good
    #[arg(long)]
    pub sequential: bool,
    /// Give the numbers that another program publishes
    #[arg(long, value_enum)]
    pub compat: Option<CompatName>,
    /// Inverse penalty of AlpacaEval's fit [default: chosen by its cross-validation]
    #[arg(long, value_parser = positive)]
    pub c: Option<f64>,
    /// Of the intervals
    #[arg(long, default_value = "0.95", value_parser = share)]
    pub level: f64,
    /// Resamples of the prompts for length-controlled intervals
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u16).range(100..))]
    pub resamples: u16,
    /// Of the resamples
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    #[arg(long, value_enum, default_value = "table")]
    pub format: RowFormat,
}

#[derive(Debug, Args)]
pub struct RatingsArguments {
    /// Comparisons (left, right, winner; model_a, model_b, winner), Arena-Hard's or MT-bench's judgments, AlpacaEval's annotations, or
    /// the folder of a report
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What the rows are [default: told by the columns of the first]
    #[arg(long, value_enum)]
    pub layout: Option<RecordedLayout>,
    /// What the file calls a column, say prompt_id=question
    #[arg(long, value_name = "OURS=THEIRS", value_delimiter = ',', value_parser = column_name)]
    pub columns: Vec<(String, String)>,
    /// Of the intervals and the ranks
    #[arg(long, default_value = "0.95", value_parser = share)]
    pub level: f64,
    #[arg(long, value_enum, default_value = "table")]
    pub format: RowFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordedLayout {
    /// annotations.json, or its numbers: instruction_index, preference (1 to 2), len_output_1, len_output_2
    AlpacaEval,
    /// Verdict tokens of two games
    ArenaHard,
    /// g1_winner, g2_winner
    MtBench,
    /// judgments.csv of a report
    Judgments,
    /// winner of left and right, or of model_a and model_b
    Comparisons,
    /// prompt_id with preference (0 to 1) or winner
    Labels,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompatName {
    AlpacaEval,
    ArenaHard,
    MtBench,
}

fn column_name(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("write it as OURS=THEIRS: a name of ours and the file's column")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "a number is expected")?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("a number above 0 is expected".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "a number is expected")?;
    if 0.0 < number && number < 1.0 { Ok(number) } else { Err("a number between 0 and 1 is expected".to_owned()) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogpsFormat {
    Json,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Count what is wrong with preference data
    Audit {
        /// A suite (.toml), or a file: JSON Lines, a JSON list, CSV (each perhaps under gzip or Zstandard) or Parquet; of a data set on
        /// the hub org/name@<commit>:file
        #[arg(value_name = "SUITE|FILE")]
        file: PathBuf,
        /// What the file's rows are [default: told by the columns of the first]
        #[arg(long, value_enum)]
        layout: Option<Layout>,
        /// A model folder: its tokenizer shows what happens to the texts, and its chat template writes conversations
        #[arg(long, value_name = "DIR")]
        tokenizer: Option<PathBuf>,
        /// Count what this many tokens for prompt and completion would cut
        #[arg(long, value_name = "N", requires = "tokenizer")]
        max_length: Option<usize>,
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// Write preference data in another form, as JSON Lines (gzip or Zstandard if OUT ends with .gz or .zst)
    Convert {
        #[arg(value_name = "IN")]
        input: PathBuf,
        #[arg(value_name = "OUT")]
        output: PathBuf,
        /// What each row becomes
        #[arg(long, value_enum, default_value = "pairs", value_name = "FORM")]
        to: Target,
        /// Write texts as messages: transcripts by their turns, other prompts as the user's and completions as the assistant's
        #[arg(long)]
        messages: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// prompt, chosen, rejected as texts
    Explicit,
    /// HH-RLHF: chosen, rejected as whole transcripts
    Hh,
    /// prompt, completion, label
    Unpaired,
    /// Pairs of lists of messages: TRL's, LLaMA-Factory's, UltraFeedback's
    Conversations,
    /// prompt, completion as lists of messages, label
    UnpairedConversations,
    /// instruction, and completions with their ratings: UltraFeedback as it was collected
    Ultrafeedback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// prompt, chosen, rejected
    Pairs,
    /// prompt, completion, label: two rows of each pair
    Unpaired,
    /// prompt, completion: what was chosen or is desirable
    Completions,
    /// prompt
    Prompts,
}

#[derive(Debug, Subcommand)]
pub enum JudgeCommand {
    /// What a judge says of the rows of a file: scores of `prompt`, `completion`, or preferences between two completions
    Score {
        #[command(flatten)]
        judge: JudgeChoice,
        /// JSON Lines, a JSON list, CSV or Parquet; two completions are `chosen` and `rejected`, `a` and `b`, or `output_1` and `output_2`
        file: PathBuf,
        #[arg(long, value_enum, default_value = "table")]
        format: RowFormat,
    },
    /// Whether a judge is fit to decide: its accuracy, calibration and biases on labelled pairs, and what it falls for
    Fitness {
        #[command(flatten)]
        judge: JudgeChoice,
        /// Labelled pairs: `prompt`, `chosen`, `rejected`, or any other form of pairs that `data audit` reads
        file: PathBuf,
        #[arg(long, value_enum, default_value = "table")]
        format: RowFormat,
    },
    /// How far recorded verdicts agree: each file is an annotator, or several that its `judge` column names
    Agree {
        /// AlpacaEval's annotations, Arena-Hard's or MT-bench's judgments, judgments.csv, labels
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The file whose annotators are people: the others are held against them as AlpacaEval does (agreement, bias, variance)
        #[arg(long, value_name = "FILE")]
        humans: Option<PathBuf>,
        #[arg(long, value_enum, default_value = "table")]
        format: RowFormat,
    },
}

#[derive(Debug, Args)]
pub struct JudgeChoice {
    /// A suite (.toml), or a folder with model.onnx and tokenizer.json
    #[arg(value_name = "JUDGE")]
    pub source: PathBuf,
    /// Which of the suite's judges [default: the one that decides]
    #[arg(long, value_name = "NAME")]
    pub judge: Option<String>,
    /// Of a folder: what its model reads [default: what its judge.json says]
    #[arg(long, value_enum)]
    pub kind: Option<ModelForm>,
    /// Of a folder: what it reads, with {prompt} and {a}, {b} or {completion}; twice for the texts of a pair [default: what its judge.json says]
    #[arg(long, value_name = "TEXT")]
    pub template: Vec<String>,
    /// Of a folder: longest text that it reads, in tokens [default: what its judge.json says, else what the model's own files say]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Of a folder: what the classes of its output mean, in order: first,second,tie or good,bad [default: what its config.json says]
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<Label>,
}

/// A class of a judge's output by its name.
fn label(name: &str) -> Result<Label, String> {
    let all = [Label::First, Label::Second, Label::Tie, Label::Good, Label::Bad];
    all.into_iter().find(|label| label.name() == name).ok_or_else(|| format!("it is one of {}", all.map(Label::name).join(", ")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelForm {
    /// A prompt and two completions
    Pairwise,
    /// A prompt and one completion
    RewardModel,
}

#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// List finished runs, oldest first
    List,
    /// Show the cells of a run
    Show { id: String },
    /// Drop everything that no recorded run needs
    Prune {
        /// Keep only the newest N runs of each suite
        #[arg(long, value_name = "N", default_value_t = 1)]
        keep: usize,
    },
}
