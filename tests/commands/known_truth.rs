//! Over-optimisation proved on known truth: runs that are over-optimised by construction are flagged by the right check, healthy ones
//! aren't failed.
//!
//! A world gives a reference, pairs and a judge. From them come policies trained too long at too small a β, on flipped labels, on labels
//! that like length, on pairs whose chosen texts are all one text or repeat themselves, and policies judged by a judge that saw next to no
//! pairs; and as many trained as one should. `#[ignore]`d: the whole bench, five worlds of seeds that no threshold was tuned on, which
//! goes on where it was broken off (`DPO_EVAL_BENCH_STORE`, default `target/known-truth`) and records `golden/overoptimisation`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::support::{repository, run_expecting};

/// How a policy comes to be worse than it seems, and the checks of which one must say so.
struct Defect {
    kind: &'static str,
    /// Ids of findings above info.
    right: &'static [&'static str],
}

const HEALTHY: &str = "healthy";
const LONG: Defect = Defect {
    kind: "long training at small beta",
    right: &["proxy-gold-divergence", "win-rate-hump", "win-rate-peak", "kl-budget", "accuracy-gap", "chosen-displacement"],
};
const FLIPPED: Defect = Defect { kind: "flipped labels", right: &["accuracy-gap"] };
const LENGTH: Defect =
    Defect { kind: "length-biased judge", right: &["length-gain", "length-matched", "length-drift", "length-beyond-chosen"] };
const FEW: Defect = Defect { kind: "judge trained on few pairs", right: &["judge-unfit", "judge-accuracy", "judge-gap"] };
const COLLAPSED: Defect = Defect { kind: "collapsed data", right: &["distinct-collapse", "entropy-collapse", "self-bleu"] };
const REPEATED: Defect = Defect { kind: "planted repetition", right: &["repetition", "loops"] };
const DEFECTS: [Defect; 6] = [LONG, FLIPPED, LENGTH, FEW, COLLAPSED, REPEATED];

/// The sizes of a world and its trainings.
struct Scale {
    demonstrations: usize,
    sft_steps: usize,
    label_temperature: f64,
    learning_rate: f64,
    train_prompts: usize,
    judge_prompts: usize,
    judge_steps: usize,
    eval_prompts: usize,
    /// Of a file's prompts: held out, for judges, for evaluation; the rest trains.
    shares: [f64; 3],
    /// Less than an epoch of a world's pairs, or little more, and of what files keep of them for training.
    healthy_steps: usize,
    healthy_file_steps: usize,
    long_steps: usize,
    /// Checkpoints of each training, and healthy variants of each suite that has any, at most.
    checkpoints: usize,
    healthy: usize,
    hidden: usize,
    layers: usize,
}

const FULL: Scale = Scale {
    demonstrations: 6000,
    sft_steps: 500,
    label_temperature: 0.15,
    learning_rate: 1.5e-4,
    train_prompts: 1600,
    judge_prompts: 1000,
    judge_steps: 500,
    eval_prompts: 150,
    shares: [0.1, 0.1, 0.1],
    healthy_steps: 96,
    healthy_file_steps: 96,
    long_steps: 240,
    checkpoints: 6,
    healthy: 4,
    hidden: 96,
    layers: 3,
};

const SMALL: Scale = Scale {
    demonstrations: 2000,
    sft_steps: 160,
    label_temperature: 0.3,
    learning_rate: 3e-4,
    train_prompts: 120,
    judge_prompts: 30,
    judge_steps: 0,
    eval_prompts: 40,
    shares: [0.15, 0.2, 0.25],
    healthy_steps: 14,
    healthy_file_steps: 7,
    long_steps: 80,
    checkpoints: 2,
    healthy: 1,
    hidden: 64,
    layers: 2,
};

/// One run of the bench: a variant of a suite.
struct Run {
    suite: String,
    variant: String,
    /// `healthy`, or the kind of its defect.
    kind: &'static str,
}

