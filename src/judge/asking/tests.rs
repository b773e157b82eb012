//! Respondents are asked both ways, once each, and never again for what a journal holds.

use std::cell::Cell;
use std::sync::Mutex;

use super::*;
use crate::judge::verdict::Outcome;
use crate::store::Store;
use crate::watch::Silent;

/// Answers with a fixed function of the texts, and counts how often it is asked.
pub(crate) struct Fixed<'a> {
    pub form: JudgeKind,
    pub asked: &'a Cell<usize>,
}

fn value(question: &Question) -> f64 {
    let mark = |text: &str| text.bytes().map(f64::from).sum::<f64>() / 100.0;
    match question.as_slice() {
        // A leaning to what is shown first.
        [_, first, second] => mark(first) - mark(second) + 0.5,
        [_, text] => mark(text),
        _ => unreachable!("two forms"),
    }
}

impl Respondent for Fixed<'_> {
    fn form(&self) -> JudgeKind {
        self.form
    }

    fn answers(&mut self, questions: &[&Question], _: &dyn Watch) -> Result<Vec<Answer>> {
        self.asked.set(self.asked.get() + questions.len());
        Ok(questions.iter().map(|q| Answer { value: value(q), truncated: q[0].len() > 5 }).collect())
    }
}

const TEXTS: [Texts; 4] = [["q", "b", "a"], ["q", "a", "b"], ["q", "a", "a"], ["other q", "b", "a"]];

#[test]
fn both_orders_are_asked_and_equal_questions_once() {
    for (form, questions) in [(JudgeKind::Pairwise, 4), (JudgeKind::RewardModel, 4)] {
        let asked = Cell::new(0);
        let mut judge = Asking::new("j", Fixed { form, asked: &asked }, 0.0, None);
        let said: Vec<Verdict> = judge.verdicts(&TEXTS, &Silent).unwrap().into_iter().flatten().collect();
        assert_eq!(asked.get(), questions, "{form:?}");
        let expected = 1.0 / (1.0 + (-0.01f64).exp());
        assert!((said[0].preference - expected).abs() < 1e-12, "the leaning to the first cancels");
        assert_eq!(said.iter().map(|v| v.outcome).collect::<Vec<_>>(), [Outcome::Win, Outcome::Loss, Outcome::Tie, Outcome::Win]);
        assert_eq!(said.iter().map(|v| v.asked).collect::<Vec<_>>(), [true, true, false, true]);
        assert_eq!(said.iter().map(|v| v.truncated).collect::<Vec<_>>(), [false, false, false, true]);
        let effect = (form == JudgeKind::Pairwise).then_some(0.5);
        assert!(said[0].position_effect().is_some_and(|e| (e - 0.5).abs() < 1e-12) || effect.is_none());
    }
}

#[test]
fn identical_texts_are_asked_where_that_is_the_question() {
    let asked = Cell::new(0);
    let mut judge = Asking::new("j", Fixed { form: JudgeKind::Pairwise, asked: &asked }, 0.0, None);
    let said = judge.ask(&[["q", "a", "a"]], &Silent).unwrap()[0].unwrap();
    assert_eq!((said.preference, said.asked, asked.get()), (0.5, true, 1));
    assert_eq!(said.position_effect(), Some(0.5), "what the first place alone is worth");
}

fn journaled(store: &Store, identity: &str, asked: &Cell<usize>, watch: &dyn Watch) -> Vec<f64> {
    let journal = Journal::open(store, &identity).unwrap();
    let mut judge = Asking::new("j", Fixed { form: JudgeKind::Pairwise, asked }, 0.0, Some(journal));
    judge.verdicts(&TEXTS, watch).unwrap().into_iter().flatten().map(|v| v.preference).collect()
}

#[test]
fn what_a_journal_holds_is_never_asked_again_and_belongs_to_its_judge() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let asked = Cell::new(0);
    let first = journaled(&store, "one", &asked, &Silent);
    assert_eq!(asked.get(), 4);
    assert_eq!(journaled(&store, "one", &asked, &Silent), first);
    assert_eq!(asked.get(), 4, "nothing is judged twice");
    assert_eq!(journaled(&store, "two", &asked, &Silent), first);
    assert_eq!(asked.get(), 8, "another judge answers for itself");
    store.prune(&|_| true).unwrap();
    assert_eq!(journaled(&store, "one", &asked, &Silent), first);
    assert_eq!(asked.get(), 12, "what was pruned is asked again");
}

/// Keeps the warnings.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Watch for Heard {
    fn advance(&self, _: u64, _: u64, _: &str) {}

    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn damaged_answers_are_told_of_and_asked_again_and_the_whole_ones_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let asked = Cell::new(0);
    let whole = journaled(&store, "one", &asked, &Silent);
    let file = std::fs::read_dir(folder.path().join("answers")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    let changed = lines[0].replace("\"answer\":", "\"answer\":1");
    assert_ne!(changed, lines[0]);
    // A changed number, a line without its end, and nothing after it: as a kill or a bad disk leaves it.
    let cut = &lines[2][..lines[2].len() / 2];
    std::fs::write(&file, format!("{changed}\n{}\n{cut}", lines[1])).unwrap();
    let heard = Heard::default();
    assert_eq!(journaled(&store, "one", &asked, &heard), whole);
    assert_eq!(asked.get(), 4 + 3);
    let warnings = heard.0.into_inner().unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("2 entries are damaged"), "{warnings:?}");
    let heard = Heard::default();
    assert_eq!(journaled(&store, "one", &asked, &heard), whole);
    assert_eq!((asked.get(), heard.0.into_inner().unwrap().len()), (7, 0), "the mended file is whole");
}

#[test]
fn an_interrupted_judge_keeps_the_chunks_that_it_finished() {
    struct Breaks<'a>(&'a Cell<usize>);
    impl Respondent for Breaks<'_> {
        fn form(&self) -> JudgeKind {
            JudgeKind::RewardModel
        }
        fn answers(&mut self, questions: &[&Question], _: &dyn Watch) -> Result<Vec<Answer>> {
            self.0.set(self.0.get() + 1);
            match self.0.get() {
                2 => Err(Error::new(crate::error::Kind::Interrupted, "interrupted")),
                _ => Ok(questions.iter().map(|q| Answer { value: value(q), truncated: false }).collect()),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let texts: Vec<String> = (0..3 * CHUNK / 2).map(|i| format!("text {i}")).collect();
    let questions: Vec<Question> = texts.iter().map(|text| vec!["q", text.as_str()]).collect();
    let calls = Cell::new(0);
    let ask = || {
        let journal = Journal::open(&store, &"j").unwrap();
        Asking::new("j", Breaks(&calls), 0.0, Some(journal)).answers(&questions, &Silent)
    };
    assert!(ask().is_err());
    let answers = ask().unwrap();
    assert_eq!(calls.get(), 3, "one chunk of two was left");
    assert!(answers.iter().zip(&questions).all(|(a, q)| a.value == value(q)));
}
