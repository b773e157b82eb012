//! One rule a kind of claim; the table of them stands in `checks::study`.

use std::collections::BTreeMap;

use super::points::{Stop, Table};
use super::{ClaimResult, Compared, Decision};
use crate::estimates::summary::{Evidence, margin};
use crate::rlhf::OnlineStep;
use crate::statistics::bootstrap::{Bootstrap, Resampling};
use crate::statistics::frontier::{Frontier, frontiers, gap, means, variance_ratio};
use crate::statistics::interval::Interval;
use crate::statistics::logistic::softplus;
use crate::suite::Suite;
use crate::suite::settings::{ClaimKind, ClaimSettings};

pub(super) struct Ground<'a> {
    pub suite: &'a Suite,
    pub table: &'a Table<'a>,
    pub evidence: &'a Evidence<'a>,
    pub online: &'a [OnlineStep],
    pub methods: &'a [Compared<'a>],
    pub frontiers: &'a [Option<Frontier>],
    pub resampling: Resampling<'a>,
}

/// What was measured for a claim, and what it means.
struct Measured {
    what: String,
    value: f64,
    interval: Interval,
    decision: Decision,
    prompts: usize,
    found: String,
}

/// Why nothing could be measured.
type Outcome = Result<Measured, String>;

pub(super) fn decide(claim: &ClaimSettings, ground: &Ground) -> ClaimResult {
    let of = |name: &String| ground.methods.iter().position(|m| m.settings.name == *name).expect("the suite checks names");
    let (method, against) = (of(&claim.method), claim.against.as_ref().map(of));
    let outcome = match (claim.kind, against) {
        (ClaimKind::KlOrder, _) => ground.kl_order(method),
        (ClaimKind::Frontier, Some(other)) => ground.frontier([method, other]),
        (ClaimKind::SeedVariance, Some(other)) => ground.seed_variance([method, other]),
        (ClaimKind::Calibration, Some(other)) => ground.calibration([method, other]),
        (ClaimKind::OverOptimisation, Some(other)) => ground.over_optimisation([method, other]),
        (_, None) => Err("there is nothing that it is compared with".to_owned()),
    };
    let runs = ground.methods[method].runs.len() + against.map_or(0, |other| ground.methods[other].runs.len());
    let result = ClaimResult {
        claim: claim.name.clone(),
        kind: claim.kind,
        method: claim.method.clone(),
        against: claim.against.clone(),
        expected: claim.expected.clone(),
        decision: Decision::Undecided,
        measured: String::new(),
        value: None,
        lower: None,
        upper: None,
        level: ground.level(),
        prompts: 0,
        runs,
        found: String::new(),
    };
    match outcome {
        Err(why) => ClaimResult { found: format!("It could not be measured: {why}."), ..result },
        Ok(m) => ClaimResult {
            decision: m.decision,
            measured: m.what,
            value: Some(m.value),
            lower: Some(m.interval.lower),
            upper: Some(m.interval.upper),
            prompts: m.prompts,
            found: m.found,
            ..result
        },
    }
}

/// Supported where the whole interval lies below `none`, contradicted where it lies above.
fn below(interval: Interval, none: f64) -> Decision {
    match interval {
        Interval { upper, .. } if upper < none => Decision::Supported,
        Interval { lower, .. } if lower > none => Decision::Contradicted,
        _ => Decision::Undecided,
    }
}