impl Scale {
    /// The tables that all suites of a world share, so that they share its reference too.
    fn world(&self, seed: u64, dataset: &str) -> String {
        let Self {
            demonstrations, sft_steps, train_prompts, judge_prompts, eval_prompts, hidden, layers, label_temperature, ..
        } = self;
        format!(
            "seed = {seed}\nseeds = [1]\n\n[dataset]\nkind = \"world\"\ndemonstrations = {demonstrations}\nvocab_size = 800\n\
             train_prompts = {train_prompts}\nheldout_prompts = 60\njudge_prompts = {judge_prompts}\neval_prompts = {eval_prompts}\n\
             label_temperature = {label_temperature}\n{dataset}\n\n[model]\nhidden_size = {hidden}\nnum_hidden_layers = {layers}\n\
             num_attention_heads = 4\nnum_key_value_heads = 2\nmax_position_embeddings = 192\n\n[sft]\nlearning_rate = 3e-3\n\
             lr_scheduler_type = \"cosine\"\nwarmup_steps = 10\nper_device_train_batch_size = 16\nmax_steps = {sft_steps}\n\n{GENERATE}"
        )
    }

    fn training(&self, steps: usize) -> String {
        format!(
            "[train]\nlearning_rate = {:e}\nlr_scheduler_type = \"constant_with_warmup\"\nwarmup_steps = 5\n\
             per_device_train_batch_size = 16\nmax_steps = {steps}\nsave_steps = {}\n",
            self.learning_rate,
            steps / self.checkpoints
        )
    }

    /// Trained in so many steps; with none a judge of the world's own words.
    fn judge(&self, steps: usize) -> String {
        if steps == 0 {
            return WORDS.to_owned();
        }
        format!(
            "[[judge]]\nname = \"reward\"\nkind = \"reward_model\"\nmax_length = 192\n[judge.fitness]\nprobes = 0\n\
             [judge.train]\nlearning_rate = 7e-4\n\
             warmup_steps = 10\nper_device_train_batch_size = 8\nmax_steps = {steps}\n"
        )
    }
}

/// Counts what a reader of the world would: fit, and there at once. A file leaves few pairs to measure it on, so chance is all that it must
/// beat.
const WORDS: &str = r#"[[judge]]
name = "words"
kind = "rubric"
min_accuracy = 0.5
[judge.fitness]
probes = 0
[[judge.rule]]
regex = "\\b(excellent|superb|perfect|wonderful|great|beautiful|good|nice|solid|handy|loves?|enjoys?|likes?|happy|pleased|delighted|joy|pleasure|well|smoothly|perfectly)\\b"
per_match = true
weight = 0.5
[[judge.rule]]
regex = "\\b(weak|dull|flimsy|bad|poor|ugly|awful|terrible|horrible|hopeless|mistake|mess|disaster|dislikes?|hates?|disappointed|angry|badly|terribly|not|never|nobody|isn't|wasn't)\\b"
per_match = true
weight = -0.5
"#;

const GENERATE: &str = "[generate]\nmax_new_tokens = 48\nsamples_per_prompt = 2\n";

fn variant(name: &str, keys: &str) -> String {
    format!("[[variant]]\nname = \"{name}\"\n{keys}\n")
}

/// What one world is made into. Suites are named by what they are for; the first one is the world itself.
struct World<'a> {
    folder: &'a Path,
    store: &'a Path,
    scale: &'a Scale,
    seed: u64,
    /// Kinds that are run.
    kinds: &'a [&'a str],
}

