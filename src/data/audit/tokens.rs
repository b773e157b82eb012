//! What tokenising the rows shows.

use std::collections::BTreeMap;

use crate::data::AuditItem;
use crate::data::label::Count;
use crate::data::tokenize::TextTokenizer;
use crate::suite::settings::Tokenization;

/// What tokenising one row's completions showed.
#[derive(Default)]
pub(super) struct Seen {
    completions: u64,
    truncated: u64,
    emptied: u64,
    mismatches: u64,
    unknown: u64,
    special: u64,
    tokens: u64,
    prompt_length: usize,
    /// Tokens of each completion, and whether `max_length` cuts it.
    sides: Vec<(usize, bool)>,
    missing_bos: u64,
    double_bos: u64,
    missing_eos: u64,
    double_eos: u64,
}

impl Seen {
    pub fn of(prompt: &str, completions: &[&str], tokenizer: &TextTokenizer, max_length: Option<usize>) -> Self {
        let ids = tokenizer.prompt(prompt);
        let plain = tokenizer.ids(prompt);
        let mut seen = Self { completions: completions.len() as u64, ..Self::default() };
        let take = |ids: &[u32], seen: &mut Self| {
            seen.tokens += ids.len() as u64;
            seen.unknown += ids.iter().filter(|&&id| Some(id) == tokenizer.unknown()).count() as u64;
            seen.special += ids.iter().filter(|&&id| tokenizer.is_special(id) && Some(id) != tokenizer.unknown()).count() as u64;
        };
        take(&plain, &mut seen);
        seen.prompt_length = ids.len();
        if let Some(bos) = tokenizer.bos() {
            seen.missing_bos = u64::from(ids.first() != Some(&bos));
            seen.double_bos = u64::from(ids.starts_with(&[bos, bos]));
        }
        let eos = tokenizer.eos();
        for completion in completions {
            let joint = tokenizer.completion(prompt, &ids, completion);
            seen.mismatches += u64::from(joint.boundary_mismatch);
            let cut = max_length.is_some_and(|max_length| ids.len() + joint.ids.len() > max_length);
            seen.sides.push((joint.ids.len(), cut));
            seen.missing_eos += u64::from(!joint.ids.contains(&eos));
            seen.double_eos += u64::from(joint.ids.windows(2).any(|two| two == [eos, eos]));
            if let Some(max_length) = max_length {
                seen.truncated += u64::from(cut);
                seen.emptied += u64::from(ids.len() >= max_length);
            }
            // The last id is the EOS that belongs there.
            let own = joint.ids.strip_suffix(&[eos]).unwrap_or(&joint.ids);
            take(own, &mut seen);
        }
        seen
    }
}

/// How many texts there are of each length: no more to hold than lengths that differ.
#[derive(Default)]
pub(super) struct Lengths(BTreeMap<usize, u64>);

impl Lengths {
    pub fn add(&mut self, length: usize) {
        *self.0.entry(length).or_insert(0) += 1;
    }

    /// Five quantiles and the longest, in `unit`; none where there is no text. The quantile of p is the smallest length that a share of p
    /// doesn't exceed.
    pub fn item(&self, what: &str, unit: &str) -> Option<AuditItem> {
        let total: u64 = self.0.values().sum();
        let longest = self.0.last_key_value()?.0;
        let at = |percent: u64| {
            let mut left = (total * percent).div_ceil(100).clamp(1, total);
            let reached = self.0.iter().find(|(_, count)| {
                let reached = left <= **count;
                left = left.saturating_sub(**count);
                reached
            });
            reached.map_or(*longest, |(length, _)| *length)
        };
        let quantiles = [5, 25, 50, 75, 95].map(|percent| at(percent).to_string()).join(", ");
        let message = format!(
            "{total} {what} texts have {quantiles} {unit} at the 5, 25, 50, 75 and 95 % quantiles, and {longest} at most"
        );
        Some(AuditItem { id: format!("{what}-length"), count: total, total, must_be_zero: false, message })
    }
}

/// Sums over all rows.
#[derive(Default)]
pub(super) struct Tokens {
    prompts: u64,
    completions: u64,
    tokens: u64,
    truncated: Count,
    emptied: Count,
    mismatches: Count,
    unknown: Count,
    special: Count,
    missing_bos: Count,
    double_bos: Count,
    missing_eos: Count,
    double_eos: Count,
    prompt_lengths: Lengths,
    /// Lengths of each side, and how often it is cut.
    sides: Vec<(Lengths, Count)>,
}

