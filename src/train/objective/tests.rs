//! Every objective against recorded values and gradients (`../shared/reference/losses/pairs.json`), finite differences, its
//! constant at the reference, and what it promises of its batch.

use serde_json::Value;

use super::*;
use crate::suite::settings::{BcoShift, FDivergence};
use crate::train::tests::settings;

/// `../shared/reference/losses/pairs.json`, where it is there.
fn golden() -> Option<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/reference/losses/pairs.json");
    match std::fs::read_to_string(path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(_) => {
            eprintln!("skipped: {path} isn't there");
            None
        }
    }
}

fn side(policy: f64, reference: f64, tokens: usize) -> SequenceLogps {
    let average = policy / tokens as f64;
    SequenceLogps { policy, reference, tokens, plain: policy, unlikelihood: -average, alignment: 0.1 * average }
}

fn recorded_pairs(golden: &Value) -> Vec<PairLogps> {
    let of = |pair: &Value, s: &str| {
        let number = |name: &str| pair[format!("{name}_{s}")].as_f64().unwrap();
        side(number("pi"), number("ref"), number("len") as usize)
    };
    let pair = |p: &Value| PairLogps { chosen: of(p, "w"), rejected: of(p, "l"), prompt: (-9.0, 5) };
    golden["inputs"]["pairs"].as_array().unwrap().iter().map(pair).collect()
}

/// Four pairs, none of them at a corner or a tie.
fn some_pairs() -> Vec<PairLogps> {
    let pair = |chosen: [f64; 2], rejected: [f64; 2], tokens: [usize; 2]| PairLogps {
        chosen: side(chosen[0], chosen[1], tokens[0]),
        rejected: side(rejected[0], rejected[1], tokens[1]),
        prompt: (-7.0 - chosen[0] / 8.0, 6),
    };
    vec![
        pair([-12.5, -14.0], [-20.25, -18.5], [10, 16]),
        pair([-30.0, -29.5], [-28.0, -33.5], [24, 20]),
        pair([-7.75, -7.5], [-9.0, -9.25], [6, 8]),
        pair([-55.0, -50.0], [-40.0, -47.0], [40, 33]),
    ]
}

fn examples(pairs: &[PairLogps], mismatched: f64) -> Vec<UnpairedLogps> {
    let both = |p: &PairLogps| [(p.chosen, true), (p.rejected, false)];
    let example = |(completion, desirable)| UnpairedLogps { completion, desirable, mismatched };
    pairs.iter().flat_map(both).map(example).collect()
}

fn plain_of(loss: LossType) -> ObjectiveSettings {
    let label_smoothing = if loss == LossType::ExoPair { 1e-3 } else { 0.0 };
    ObjectiveSettings { loss_type: vec![loss], label_smoothing, ..ObjectiveSettings::default() }
}

fn of(objective: ObjectiveSettings) -> PairObjective {
    paired(&TrainSettings { objective, ..settings() })
}

fn unpaired_of(objective: ObjectiveSettings) -> UnpairedObjective {
    unpaired(&TrainSettings { objective, per_device_train_batch_size: 8, ..settings() })
}

use LossType::{
    Aot, AotUnpaired, ApoDown, ApoZero, ApoZeroUnpaired, BcoPair, Cpo, Discopop, ExoPair, Hinge, Ipo, Kto, NcaPair, Orpo, Robust,
    Sft, Sigmoid, SigmoidNorm, Simpo, SppoHard, Unlikelihood,
};

const PAIRED: [LossType; 19] = [
    Sigmoid,
    SigmoidNorm,
    Robust,
    Ipo,
    Hinge,
    ExoPair,
    NcaPair,
    BcoPair,
    SppoHard,
    Aot,
    AotUnpaired,
    ApoZero,
    ApoDown,
    Discopop,
    Simpo,
    Orpo,
    Cpo,
    Sft,
    Unlikelihood,
];

fn assert_close(found: &[f64], expected: &Value, what: &str) {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= 1e-12 * e.abs().max(1.0), "{what}: {f} but {e}");
    }
}

