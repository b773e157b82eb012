//! The keys of `[[judge]]` that describe an ONNX judge brought along.

use crate::error::Result;
use crate::suite::document::Table;
use crate::suite::rules;
use crate::suite::settings::{JudgeKind, Label, OnnxSettings};
use crate::suite::spec::JudgeSpec;

const KEYS: [&str; 9] =
    ["prompt_max_length", "truncation_side", "padding_side", "pad_token_id", "inputs", "output", "values", "labels", "provider"];

/// `texts`: how many templates the judge has.
pub(super) fn onnx(written: &JudgeSpec, kind: JudgeKind, texts: usize, table: &Table<'_>) -> Result<OnnxSettings> {
    if written.path.is_none() {
        if let Some(key) = table.first_key(|key| KEYS.contains(&key)) {
            let message = format!("`{key}` has no effect: a judge that is trained here is written as it is read");
            return Err(table
                .at_key(key, message)
                .help(format!("leave it out; `{key}` describes a judge brought along by its `path`")));
        }
        return Ok(OnnxSettings::default());
    }
    let mut prompt_max_length = None;
    if table.has("prompt_max_length") && texts != 3 {
        let message = "`prompt_max_length` has no effect: the judge reads its prompt and its completions as one";
        return Err(table
            .at_key("prompt_max_length", message)
            .help("it needs three templates: of the prompt, of {a} and of {b}"));
    }
    if let Some(mut length) = written.prompt_max_length {
        table.set(&mut length, "prompt_max_length", written.prompt_max_length, rules::TWO_OR_MORE)?;
        prompt_max_length = Some(length);
    }
    labels(kind, &written.labels, table)?;
    Ok(OnnxSettings {
        prompt_max_length,
        truncation_side: written.truncation_side,
        padding_side: written.padding_side,
        pad_token_id: written.pad_token_id,
        inputs: written.inputs.clone(),
        output: written.output.clone(),
        values: written.values,
        labels: written.labels.clone(),
        provider: written.provider,
    })
}

fn labels(kind: JudgeKind, labels: &[Label], table: &Table<'_>) -> Result<()> {
    match fault(kind, labels).filter(|_| table.has("labels")) {
        Some(fault) => Err(table.at_value("labels", format!("`labels` {}", fault.what)).help(fault.help)),
        None => Ok(()),
    }
}

/// What is wrong with labels; goes on from "`labels` ".
pub(in crate::suite) struct Fault {
    pub what: String,
    pub help: String,
}