impl World<'_> {
    fn wants(&self, kind: &str) -> bool {
        self.kinds.contains(&kind)
    }

    fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.seed)
    }

    fn report(&self, suite: &str) -> PathBuf {
        self.folder.join("reports").join(suite)
    }

    /// Writes a suite and runs it; what the store has isn't run again.
    fn run(&self, suite: &str, body: &str) {
        let file = self.folder.join(format!("{suite}.toml"));
        fs::write(&file, format!("name = \"{suite}\"\n{body}")).unwrap();
        let (report, store) = (self.report(suite), self.store.to_str().unwrap());
        let arguments =
            ["suite", "run", file.to_str().unwrap(), "--quiet", "--store", store, "--report-dir", report.to_str().unwrap()];
        run_expecting(self.folder, &arguments, 0);
    }

    /// The folder of a finished cell.
    fn cell(&self, suite: &str, id: &str) -> PathBuf {
        let report = json(&self.report(suite).join("report.json"));
        let cells = report["cells"].as_array().unwrap();
        let cell = cells.iter().find(|cell| cell["id"] == id).unwrap_or_else(|| panic!("{suite} has no cell {id}"));
        self.store.join("cells").join(cell["key"].as_str().unwrap())
    }

    fn runs(&self) -> Vec<Run> {
        let mut runs = self.of_the_world();
        runs.extend(self.of_files());
        runs
    }

    /// In the world itself, where gold is known.
    fn of_the_world(&self) -> Vec<Run> {
        let (scale, name) = (self.scale, self.name("world"));
        let mut body = format!("{}\n{}\n", scale.world(self.seed, "pairs_per_prompt = 2"), scale.training(scale.healthy_steps));
        let mut runs = Vec::new();
        let mut add = |body: &mut String, of: &str, kind, keys: &str| {
            *body += &variant(of, keys);
            runs.push(Run { suite: name.clone(), variant: of.to_owned(), kind });
        };
        if self.wants(HEALTHY) {
            for (of, keys) in [
                ("dpo-b0.1", "beta = 0.1"),
                ("dpo-b0.3", "beta = 0.3"),
                ("cdpo-b0.1", "beta = 0.1\nlabel_smoothing = 0.1"),
                ("ipo-b0.3", "loss_type = \"ipo\"\nbeta = 0.3"),
            ]
            .into_iter()
            .take(scale.healthy)
            {
                add(&mut body, of, HEALTHY, keys);
            }
        }
        if self.wants(LONG.kind) {
            let steps = scale.long_steps;
            let keys =
                format!("beta = 0.01\nlearning_rate = 1e-3\nmax_steps = {steps}\nsave_steps = {}", steps / scale.checkpoints);
            add(&mut body, "long-b0.01", LONG.kind, &keys);
        }
        body += &scale.judge(scale.judge_steps);
        self.run(&name, &body);
        if self.wants(FLIPPED.kind) {
            runs.push(self.flipped());
        }
        runs
    }

    /// Two of five training labels are turned, and each pair is seen many times: what is learnt of them is by heart.
    fn flipped(&self) -> Run {
        let (scale, suite) = (self.scale, self.name("flipped"));
        let dataset = "pairs_per_prompt = 1\nlabel_noise = 0.4";
        let body = format!(
            "{}\n{}\n{}\n[compare]\njudge = \"gold\"\n",
            scale.world(self.seed, dataset),
            scale.training(scale.long_steps),
            variant("flipped", "beta = 0.05\nlearning_rate = 1e-3")
        );
        self.run(&suite, &body);
        Run { suite, variant: "flipped".to_owned(), kind: FLIPPED.kind }
    }

    /// On files made of the world's pairs, as a user's files would be: no gold.
    fn of_files(&self) -> Vec<Run> {
        let scale = self.scale;
        let mut runs = Vec::new();
        let mut add =
            |what: &str, kind, pairs: &dyn Fn(&Value) -> Option<[String; 2]>, judge: &str, variants: &[(&str, String)]| {
                if !self.wants(kind) {
                    return;
                }
                let suite = self.name(what);
                self.write_pairs(&suite, pairs);
                let listed: String = variants.iter().map(|(name, keys)| variant(name, keys)).collect();
                self.run(
                    &suite,
                    &format!("{}\n{}\n{listed}\n{judge}", self.file(&suite, what), scale.training(scale.healthy_file_steps)),
                );
                runs.extend(variants.iter().map(|(name, _)| Run { suite: suite.clone(), variant: (*name).to_owned(), kind }));
            };
        let as_it_is = |pair: &Value| Some([text(pair, "chosen"), text(pair, "rejected")]);
        let healthy = [("dpo-b0.1", "beta = 0.1".to_owned()), ("dpo-b0.5", "beta = 0.5".to_owned())];
        add("file", HEALTHY, &as_it_is, WORDS, &healthy[..scale.healthy.min(2)]);
        let (steps, save) = (scale.long_steps / 2, scale.long_steps / 2 / scale.checkpoints);
        let hard = || format!("beta = 0.05\nlearning_rate = 1e-3\nmax_steps = {steps}\nsave_steps = {save}");
        // What is planted is also imitated, so that it is written and not only preferred.
        let imitated = || format!("loss_type = [\"sigmoid\", \"sft\"]\n{}", hard());
        let longer = |pair: &Value| {
            let [a, b] = [text(pair, "chosen"), text(pair, "rejected")];
            match a.len().cmp(&b.len()) {
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Greater => Some([a, b]),
                std::cmp::Ordering::Less => Some([b, a]),
            }
        };
        let likes_length = "[[judge]]\nname = \"longer\"\nkind = \"rubric\"\n[judge.fitness]\nprobes = 0\n\
                            [[judge.rule]]\ncontains = \" \"\nper_match = true\nweight = 0.15\n";
        add("length", LENGTH.kind, &longer, likes_length, &[("length", hard())]);
        add("few", FEW.kind, &as_it_is, &scale.judge(scale.judge_steps / 4), &[("few", "beta = 0.1".to_owned())]);
        let one_text = |pair: &Value| Some([" It is great, and I love it.".to_owned(), text(pair, "rejected")]);
        add("collapsed", COLLAPSED.kind, &one_text, WORDS, &[("collapsed", imitated())]);
        // At the beginning: what comes late is cut at `max_new_tokens`.
        let repeated = |pair: &Value| {
            let planted = " good".repeat(10) + ".";
            Some([format!("{planted}{}", text(pair, "chosen")), text(pair, "rejected")])
        };
        add("repeated", REPEATED.kind, &repeated, WORDS, &[("repeated", imitated())]);
        runs
    }

    /// The tables of a suite over a file of pairs. A judge that sees next to no pairs gets one prompt in fifty.
    fn file(&self, suite: &str, what: &str) -> String {
        let model = self.cell(&self.name("world"), "reference");
        let [heldout_share, judge_share, eval_share] = self.scale.shares;
        let judge_share = if what == "few" { 0.02 } else { judge_share };
        format!(
            "seed = {}\nseeds = [1]\n\n[dataset]\nkind = \"pairs\"\npath = \"{suite}.jsonl\"\nheldout_share = {heldout_share}\n\
             judge_share = {judge_share}\neval_share = {eval_share}\n\n[model]\npath = {model:?}\n\n{GENERATE}",
            self.seed
        )
    }

    fn write_pairs(&self, suite: &str, made: &dyn Fn(&Value) -> Option<[String; 2]>) {
        let train = self.cell(&self.name("world"), "pairs").join("train.jsonl");
        let rows = fs::read_to_string(train).unwrap();
        let row = |line: &str| {
            let pair: Value = serde_json::from_str(line).unwrap();
            let [chosen, rejected] = made(&pair).filter(|[a, b]| a != b && !a.is_empty() && !b.is_empty())?;
            Some(serde_json::json!({"prompt": text(&pair, "prompt"), "chosen": chosen, "rejected": rejected}).to_string() + "\n")
        };
        let file = self.folder.join(format!("{suite}.jsonl"));
        fs::write(file, rows.lines().filter_map(row).collect::<String>()).unwrap();
    }
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap().to_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// What the checks said of a run.
struct Said {
    world: u64,
    run: Run,
    /// Severity and id of each finding above info about the variant or a judge.
    findings: Vec<(String, String)>,
}