/// Loss, losses and gradients as recorded. Where the batch is sorted, so are the losses recorded.
fn agrees(variant: &str, o: ObjectiveSettings) {
    let Some(golden) = golden() else { return };
    let (pairs, sorts) = (recorded_pairs(&golden), matches!(o.loss_type[0], Aot | AotUnpaired));
    let found = of(o).evaluate(&pairs);
    let expected = &golden["losses"][variant];
    let mean = expected["mean"].as_f64().unwrap();
    assert!((found.loss - mean).abs() <= 1e-12 * mean.abs().max(1.0), "{variant}: {} but {mean}", found.loss);
    if !sorts {
        assert_close(&found.losses, &expected["per_item"], variant);
    }
    let along = |g: &SequenceGradient| g.policy + g.plain;
    let gradients: Vec<f64> = found.gradients.iter().flat_map(|g| [along(&g.chosen), along(&g.rejected)]).collect();
    assert_close(&gradients, &expected["grad_mean_wrt_[pi_w0,pi_l0,pi_w1,...]"], variant);
}

#[test]
fn losses_and_gradients_over_pairs_are_the_recorded_ones() {
    let with = |loss, label_smoothing| ObjectiveSettings { label_smoothing, ..plain_of(loss) };
    let divergence = |f_divergence_type, f_alpha_divergence_coef| ObjectiveSettings {
        f_divergence_type,
        f_alpha_divergence_coef,
        ..plain_of(Sigmoid)
    };
    for (variant, o) in [
        ("sigmoid b=.1", plain_of(Sigmoid)),
        ("sigmoid b=.1 cDPO eps=.1", with(Sigmoid, 0.1)),
        ("robust b=.1 eps=.1", with(Robust, 0.1)),
        ("hinge b=.1", plain_of(Hinge)),
        ("ipo averaged (TRL/LF) b=.1", plain_of(Ipo)),
        ("ipo summed (eric-mitchell/OpenRLHF) b=.1", ObjectiveSettings { dialect: Dialect::Original, ..plain_of(Ipo) }),
        ("ipo summed (eric-mitchell/OpenRLHF) b=.1", ObjectiveSettings { dialect: Dialect::Openrlhf, ..plain_of(Ipo) }),
        ("exo_pair b=.1 eps=1e-3", plain_of(ExoPair)),
        ("nca_pair b=.1", plain_of(NcaPair)),
        ("bco_pair b=.1 (TRL>=0.29, delta=0)", plain_of(BcoPair)),
        ("sppo_hard b=.1", plain_of(SppoHard)),
        ("apo_zero b=.1", plain_of(ApoZero)),
        ("apo_down b=.1", plain_of(ApoDown)),
        ("discopop b=.1 tau=.05", plain_of(Discopop)),
        ("sigmoid_norm b=.1", plain_of(SigmoidNorm)),
        ("aot b=.1 (all 4 in one micro-batch; order = sorted)", plain_of(Aot)),
        ("aot_unpaired b=.1 (all 4; order = sorted)", plain_of(AotUnpaired)),
        ("sigmoid forward_kl b=.1", divergence(FDivergence::ForwardKl, 0.5)),
        ("sigmoid js b=.1", divergence(FDivergence::JsDivergence, 0.5)),
        ("sigmoid alpha=.5 b=.1", divergence(FDivergence::AlphaDivergence, 0.5)),
        ("sigmoid alpha=0 b=.1 (== forward_kl)", divergence(FDivergence::AlphaDivergence, 0.0)),
        ("cpo sigmoid b=.1 (no SFT term)", ObjectiveSettings { cpo_alpha: 0.0, ..plain_of(Cpo) }),
        ("simpo b=2.5 gamma=1.375", ObjectiveSettings { beta: 2.5, simpo_gamma: 1.375, ..plain_of(Simpo) }),
    ] {
        agrees(variant, o);
    }
}

