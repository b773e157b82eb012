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

/// Each label once, of this kind of judge, and both sides where there are several.
fn labels(kind: JudgeKind, labels: &[Label], table: &Table<'_>) -> Result<()> {
    let (sides, all): ([Label; 2], &[Label]) = match kind {
        JudgeKind::Pairwise => ([Label::First, Label::Second], &[Label::First, Label::Second, Label::Tie]),
        JudgeKind::RewardModel => ([Label::Good, Label::Bad], &[Label::Good, Label::Bad]),
    };
    let listed = all.iter().map(|label| format!("`{}`", label.name())).collect::<Vec<_>>().join(", ");
    let wrong =
        |what: String| Err(table.at_value("labels", format!("`labels` {what}")).help(format!("this kind of judge has {listed}")));
    if table.has("labels") && labels.is_empty() {
        return wrong("names no class".to_owned());
    }
    if let Some(other) = labels.iter().find(|label| !all.contains(label)) {
        return wrong(format!("names `{}`, which this kind of judge can't say", other.name()));
    }
    if let Some(twice) = labels.iter().enumerate().find(|(i, label)| labels[..*i].contains(label)) {
        return wrong(format!("names `{}` twice", twice.1.name()));
    }
    match sides.iter().find(|side| labels.len() > 1 && !labels.contains(side)) {
        Some(side) => wrong(format!("lacks `{}`", side.name())),
        None if labels == [Label::Tie] => wrong("names a tie alone".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::error::Result;
    use crate::suite::settings::{JudgeKind, JudgeSettings, Label, Side, Values};
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
        assert!(trained.get("onnx").is_none() && trained["template"].is_string() && trained["max_length"].is_u64());
        assert!(serde_json::to_value(judge("kind = \"reward_model\"\npath = \"judge\"\n")).unwrap()["max_length"].is_null());
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
        ] {
            let error = suite(&format!("kind = \"{kind}\"\n{keys}")).expect_err(what);
            assert!(error.to_string().contains(what), "{what}: {error}");
            assert!(error.place.is_some_and(|place| place.line.is_some()), "{what}");
        }
    }
}