impl Tokens {
    /// `has_sides`: whether its completions are a row's sides; a demonstration's is not.
    pub fn add(&mut self, id: &str, seen: &Seen, has_sides: bool) {
        self.prompts += 1;
        self.completions += seen.completions;
        self.tokens += seen.tokens;
        for (sum, count) in [
            (&mut self.truncated, seen.truncated),
            (&mut self.emptied, seen.emptied),
            (&mut self.mismatches, seen.mismatches),
            (&mut self.unknown, seen.unknown),
            (&mut self.special, seen.special),
            (&mut self.missing_bos, seen.missing_bos),
            (&mut self.double_bos, seen.double_bos),
            (&mut self.missing_eos, seen.missing_eos),
            (&mut self.double_eos, seen.double_eos),
        ] {
            sum.add(count, id);
        }
        if has_sides {
            self.prompt_lengths.add(seen.prompt_length);
            self.sides.resize_with(seen.sides.len(), Default::default);
            for ((lengths, cuts), (length, cut)) in self.sides.iter_mut().zip(&seen.sides) {
                lengths.add(*length);
                cuts.add(u64::from(*cut), id);
            }
        }
    }

    /// `full`: ends and lengths too; `names`: of the sides.
    pub fn items(self, tokenizer: &TextTokenizer, max_length: Option<usize>, full: bool, names: &[&str]) -> Vec<AuditItem> {
        let (total, tokens, prompts) = (self.completions, self.tokens, self.prompts);
        let by = match tokenizer.tokenization() {
            Tokenization::Joint => String::new(),
            other => format!(" (tokenization = \"{}\")", other.name()),
        };
        let mismatch = format!("completions share a token with the end of their prompt{by}");
        let mut items = vec![
            self.mismatches.item("boundary-mismatch", total, &mismatch),
            self.unknown.item("unknown-tokens", tokens, "tokens stand for what the vocabulary lacks"),
        ];
        // A chat template writes special tokens itself; what messages bring is counted where they are read.
        if !tokenizer.is_templated() {
            items.push(self.special.item("special-tokens-in-text", tokens, "tokens of the texts themselves are special ones"));
        }
        if let Some(limit) = max_length {
            let truncated = format!("completions lose their end, being longer with their prompts than {limit} tokens");
            let emptied = format!("completions lose every token, as their prompts fill {limit} tokens");
            items.push(self.truncated.item("truncated", total, &truncated));
            items.push(self.emptied.item("emptied-by-truncation", total, &emptied));
        }
        if !full {
            return items;
        }
        if tokenizer.bos().is_some() {
            let missing = "prompts don't begin with BOS, which the tokenizer has";
            items.push(self.missing_bos.item("missing-bos", prompts, missing));
            items.push(self.double_bos.item("double-bos", prompts, "prompts begin with BOS twice"));
        }
        items.push(self.missing_eos.item("missing-eos", total, "completions hold no EOS, so that none is learnt"));
        items.push(self.double_eos.item("double-eos", total, "completions hold EOS twice in a row"));
        items.extend(self.prompt_lengths.item("prompt", "tokens"));
        for ((lengths, cuts), side) in self.sides.into_iter().zip(names) {
            let rows: u64 = lengths.0.values().sum();
            items.extend(lengths.item(side, "tokens"));
            if let Some(limit) = max_length {
                let what = format!("{side} sides lose their end to {limit} tokens");
                items.push(cuts.item(&format!("truncated-{side}"), rows, &what));
            }
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quantiles by their definition, on numbers small enough to count by hand.
    #[test]
    fn lengths_are_told_at_quantiles_that_occur() {
        let of = |lengths: &[usize]| {
            let mut all = Lengths::default();
            lengths.iter().for_each(|length| all.add(*length));
            all.item("chosen", "tokens")
        };
        let quantiles = "at the 5, 25, 50, 75 and 95 % quantiles, and 40 at most";
        assert_eq!(of(&[40, 10, 30, 20]).unwrap().message, format!("4 chosen texts have 10, 10, 20, 30, 40 tokens {quantiles}"));
        assert_eq!(
            of(&[40, 10, 10, 10, 10]).unwrap().message,
            format!("5 chosen texts have 10, 10, 10, 10, 40 tokens {quantiles}")
        );
        assert_eq!(of(&[7]).unwrap().count, 1);
        assert_eq!(of(&[]), None);
    }
}