#[test]
fn the_odds_ratio_is_the_recorded_one() {
    let Some(golden) = golden() else { return };
    let pairs = recorded_pairs(&golden);
    let (orpo, nll) = (of(plain_of(Orpo)).evaluate(&pairs), of(plain_of(Sft)).evaluate(&pairs));
    let expected = &golden["losses"]["orpo beta=.1, odds-ratio term only (NLL excluded)"];
    assert!((orpo.loss - nll.loss - expected["mean"].as_f64().unwrap()).abs() <= 1e-12);
    let losses: Vec<f64> = orpo.losses.iter().zip(&nll.losses).map(|(all, nll)| all - nll).collect();
    assert_close(&losses, &expected["per_item"], "orpo");
    let gradients: Vec<f64> = orpo.gradients.iter().flat_map(|g| [g.chosen.policy, g.rejected.policy]).collect();
    assert_close(&gradients, &expected["grad_mean_wrt_[pi_w0,pi_l0,pi_w1,...]"], "orpo");
    assert!(orpo.metrics.contains(&("nll_loss", nll.loss)));
}

#[test]
fn losses_and_gradients_over_single_completions_are_the_recorded_ones() {
    let Some(golden) = golden() else { return };
    for (variant, loss) in
        [("kto b=.1 kl=0.5, each pair -> desirable then undesirable", Kto), ("kto apo_zero_unpaired b=.1", ApoZeroUnpaired)]
    {
        let found = unpaired_of(plain_of(loss)).evaluate(&examples(&recorded_pairs(&golden), 0.5));
        let expected = &golden["losses"][variant];
        assert!((found.loss - expected["mean"].as_f64().unwrap()).abs() <= 1e-12, "{variant}");
        assert_close(&found.losses, &expected["per_item"], variant);
        let gradients: Vec<f64> = found.gradients.iter().map(|g| g.policy).collect();
        assert_close(&gradients, &expected["grad_mean_wrt_[pi_w0,pi_l0,pi_w1,...]"], variant);
    }
}

/// Settings beyond the plain ones, so that every option is differentiated too.
fn variations() -> Vec<ObjectiveSettings> {
    let mut all: Vec<ObjectiveSettings> = PAIRED.map(plain_of).to_vec();
    for dialect in [Dialect::Trl, Dialect::LlamaFactory, Dialect::Original] {
        all.extend([Ipo, Sft, Orpo].map(|loss| ObjectiveSettings { dialect, ..plain_of(loss) }));
    }
    all.extend(
        [Sigmoid, Robust, Aot, AotUnpaired, Simpo, Cpo].map(|loss| ObjectiveSettings { label_smoothing: 0.2, ..plain_of(loss) }),
    );
    for f in [FDivergence::ForwardKl, FDivergence::JsDivergence, FDivergence::AlphaDivergence] {
        all.extend(
            [Sigmoid, SigmoidNorm, Robust, Ipo, Hinge, ExoPair, Discopop]
                .map(|loss| ObjectiveSettings { f_divergence_type: f, ..plain_of(loss) }),
        );
    }
    all.push(ObjectiveSettings { rdpo_alpha: 0.05, ..plain_of(Sigmoid) });
    all.push(ObjectiveSettings { dpop_lambda: 5.0, ..plain_of(Sigmoid) });
    all.push(ObjectiveSettings { kl_coef: 0.3, ..plain_of(Ipo) });
    all.push(ObjectiveSettings { unlikelihood_alpha: 0.3, ..plain_of(Unlikelihood) });
    all.push(ObjectiveSettings {
        loss_type: vec![Sigmoid, BcoPair, Sft],
        loss_weights: vec![0.8, 0.2, 1.0],
        ..ObjectiveSettings::default()
    });
    all
}

