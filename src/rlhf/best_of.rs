//! Best of n: of n completions that the reference writes, the one that a reward likes best (Stiennon et al. 2020, arXiv 2009.01325, appendix
//! G.3; Gao, Schulman & Hilton 2022, arXiv 2210.10760): what a reward brings without any training.

use super::Reward;
use crate::data::Prompt;
use crate::data::tokenize::TextTokenizer;
use crate::error::{Error, Result};
use crate::generate::{DECODED_TOGETHER, Draw, Sampled, Writer};
use crate::model::Causal;
use crate::rng::Stream;
use crate::suite::settings::GenerateSettings;
use crate::watch::Watch;

/// Who chooses, among how many, and with which random numbers these are drawn.
pub struct Choice<'a> {
    pub reward: &'a Reward,
    /// n, rising, the first at least 1.
    pub counts: &'a [u64],
    pub seed: u64,
    /// The first candidates draw as `generate::sample` does for this purpose: so the best of one is a plain sample.
    pub purpose: &'a str,
}

/// Of each prompt and sample the best of the first n candidates, for each n in turn; of equally good ones the first.
///
/// A candidate draws from an address of its own, so that neither other candidates nor larger n change it. It is forgotten as soon as another
/// is better.
pub fn best_of(
    model: &dyn Causal,
    tokenizer: &TextTokenizer,
    prompts: &[Prompt],
    settings: &GenerateSettings,
    choice: &Choice<'_>,
    watch: &dyn Watch,
) -> Result<Vec<Vec<Sampled>>> {
    chosen(Writer::new(model, tokenizer, prompts, settings)?, prompts.len(), settings, choice, DECODED_TOGETHER, watch)
}

/// `together`: candidates that are written and scored at a time. It bounds memory and has no influence on what is chosen.
pub(super) fn chosen(
    mut writer: Writer<'_>,
    prompts: usize,
    settings: &GenerateSettings,
    choice: &Choice<'_>,
    together: usize,
    watch: &dyn Watch,
) -> Result<Vec<Vec<Sampled>>> {
    let (samples, most) = (settings.samples_per_prompt, choice.counts.last().copied().unwrap_or_default() as usize);
    let purposes: Vec<String> = (0..most).map(|candidate| purpose(choice.purpose, candidate)).collect();
    let total = prompts * samples * most;
    let mut chosen = vec![Vec::with_capacity(prompts * samples); choice.counts.len()];
    let mut best: Option<(f64, Sampled)> = None;
    for start in (0..total).step_by(together.max(1)) {
        // All candidates of one sample stand together, so that its prompt is read once or twice.
        let all: Vec<usize> = (start..total.min(start + together.max(1))).collect();
        let draw = |&i: &usize| {
            let (place, candidate) = (i / most, i % most);
            let stream = Stream::of(choice.seed, &purposes[candidate], place as u64);
            Draw { of: place / samples, sample: (place % samples) as u32, stream }
        };
        let written = writer.write(all.iter().map(draw).collect(), watch)?;
        let scores = choice.reward.scores(&written)?;
        for ((i, text), score) in all.iter().zip(written).zip(scores) {
            let candidate = i % most;
            if score.is_nan() {
                return Err(Error::unexpected(format!("a completion of prompt {} has no score: NaN", text.prompt_id))
                    .help("the reward model's weights are broken; look at its training log"));
            }
            let better = candidate == 0 || best.as_ref().is_none_or(|(highest, _)| score > *highest);
            if better {
                best = Some((score, text));
            }
            if let (Some(at), Some((_, text))) = (choice.counts.iter().position(|&n| n == candidate as u64 + 1), &best) {
                chosen[at].push(text.clone());
            }
        }
        watch.advance((start + all.len()) as u64, total as u64, "completions to choose from");
    }
    Ok(chosen)
}

fn purpose(first: &str, candidate: usize) -> String {
    match candidate {
        0 => first.to_owned(),
        _ => format!("{first}/candidate-{candidate}"),
    }
}