impl Ground<'_> {
    fn level(&self) -> f64 {
        self.suite.statistics.level
    }

    fn names(&self, pair: [usize; 2]) -> [&str; 2] {
        pair.map(|index| self.methods[index].settings.name.as_str())
    }

    fn frontier(&self, pair: [usize; 2]) -> Outcome {
        let [name, other] = self.names(pair);
        let [a, b] = self.fits(self.frontiers, pair)?;
        let gap = gap(a, b).ok_or("they reach no distance together")?;
        let interval = gap.mean.percentile(self.level());
        let worse: Vec<f64> =
            gap.at.iter().filter(|(_, there)| there.percentile(self.level()).upper < 0.0).map(|(d, _)| *d).collect();
        let decision = match below(Interval { lower: -interval.upper, upper: -interval.lower }, 0.0) {
            Decision::Supported if !worse.is_empty() => Decision::Undecided,
            decision => decision,
        };
        let range = format!("√KL {:.2} to {:.2}", gap.from, gap.to);
        let mut found = format!(
            "over {range} `{name}` reaches {} than `{other}` on average",
            more(gap.mean.value, interval, self.table.unit)
        );
        if let (Some(first), Some(last)) = (worse.first(), worse.last()) {
            found += &format!(", and significantly less from √KL {first:.2} to {last:.2}");
        }
        Ok(Measured {
            what: format!("mean difference in {} over {range}", self.table.reward),
            value: gap.mean.value,
            interval,
            decision,
            prompts: self.table.prompts,
            found: capital(&found),
        })
    }

    fn fits<'f>(&self, all: &'f [Option<Frontier>], pair: [usize; 2]) -> Result<[&'f Frontier; 2], String> {
        let fit = |index: usize| {
            let name = &self.methods[index].settings.name;
            all[index].as_ref().ok_or(format!("the points of `{name}` don't determine a fit"))
        };
        Ok([fit(pair[0])?, fit(pair[1])?])
    }

    fn over_optimisation(&self, pair: [usize; 2]) -> Outcome {
        let [name, other] = self.names(pair);
        let both = pair.map(|index| self.methods[index].of(|stop| &stop.overrated));
        let whole =
            both.iter().flat_map(|m| m.runs.iter().flatten()).all(|checkpoint| checkpoint.reward.len() == self.table.prompts);
        if !whole {
            return Err("not every prompt was judged at every checkpoint".to_owned());
        }
        let fitted = frontiers(&both, Resampling { purpose: "study/overrated", ..self.resampling });
        let [a, b] = match &fitted[..] {
            [Some(a), Some(b)] => [a, b],
            _ => return Err("the points don't determine a fit".to_owned()),
        };
        let gap = gap(a, b).ok_or("they reach no distance together")?;
        let interval = gap.mean.percentile(self.level());
        let judge = &self.suite.compare.judge;
        let range = format!("√KL {:.2} to {:.2}", gap.from, gap.to);
        let middle = (gap.from + gap.to) / 2.0;
        let found = format!(
            "over {range} `{judge}` overrates `{name}` by {} than `{other}`; at √KL {middle:.2} by {:.3} and {:.3}",
            more(gap.mean.value, interval, "win rate"),
            a.fit.at(middle),
            b.fit.at(middle)
        );
        Ok(Measured {
            what: format!("mean difference in (win rate by {judge} − win rate by gold) over {range}"),
            value: gap.mean.value,
            interval,
            decision: below(interval, 0.0),
            prompts: self.table.prompts,
            found: capital(&found),
        })
    }

    fn seed_variance(&self, pair: [usize; 2]) -> Outcome {
        let [name, other] = self.names(pair);
        let [a, b] = pair.map(|index| self.by_strength(index, |stop| super::points::mean(&stop.reward)));
        let ratio = variance_ratio(&a, &b, self.level()).ok_or("nothing varies between seeds")?;
        let [da, db] = ratio.df;
        let found = format!(
            "between seeds the reward of `{name}` varies {} times as much as that of `{other}` ({da} and {db} degrees of freedom)",
            shown(ratio.value, ratio.interval)
        );
        Ok(Measured {
            what: format!("ratio of variances between seeds of {} at the last checkpoint", self.table.reward),
            value: ratio.value,
            interval: ratio.interval,
            decision: below(ratio.interval, 1.0),
            prompts: self.table.prompts,
            found: capital(&found),
        })
    }

    /// A value of each seed's last checkpoint, by variant.
    fn by_strength(&self, method: usize, value: impl Fn(&Stop) -> f64) -> Vec<Vec<f64>> {
        let compared = &self.methods[method];
        let of = |variant: &String| {
            compared.runs.iter().filter(|run| run.variant == variant).filter_map(|run| run.stops.last().map(&value)).collect()
        };
        compared.settings.variants.iter().map(of).collect()
    }

    fn calibration(&self, pair: [usize; 2]) -> Outcome {
        let [name, other] = self.names(pair);
        let losses = [self.losses(pair[0])?, self.losses(pair[1])?];
        let resampling = Resampling { purpose: "study/calibration", ..self.resampling };
        let found = means(&losses, resampling).ok_or("not every pair was scored at every last checkpoint")?;
        let [(a, of_a), (b, of_b)] = &found[..] else { return Err("there is nothing to compare".to_owned()) };
        let bootstrap =
            Bootstrap::new(a - b, of_a.iter().zip(of_b).map(|(a, b)| a - b).collect()).ok_or("a loss is not a number")?;
        let interval = bootstrap.percentile(self.level());
        let prompts = losses[0][0].len();
        let sentence = format!(
            "the implicit rewards of `{name}` have a log-loss of {a:.3}, those of `{other}` {b:.3}, a coin {:.3}: a difference of {}",
            std::f64::consts::LN_2,
            shown(a - b, interval)
        );
        Ok(Measured {
            what: "difference in log-loss of implicit rewards on held-out pairs".to_owned(),
            value: a - b,
            interval,
            decision: below(interval, 0.0),
            prompts,
            found: capital(&sentence),
        })
    }

    /// −log σ(margin) at each run's last checkpoint, a mean a prompt. Where β was moved towards a KL, the last one counts: the reward that a
    /// policy implies is that whose optimum under its β it is (Rafailov et al. 2023, eq. 5).
    fn losses(&self, method: usize) -> Result<Vec<Vec<f64>>, String> {
        let of = |run: &super::points::Run| {
            let last = run.stops.last().map_or(0, |stop| stop.checkpoint);
            let own = self.evidence.pair_scores.iter();
            let own = own.filter(|p| p.variant == run.variant && p.seed == run.seed && p.checkpoint == last);
            let beta =
                self.online.iter().rfind(|row| row.variant == run.variant && Some(row.seed) == run.seed && row.step <= last);
            let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
            for p in own {
                let scale = beta.map_or(1.0, |row| row.kl_coef / p.beta);
                let sum = sums.entry(&p.prompt_id).or_default();
                *sum = (sum.0 + softplus(-scale * margin(p)), sum.1 + 1.0);
            }
            sums.values().map(|(sum, count)| sum / count).collect::<Vec<_>>()
        };
        let runs: Vec<Vec<f64>> = self.methods[method].runs.iter().map(|run| of(run)).collect();
        if runs.iter().any(Vec::is_empty) {
            return Err(format!("`{}` has runs without implicit rewards", self.methods[method].settings.name));
        }
        Ok(runs)
    }

    fn kl_order(&self, method: usize) -> Outcome {
        let compared = &self.methods[method];
        let last = |variant: &String| {
            let own = compared.runs.iter().filter(|run| run.variant == variant);
            own.filter_map(|run| run.stops.last().map(|stop| stop.kl.clone())).collect::<Vec<_>>()
        };
        let names = &compared.settings.variants;
        let resampling = Resampling { purpose: "study/kl-order", ..self.resampling };
        let all = means(&names.iter().map(last).collect::<Vec<_>>(), resampling).ok_or("a variant has no checkpoint")?;
        let falls: Vec<Bootstrap> = all
            .windows(2)
            .map(|two| Bootstrap::new(two[0].0 - two[1].0, two[0].1.iter().zip(&two[1].1).map(|(a, b)| a - b).collect()))
            .collect::<Option<_>>()
            .ok_or("a KL is not a number")?;
        let corrected = 1.0 - (1.0 - self.level()) / falls.len() as f64;
        let sure = |fall: &Bootstrap| fall.percentile(self.level()).lower > 0.0;
        let reversed = |fall: &Bootstrap| fall.percentile(corrected).upper < 0.0;
        let decision = match (falls.iter().all(sure), falls.iter().any(reversed)) {
            (true, _) => Decision::Supported,
            (_, true) => Decision::Contradicted,
            _ => Decision::Undecided,
        };
        let weakest = falls.iter().min_by(|a, b| a.percentile(self.level()).lower.total_cmp(&b.percentile(self.level()).lower));
        let weakest = weakest.ok_or("there is one variant")?;
        let listed: Vec<String> = names.iter().zip(&all).map(|(name, (kl, _))| format!("`{name}` {kl:.2}")).collect();
        Ok(Measured {
            what: "least sure fall of the KL from one variant to the next, nats a sequence".to_owned(),
            value: weakest.value,
            interval: weakest.percentile(self.level()),
            decision,
            prompts: self.table.prompts,
            found: format!("KL at the last checkpoint, nats a sequence: {}", listed.join(", ")),
        })
    }
}

/// `0.120 [0.050, 0.190]`.
fn shown(value: f64, interval: Interval) -> String {
    format!("{value:.3} [{:.3}, {:.3}]", interval.lower, interval.upper)
}

/// `0.120 [0.050, 0.190] more gold reward`.
fn more(value: f64, interval: Interval, what: &str) -> String {
    if value < 0.0 {
        let turned = Interval { lower: -interval.upper, upper: -interval.lower };
        return format!("{} less {what}", shown(-value, turned));
    }
    format!("{} more {what}", shown(value, interval))
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