type Field = fn(&mut PairLogps) -> &mut f64;
type Slope = fn(&PairGradient) -> f64;

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let fields: [(Field, Slope); 5] = [
        (|p| &mut p.chosen.policy, |g| g.chosen.policy),
        (|p| &mut p.rejected.policy, |g| g.rejected.policy),
        (|p| &mut p.chosen.plain, |g| g.chosen.plain),
        (|p| &mut p.rejected.unlikelihood, |g| g.rejected.unlikelihood),
        (|p| &mut p.prompt.0, |g| g.prompt),
    ];
    for o in variations() {
        let (objective, pairs) = (of(o.clone()), some_pairs());
        let found = objective.evaluate(&pairs).gradients;
        for (i, gradient) in found.iter().enumerate() {
            for (field, slope) in fields {
                let at = |h: f64| {
                    let mut moved = pairs.clone();
                    *field(&mut moved[i]) += h;
                    objective.evaluate(&moved).loss
                };
                let h = 1e-5;
                let (expected, found) = ((at(h) - at(-h)) / (2.0 * h), slope(gradient));
                assert!((found - expected).abs() <= 1e-7 * expected.abs().max(1.0), "{o:?}: {found} but {expected}");
            }
        }
    }
}

#[test]
fn gradients_over_single_completions_are_the_slopes_of_the_loss() {
    for loss in [Kto, ApoZeroUnpaired] {
        let o = ObjectiveSettings { desirable_weight: 1.3, undesirable_weight: 0.7, kl_coef: 0.2, ..plain_of(loss) };
        let (objective, batch) = (unpaired_of(o), examples(&some_pairs(), 0.5));
        for (i, gradient) in objective.evaluate(&batch).gradients.iter().enumerate() {
            let at = |h: f64| {
                let mut moved = batch.clone();
                moved[i].completion.policy += h;
                objective.evaluate(&moved).loss
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((gradient.policy - expected).abs() <= 1e-8, "{loss:?}: {} but {expected}", gradient.policy);
        }
    }
}

#[test]
fn weights_of_wpo_multiply_losses_and_gradients_and_are_constants_to_them() {
    let (plain, weighted) = (plain_of(Hinge), ObjectiveSettings { use_weighting: true, ..plain_of(Hinge) });
    let (plain, weighted) = (of(plain).evaluate(&some_pairs()), of(weighted).evaluate(&some_pairs()));
    for (i, pair) in some_pairs().iter().enumerate() {
        let weight = libm::exp(pair.chosen.alignment) * libm::exp(pair.rejected.alignment);
        assert!((weighted.losses[i] - weight * plain.losses[i]).abs() < 1e-15);
        assert!((weighted.gradients[i].chosen.policy - weight * plain.gradients[i].chosen.policy).abs() < 1e-15);
    }
    assert_eq!(weighted.loss, weighted.losses.iter().sum::<f64>() / 4.0);
}

/// The table in FACTS, at β = 0.1 and EXO's ε = 1e-3.
#[test]
fn at_the_reference_the_losses_are_the_known_constants() {
    let ln_2 = std::f64::consts::LN_2;
    let at_reference: Vec<PairLogps> = some_pairs()
        .into_iter()
        .map(|p| PairLogps {
            chosen: SequenceLogps { reference: p.chosen.policy, ..p.chosen },
            rejected: SequenceLogps { reference: p.rejected.policy, ..p.rejected },
            ..p
        })
        .collect();
    let exo = -ln_2 - 0.5 * (libm::log(1.0 - 1e-3) + libm::log(1e-3));
    for (loss, constant) in [
        (Sigmoid, Some(ln_2)),
        (SigmoidNorm, Some(ln_2)),
        (Robust, Some(ln_2)),
        (Ipo, Some(25.0)),
        (Hinge, Some(1.0)),
        (ExoPair, Some(exo)),
        (NcaPair, Some(2.0 * ln_2)),
        (BcoPair, Some(2.0 * ln_2)),
        (SppoHard, Some(50.0)),
        (Aot, Some(ln_2)),
        (AotUnpaired, Some(ln_2)),
        (ApoZero, Some(1.0)),
        (ApoDown, Some(1.0)),
        (Discopop, Some(0.5 * ln_2 + 0.5)),
        (Simpo, None),
        (Orpo, None),
        (Cpo, None),
        (Sft, None),
        (Unlikelihood, None),
    ] {
        let objective = of(plain_of(loss));
        let found = objective.evaluate(&at_reference).loss;
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12 * b.abs().max(1.0);
        assert_eq!(objective.loss_at_reference().is_some(), constant.is_some(), "{loss:?}");
        if let (Some(known), Some(promised)) = (constant, objective.loss_at_reference()) {
            assert!(close(found, known) && close(promised, known), "{loss:?}: {found}, {promised}, {known}");
        }
    }
    for o in variations() {
        let objective = of(o.clone());
        if let Some(promised) = objective.loss_at_reference() {
            let found = objective.evaluate(&at_reference).loss;
            assert!((found - promised).abs() < 1e-9, "{o:?}: {found}, not {promised}");
        }
    }
    for loss in [Kto, ApoZeroUnpaired] {
        let objective = unpaired_of(plain_of(loss));
        assert_eq!(objective.evaluate(&examples(&at_reference, 0.0)).loss, 0.5);
        assert_eq!(objective.loss_at_reference(), Some(0.5));
    }
}

#[test]
fn losses_of_differences_push_both_sides_by_the_same_amount() {
    for loss in [Sigmoid, Robust, Hinge, ExoPair, Discopop, Aot] {
        for gradient in of(plain_of(loss)).evaluate(&some_pairs()).gradients {
            assert!((gradient.chosen.policy + gradient.rejected.policy).abs() < 1e-15, "{loss:?}");
        }
    }
    // Between sides each value is moved once up and once down, in some pair or other.
    let found = of(plain_of(AotUnpaired)).evaluate(&some_pairs()).gradients;
    assert!(found.iter().map(|g| g.chosen.policy + g.rejected.policy).sum::<f64>().abs() < 1e-15);
}

#[test]
fn the_order_of_a_batch_does_not_matter() {
    let order = [2, 0, 3, 1];
    for o in variations().into_iter().filter(|o| o.dialect == Dialect::DpoEval) {
        let (objective, pairs) = (of(o.clone()), some_pairs());
        let turned: Vec<PairLogps> = order.iter().map(|&i| pairs[i]).collect();
        let (one, other) = (objective.evaluate(&pairs), objective.evaluate(&turned));
        assert!((one.loss - other.loss).abs() < 1e-12 * one.loss.abs(), "{o:?}");
        for (at, &i) in order.iter().enumerate() {
            let apart = one.gradients[i] + other.gradients[at] * -1.0;
            assert!(apart.chosen.policy.abs() + apart.rejected.policy.abs() < 1e-12, "{o:?}");
        }
    }
}

#[test]
fn swapping_the_sides_sends_smoothing_to_its_complement() {
    let swap = |p: PairLogps| PairLogps { chosen: p.rejected, rejected: p.chosen, ..p };
    let swapped: Vec<PairLogps> = some_pairs().into_iter().map(swap).collect();
    let with = |epsilon, pairs: &[PairLogps]| {
        let score = Score::of_ratios(&plain_of(Sigmoid));
        Separable { score, loss: sigmoid::Sigmoid::new(0.3, epsilon) }.evaluate(pairs).loss
    };
    assert!((with(0.2, &swapped) - with(0.8, &some_pairs())).abs() < 1e-12);
}

/// E over flips of the robust loss = DPO's loss (Chowdhury et al. 2024, lemma 3.1).
#[test]
fn robust_is_unbiased_under_flipped_labels() {
    let epsilon = 0.3;
    let robust = robust::Robust { beta: 0.2, label_smoothing: epsilon };
    let clean = sigmoid::Sigmoid::new(0.2, 0.0);
    for (w, l) in [(3.0, -1.0), (-4.0, 2.0), (0.0, 0.0)] {
        use score::PairLoss;
        let mean = (1.0 - epsilon) * robust.at(w, l).loss + epsilon * robust.at(l, w).loss;
        assert!((mean - clean.at(w, l).loss).abs() < 1e-12);
    }
}

#[test]
fn the_halves_of_a_pair_add_up_to_apo_zero() {
    let halves = unpaired_of(plain_of(ApoZeroUnpaired)).evaluate(&examples(&some_pairs(), 0.0));
    let whole = of(plain_of(ApoZero)).evaluate(&some_pairs());
    assert!((2.0 * halves.loss - whole.loss).abs() < 1e-15);
}

#[test]
fn sorts_of_one_pair_are_dpo() {
    for loss in [Aot, AotUnpaired] {
        let one = &some_pairs()[..1];
        let (sorted, plain) = (of(plain_of(loss)).evaluate(one), of(plain_of(Sigmoid)).evaluate(one));
        assert!((sorted.loss - plain.loss).abs() < 1e-15);
    }
}

#[test]
fn trl_sorts_within_micro_batches_and_we_do_not() {
    let Some(golden) = golden() else { return };
    let two = |dialect| {
        let objective = ObjectiveSettings { dialect, ..plain_of(Aot) };
        let split = TrainSettings { per_device_train_batch_size: 2, gradient_accumulation_steps: 2, objective, ..settings() };
        paired(&split).evaluate(&recorded_pairs(&golden)).loss
    };
    let expected = |value: &Value| value.as_f64().unwrap();
    let whole = &golden["losses"]["aot b=.1 (all 4 in one micro-batch; order = sorted)"]["mean"];
    assert!((two(Dialect::DpoEval) - expected(whole)).abs() < 1e-12);
    assert!((two(Dialect::Trl) - expected(&golden["aot_microbatch_of_2_mean"])).abs() < 1e-12);
}

#[test]
fn dialects_differ_where_the_table_says() {
    let value = |loss, dialect, label_smoothing| {
        of(ObjectiveSettings { dialect, label_smoothing, ..plain_of(loss) }).evaluate(&some_pairs()).loss
    };
    let smooth = value(Sigmoid, Dialect::DpoEval, 0.1);
    assert_eq!(value(Sigmoid, Dialect::Trl, 0.1), value(Sigmoid, Dialect::Trl, 0.0));
    assert_eq!(value(Sigmoid, Dialect::Original, 0.1), smooth);
    assert_eq!(value(Sigmoid, Dialect::Openrlhf, 0.1), smooth);
    assert_eq!(value(Sigmoid, Dialect::LlamaFactory, 0.1), smooth);
    assert_eq!(value(Simpo, Dialect::LlamaFactory, 0.1), value(Simpo, Dialect::DpoEval, 0.0));
    assert_ne!(value(Simpo, Dialect::Trl, 0.1), value(Simpo, Dialect::DpoEval, 0.0));
    // −Σ log π = 105.25 over 80 tokens.
    assert_eq!(value(Sft, Dialect::DpoEval, 0.0), 105.25 / 80.0);
    assert_eq!(value(Sft, Dialect::Original, 0.0), 105.25 / 4.0);
    let averages = 12.5 / 10.0 + 30.0 / 24.0 + 7.75 / 6.0 + 55.0 / 40.0;
    assert!((value(Sft, Dialect::LlamaFactory, 0.0) - averages / 4.0).abs() < 1e-15);
    let prompts: f64 = some_pairs().iter().map(|p| p.prompt.0).sum();
    let odds = value(Orpo, Dialect::DpoEval, 0.0) - 105.25 / 80.0;
    assert!((value(Orpo, Dialect::Trl, 0.0) - odds - (105.25 - prompts) / 104.0).abs() < 1e-14);
}

#[test]
fn bco_may_shift_rewards_by_their_mean_over_the_batch() {
    let shifted = of(ObjectiveSettings { bco_shift: BcoShift::Batch, ..plain_of(BcoPair) }).evaluate(&some_pairs());
    // Log-ratios 1.5, −0.5, −0.25, −5 and −1.75, 5.5, 0.25, 7: their mean is 0.84375.
    let delta = 0.1 * 0.84375;
    assert!((shifted.losses[0] - softplus(-(0.15 - delta)) - softplus(-0.175 - delta)).abs() < 1e-15);
}

/// `golden/train/llama_factory_bco.py` worked it out.
#[test]
fn llama_factorys_bco_follows_the_rewards_from_micro_batch_to_micro_batch() {
    let golden: Value = serde_json::from_str(include_str!("../../../golden/train/llama_factory_bco.json")).unwrap();
    let number = |name: &str| golden[name].as_f64().unwrap();
    let gamma = number("gamma");
    let objective = ObjectiveSettings {
        loss_type: vec![Sigmoid, BcoPair],
        loss_weights: vec![1.0 / (1.0 + gamma), gamma / (1.0 + gamma)],
        dialect: Dialect::LlamaFactory,
        beta: number("beta"),
        ..ObjectiveSettings::default()
    };
    let micro_batch = golden["micro_batch"].as_u64().unwrap() as usize;
    let mut bco = paired(&TrainSettings { objective, per_device_train_batch_size: micro_batch, ..settings() });
    let steps = golden["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3);
    for step in steps {
        let of = |name: &str| serde_json::from_value::<Vec<[f64; 2]>>(step[name].clone()).unwrap();
        let pair = |(p, r): ([f64; 2], [f64; 2])| PairLogps {
            chosen: side(p[0], r[0], 9),
            rejected: side(p[1], r[1], 7),
            prompt: (-9.0, 5),
        };
        let found = bco.evaluate(&of("policy").into_iter().zip(of("reference")).map(pair).collect::<Vec<_>>());
        let gradients: Vec<f64> = found.gradients.iter().flat_map(|g| [g.chosen.policy, g.rejected.policy]).collect();
        assert_close(&[found.loss], &Value::from(vec![step["loss"].clone()]), "loss");
        assert_close(&gradients, &Value::from(of("gradient").concat()), "gradient");
        let metrics = found.metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>();
        assert_close(&[metrics["bco/shift"]], &Value::from(vec![step["shift"].clone()]), "shift");
        bco.recall(&metrics);
    }
}

#[test]
fn dpop_counts_a_fall_of_the_chosen_side_and_rdpo_length() {
    let at = |o: ObjectiveSettings, i: usize| of(o).evaluate(&some_pairs()).losses[i];
    let dpop = ObjectiveSettings { dpop_lambda: 5.0, ..plain_of(Sigmoid) };
    assert_eq!(at(dpop.clone(), 0), at(plain_of(Sigmoid), 0));
    // The chosen log-ratio of pair 1 is −0.5, its margin −6.
    assert!((at(dpop, 1) - softplus(0.1 * (6.0 + 5.0 * 0.5))).abs() < 1e-15);
    let rdpo = ObjectiveSettings { rdpo_alpha: 0.05, ..plain_of(Sigmoid) };
    assert!((at(rdpo, 0) - softplus(-(0.1 * 3.25 + 0.05 * (10.0 - 16.0)))).abs() < 1e-15);
}

#[test]
fn every_token_weighs_the_same_in_sft() {
    let found = sft::Sft.evaluate(&[(-6.0, 2), (-2.0, 6)]);
    assert_eq!(found.loss, 1.0);
    assert_eq!(found.losses, [3.0, 2.0 / 6.0]);
    assert_eq!(found.gradients, [-0.125, -0.125]);
}

#[test]
fn numbers_that_are_none_stay_so() {
    let mut pairs = some_pairs();
    pairs[1].chosen.policy = f64::NAN;
    pairs[1].chosen.plain = f64::NAN;
    for o in variations() {
        assert!(of(o.clone()).evaluate(&pairs).loss.is_nan(), "{o:?}");
    }
    let mut examples = examples(&some_pairs(), 0.5);
    examples[3].mismatched = f64::NAN;
    assert!(unpaired_of(plain_of(Kto)).evaluate(&examples).loss.is_nan());
}

#[test]
fn softplus_and_logistic_hold_at_the_ends() {
    assert_eq!(softplus(1e4), 1e4);
    assert_eq!(softplus(-1e4), 0.0);
    assert_eq!((logistic(1e4), logistic(-1e4), logistic(0.0)), (1.0, 0.0, 0.5));
    assert!(logistic(f64::NAN).is_nan() && softplus(f64::NAN).is_nan());
    assert!((log1mexp(-1e-10) - libm::log(1e-10)).abs() < 1e-9 && log1mexp(-800.0) == 0.0);
}