impl Said {
    fn of(world: &World<'_>, run: Run) -> Self {
        let report = json(&world.report(&run.suite).join("report.json"));
        let own = |f: &&Value| f["variant"] == run.variant.as_str() || (f["variant"] == "" && f["claim"].as_str() != Some(""));
        let grave = report["findings"].as_array().unwrap().iter().filter(own).filter(|f| f["severity"] != "info");
        let findings = grave.map(|f| (text(f, "severity"), text(f, "id"))).collect();
        Self { world: world.seed, run, findings }
    }

    fn by(&self, severity: &str) -> Vec<&str> {
        let mut ids: Vec<&str> = self.findings.iter().filter(|(s, _)| s == severity).map(|(_, id)| id.as_str()).collect();
        ids.dedup();
        ids
    }

    /// Of the findings, those by a check that must see the defect.
    fn right(&self) -> Vec<&str> {
        let defect = DEFECTS.iter().find(|defect| defect.kind == self.run.kind);
        let right = defect.map_or(&[][..], |defect| defect.right);
        self.by("fail").into_iter().chain(self.by("warn")).filter(|id| right.contains(id)).collect()
    }

    fn line(&self) -> String {
        let Run { suite, variant, kind } = &self.run;
        let verdict = match (*kind == HEALTHY, self.by("fail").is_empty(), self.right().is_empty()) {
            (true, true, _) => "not failed",
            (true, false, _) => "FAILED",
            (false, _, false) => "flagged",
            (false, _, true) => "MISSED",
        };
        let list = |ids: Vec<&str>| ids.join(" ");
        let (right, fails, warns) = (list(self.right()), list(self.by("fail")), list(self.by("warn")));
        format!("{},{suite},{variant},{kind},{verdict},{right},{fails},{warns}\n", self.world)
    }
}