/// Each label must be there once, be one of this kind of judge, and both sides where there are several.
pub(in crate::suite) fn fault(kind: JudgeKind, labels: &[Label]) -> Option<Fault> {
    let (sides, all): ([Label; 2], &[Label]) = match kind {
        JudgeKind::Pairwise => ([Label::First, Label::Second], &[Label::First, Label::Second, Label::Tie]),
        JudgeKind::RewardModel => ([Label::Good, Label::Bad], &[Label::Good, Label::Bad]),
    };
    let what = if labels.is_empty() {
        "names no class".to_owned()
    } else if let Some(other) = labels.iter().find(|label| !all.contains(label)) {
        format!("names `{}`, which this kind of judge can't say", other.name())
    } else if let Some((_, twice)) = labels.iter().enumerate().find(|(i, label)| labels[..*i].contains(label)) {
        format!("names `{}` twice", twice.name())
    } else if let Some(side) = sides.iter().find(|side| labels.len() > 1 && !labels.contains(side)) {
        format!("lacks `{}`", side.name())
    } else if labels == [Label::Tie] {
        "names a tie alone".to_owned()
    } else {
        return None;
    };
    let listed = all.iter().map(|label| format!("`{}`", label.name())).collect::<Vec<_>>().join(", ");
    Some(Fault { what, help: format!("this kind of judge has {listed}") })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::error::Result;
    use crate::suite::settings::{Attention, EncodingSettings, JudgeKind, JudgeSettings, Label, Pooling, Side, Values};
    use crate::suite::{Suite, parse};

    const SUITE: &str = "name = \"toy\"\nseeds = [1]\n[dataset]\nkind = \"world\"\n[sft]\nmax_steps = 9\n[[variant]]\nname = \"a\"\n[[judge]]\nname = \"j\"\n";

    fn suite(judge: &str) -> Result<Suite> {
        parse(&format!("{SUITE}{judge}"), Path::new("toy.toml"))
    }

    fn judge(text: &str) -> JudgeSettings {
        suite(text).unwrap().judges.remove(0)
    }

    #[test]
    fn a_few_lines_describe_a_judge_that_was_brought_along() {
        let judge = judge(
            "kind = \"pairwise\"\npath = \"judge\"\ntemplate = [\"{prompt}\", \"{a}\", \"{b}\"]\nmax_length = 2048\nprompt_max_length = 1224\n\
             truncation_side = \"left\"\nlabels = [\"second\", \"first\", \"tie\"]\nvalues = \"probabilities\"\noutput = \"p\"\n\
             inputs = { attention_mask = \"visible\" }\n",
        );
        assert_eq!((judge.kind, judge.template.0.len(), judge.max_length), (JudgeKind::Pairwise, 3, Some(2048)));
        let onnx = &judge.onnx;
        assert_eq!((onnx.prompt_max_length, onnx.truncation_side), (Some(1224), Some(Side::Left)));
        assert_eq!(
            (&onnx.labels[..], onnx.values),
            (&[Label::Second, Label::First, Label::Tie][..], Some(Values::Probabilities))
        );
        assert_eq!(onnx.inputs.values().collect::<Vec<_>>(), ["visible"]);
        let written = serde_json::to_value(&judge).unwrap();
        assert_eq!(written["onnx"]["inputs"]["attention_mask"], "visible");
    }

    #[test]
    fn a_judge_that_needs_no_words_has_the_digest_that_it_had() {
        let trained = serde_json::to_value(judge("kind = \"pairwise\"\n")).unwrap();
        assert!(trained.get("encoding").is_none() && trained["fitness"].is_null());
        assert!(trained.get("onnx").is_none() && trained["template"].is_string() && trained["max_length"].is_u64());
        assert!(serde_json::to_value(judge("kind = \"reward_model\"\npath = \"judge\"\n")).unwrap()["max_length"].is_null());
    }

    #[test]
    fn an_encoder_reads_the_mean_unless_told_otherwise_and_a_causal_judge_its_last_token() {
        let read = |keys: &str| judge(&format!("kind = \"pairwise\"\n{keys}")).encoding;
        assert_eq!(read(""), EncodingSettings::default());
        assert_eq!(read("attention = \"causal\"\npooling = \"last\"\n"), EncodingSettings::default());
        let both = |pooling| EncodingSettings { attention: Attention::Bidirectional, pooling };
        assert_eq!(read("attention = \"bidirectional\"\n"), both(Pooling::Mean));
        assert_eq!(read("attention = \"bidirectional\"\npooling = \"last\"\n"), both(Pooling::Last));
        assert_eq!(read("pooling = \"mean\"\n").attention, Attention::Causal);
    }

    #[test]
    fn keys_without_effect_and_labels_that_contradict_are_refused_at_their_place() {
        let brought = "path = \"judge\"\n";
        for (kind, keys, what) in [
            ("pairwise", "provider = \"cuda\"\n".to_owned(), "`provider` has no effect"),
            ("pairwise", "template = [\"{a}\", \"{b}\"]\n".to_owned(), "lists 2 texts"),
            ("pairwise", format!("{brought}prompt_max_length = 9\n"), "`prompt_max_length` has no effect"),
            ("pairwise", format!("{brought}labels = [\"first\"  , \"first\"]\n"), "names `first` twice"),
            ("pairwise", format!("{brought}labels = [\"first\", \"tie\"]\n"), "lacks `second`"),
            ("pairwise", format!("{brought}labels = [\"tie\"]\n"), "a tie alone"),
            ("pairwise", format!("{brought}labels = []\n"), "names no class"),
            ("reward_model", format!("{brought}labels = [\"first\", \"second\"]\n"), "can't say"),
            ("reward_model", format!("{brought}template = [\"{{prompt}}\", \"{{completion}}\", \"\"]\n"), "lists 3 texts"),
            ("pairwise", format!("{brought}template = [\"{{a}}\", \"{{prompt}}\", \"{{b}}\"]\n"), "in this order"),
            ("pairwise", format!("{brought}template = [\"{{prompt}}\", \"{{a}}\"]\n"), "lacks {b}"),
            ("pairwise", format!("{brought}inputs = {{ tokens = \"t\" }}\n"), "tokens"),
            ("pairwise", format!("{brought}inputs = [\"t\"]\n"), "table"),
            ("pairwise", format!("{brought}attention = \"bidirectional\"\n"), "`attention` has no effect"),
            ("reward_model", format!("{brought}pooling = \"mean\"\n"), "`pooling` has no effect"),
            ("pairwise", "pooling = \"first\"\n".to_owned(), "pooling"),
        ] {
            let error = suite(&format!("kind = \"{kind}\"\n{keys}")).expect_err(what);
            assert!(error.to_string().contains(what), "{what}: {error}");
            assert!(error.place.is_some_and(|place| place.line.is_some()), "{what}");
        }
    }
}