fn said(folder: &Path, store: &Path, scale: &Scale, seeds: &[u64], kinds: &[&str]) -> Vec<Said> {
    let mut all = Vec::new();
    for &seed in seeds {
        let world = World { folder, store, scale, seed, kinds };
        let runs = world.runs();
        all.extend(runs.into_iter().map(|run| Said::of(&world, run)));
    }
    all
}

const HEADER: &str = "world,suite,variant,kind,verdict,right,fails,warns\n";

#[test]
fn a_bad_run_is_flagged_by_the_right_check_and_a_healthy_one_is_not_failed() {
    let (folder, started) = (tempfile::tempdir().unwrap(), Instant::now());
    // Two kinds are left to the whole bench: so small a model doesn't learn to say a word ten times, and judges aren't trained here.
    let kinds = [HEALTHY, LONG.kind, FLIPPED.kind, LENGTH.kind, COLLAPSED.kind];
    let all = said(folder.path(), &folder.path().join("store"), &SMALL, &[3], &kinds);
    let table: String = all.iter().map(Said::line).collect();
    eprintln!("{HEADER}{table}{:.1} s", started.elapsed().as_secs_f64());
    assert!(!table.contains("FAILED") && !table.contains("MISSED"), "{HEADER}{table}");
}

/// The worlds of the record. Thresholds were tuned on others (`DPO_EVAL_BENCH_SEEDS`).
const SEEDS: [u64; 5] = [21, 22, 23, 24, 25];

#[test]
#[ignore = "the whole bench: half an hour"]
fn known_truth_in_full() {
    let seeds: Option<Vec<u64>> =
        std::env::var("DPO_EVAL_BENCH_SEEDS").ok().map(|list| list.split(',').map(|seed| seed.parse().unwrap()).collect());
    let store = std::env::var_os("DPO_EVAL_BENCH_STORE").map_or_else(|| repository().join("target/known-truth"), PathBuf::from);
    fs::create_dir_all(&store).unwrap();
    let store = store.canonicalize().unwrap();
    let kinds: Vec<&str> = std::iter::once(HEALTHY).chain(DEFECTS.map(|defect| defect.kind)).collect();
    let all = said(&store, &store.join("store"), &FULL, seeds.as_deref().unwrap_or(&SEEDS), &kinds);
    let table: String = all.iter().map(Said::line).collect();
    let summary = summary(&all);
    eprintln!("{HEADER}{table}\n{summary}");
    if seeds.is_none() {
        let golden = repository().join("golden/overoptimisation");
        fs::create_dir_all(&golden).unwrap();
        fs::write(golden.join("runs.csv"), format!("{HEADER}{table}")).unwrap();
        fs::write(golden.join("summary.csv"), &summary).unwrap();
    }
    let (bad, healthy): (Vec<&Said>, Vec<&Said>) = all.iter().partition(|said| said.run.kind != HEALTHY);
    let flagged = bad.iter().filter(|said| !said.right().is_empty()).count();
    let failed = healthy.iter().filter(|said| !said.by("fail").is_empty()).count();
    assert!(flagged as f64 >= 0.95 * bad.len() as f64, "{flagged} of {} bad runs are flagged by the right check", bad.len());
    assert!(failed as f64 <= 0.05 * healthy.len() as f64, "{failed} of {} healthy runs are failed", healthy.len());
}

/// A line a kind: runs, flagged by the right check, failed by any.
fn summary(all: &[Said]) -> String {
    let mut lines = "kind,runs,flagged_by_the_right_check,failed_by_any_check\n".to_owned();
    for kind in std::iter::once(HEALTHY).chain(DEFECTS.map(|defect| defect.kind)) {
        let own: Vec<&Said> = all.iter().filter(|said| said.run.kind == kind).collect();
        let flagged = match kind {
            HEALTHY => String::new(),
            _ => own.iter().filter(|said| !said.right().is_empty()).count().to_string(),
        };
        let failed = own.iter().filter(|said| !said.by("fail").is_empty()).count();
        lines += &format!("{kind},{},{flagged},{failed}\n", own.len());
    }
    lines
}
