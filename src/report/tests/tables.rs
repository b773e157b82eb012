//! The renderers for machines and terminals.

use super::*;
use crate::checks::{Answer, Severity};

/// Text that would do harm where it isn't escaped.
pub(super) const HOSTILE: &str =
    "<script>alert(1)</script>\" onmouseover='x' ]]> & | `rm` \u{202e}txt\u{0}\u{1b}[31m\u{9b}2J\r\n=1+1";

pub(super) fn hostile() -> ReportData {
    let mut data = fixture::report();
    let odd = |text: &mut String| *text = HOSTILE.to_owned();
    let suite = &mut data.suite;
    [&mut suite.name, &mut suite.title, &mut suite.description].into_iter().for_each(odd);
    let names: Vec<String> = suite.variants.iter().map(|v| v.name.clone()).collect();
    let renamed = |name: &mut String| {
        if let Some(i) = names.iter().position(|n| n == name) {
            *name = format!("{i}{HOSTILE}");
        }
    };
    suite.variants.iter_mut().for_each(|v| {
        renamed(&mut v.name);
        v.label = HOSTILE.to_owned();
    });
    data.conclusions.iter_mut().for_each(|c| {
        renamed(&mut c.variant);
        odd(&mut c.sentence);
    });
    data.estimates.iter_mut().for_each(|e| {
        renamed(&mut e.variant);
        odd(&mut e.method);
    });
    data.train_log.iter_mut().for_each(|r| renamed(&mut r.variant));
    data.online_log.iter_mut().for_each(|r| renamed(&mut r.variant));
    data.eval_log.iter_mut().for_each(|r| renamed(&mut r.variant));
    data.pair_scores.iter_mut().for_each(|r| renamed(&mut r.variant));
    data.judgments.iter_mut().for_each(|r| renamed(&mut r.variant));
    data.completions.iter_mut().for_each(|c| {
        renamed(&mut c.variant);
        [&mut c.prompt, &mut c.text].into_iter().for_each(odd);
    });
    hostile_judges(&mut data);
    hostile_rows(&mut data);
    data
}

fn hostile_judges(data: &mut ReportData) {
    let renamed = |name: &mut String| {
        if name != crate::judge::GOLD {
            *name = format!("{name} {HOSTILE}");
        }
    };
    renamed(&mut data.judge);
    data.estimates.iter_mut().filter_map(|e| e.judge.as_mut()).for_each(renamed);
    data.judgments.iter_mut().for_each(|j| renamed(&mut j.judge));
    data.judge_trials.iter_mut().for_each(|t| renamed(&mut t.judge));
}

fn hostile_rows(data: &mut ReportData) {
    let odd = |text: &mut String| *text = HOSTILE.to_owned();
    for f in &mut data.findings {
        [&mut f.id, &mut f.variant, &mut f.message, &mut f.evidence, &mut f.hint].into_iter().for_each(odd);
    }
    data.cells.iter_mut().for_each(|c| [&mut c.id, &mut c.stage].into_iter().for_each(odd));
    data.provenance.iter_mut().for_each(|f| [&mut f.name, &mut f.value].into_iter().for_each(odd));
    let gate = data.gate.as_mut().unwrap();
    [&mut gate.golden, &mut gate.golden_reason].into_iter().for_each(odd);
    for r in &mut gate.rows {
        [&mut r.kind, &mut r.name, &mut r.golden, &mut r.found, &mut r.message].into_iter().for_each(odd);
    }
}

/// The header that serde's field names give.
fn header_of<T: Serialize>(row: &T) -> Vec<String> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.serialize(row).unwrap();
    let bytes = writer.into_inner().unwrap();
    ::csv::Reader::from_reader(&bytes[..]).headers().unwrap().iter().map(str::to_owned).collect()
}

#[test]
fn the_documented_columns_are_the_fields_in_their_order() {
    let data = fixture::report();
    let names = |t: &columns::Table| t.columns.iter().map(|c| c.name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&columns::CELLS), header_of(&data.cells[0]));
    assert_eq!(names(&columns::TRAIN_LOG), header_of(&data.train_log[0]));
    assert_eq!(names(&columns::ONLINE_LOG), header_of(&data.online_log[0]));
    assert_eq!(names(&columns::EVAL_LOG), header_of(&data.eval_log[0]));
    assert_eq!(names(&columns::COMPLETIONS), header_of(&data.completions[0]));
    assert_eq!(names(&columns::JUDGMENTS), header_of(&data.judgments[0]));
    assert_eq!(names(&columns::JUDGE_TRIALS), header_of(&data.judge_trials[0]));
    assert_eq!(names(&columns::PAIR_SCORES), header_of(&data.pair_scores[0]));
    assert_eq!(names(&columns::ESTIMATES), header_of(&data.estimates[0]));
    assert_eq!(names(&columns::FINDINGS), header_of(&data.findings[0]));
    assert_eq!(names(&columns::GATE), header_of(&data.gate.unwrap().rows[0]));
}

#[test]
fn every_csv_reads_back_to_the_same_rows() {
    fn rows<T: serde::de::DeserializeOwned>(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Vec<T> {
        ::csv::Reader::from_reader(&files[name][..]).deserialize().map(|r| r.unwrap()).collect()
    }
    for data in [fixture::report(), hostile()] {
        let files = written(&data);
        assert_eq!(rows::<CellRow>(&files, "cells.csv"), data.cells);
        assert_eq!(rows::<TrainStep>(&files, "train_log.csv"), data.train_log);
        assert_eq!(rows::<OnlineStep>(&files, "online_log.csv"), data.online_log);
        assert_eq!(rows::<EvalStep>(&files, "eval_log.csv"), data.eval_log);
        assert_eq!(rows::<Completion>(&files, "completions.csv"), data.completions);
        assert_eq!(rows::<Judgment>(&files, "judgments.csv"), data.judgments);
        assert_eq!(rows::<JudgeTrial>(&files, "judge_trials.csv"), data.judge_trials);
        assert_eq!(rows::<PairScore>(&files, "pair_scores.csv"), data.pair_scores);
        assert_eq!(rows::<Estimate>(&files, "estimates.csv"), data.estimates);
        assert_eq!(rows::<Finding>(&files, "findings.csv"), data.findings);
        assert_eq!(rows::<GateRow>(&files, "gate.csv"), data.gate.unwrap().rows);
    }
}

#[test]
fn an_empty_table_keeps_its_header_and_every_documented_file_is_written() {
    let files = written(&missing::without_gate());
    assert!(text(&files, "gate.csv").starts_with("kind,name,verdict,"));
    assert_eq!(text(&files, "gate.csv").lines().count(), 1);
    for table in columns::TABLES {
        assert!(files.contains_key(table.file), "{}", table.file);
        assert!(text(&files, "COLUMNS.md").contains(&format!("## {}", table.file)));
    }
}

#[test]
fn small_files_are_locked() {
    let files = written(&fixture::report());
    insta::assert_snapshot!("cells", text(&files, "cells.csv"));
    insta::assert_snapshot!("findings", text(&files, "findings.csv"));
    insta::assert_snapshot!("gate", text(&files, "gate.csv"));
    insta::assert_snapshot!("estimates_head", text(&files, "estimates.csv").lines().take(12).collect::<Vec<_>>().join("\n"));
    insta::assert_snapshot!("columns", text(&files, "COLUMNS.md"));
    insta::assert_snapshot!("markdown", text(&files, "summary.md"));
    insta::assert_snapshot!("junit", text(&files, "junit.xml"));
}

#[test]
fn the_terminal_is_locked_and_fits_its_width() {
    let mut data = fixture::report();
    insta::assert_snapshot!("terminal_80", terminal(&data, 80, false));
    insta::assert_snapshot!("terminal_60", terminal(&data, 60, false));
    insta::assert_snapshot!("terminal_160", terminal(&data, 160, false));
    data.conclusions[0].answer = Answer::Worse;
    data.conclusions[1].answer = Answer::Void;
    data.findings[1].severity = Severity::Fail;
    data.findings[0].message = "漢字".repeat(90);
    for data in [data, hostile()] {
        for width in 60..=200 {
            for line in terminal(&data, width, false).lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn colours_only_add_escapes() {
    let data = fixture::report();
    let coloured = terminal(&data, 80, true);
    assert!(coloured.contains("\u{1b}[32m"));
    let mut plain = coloured;
    for code in ["0", "1", "2", "31", "32", "33"] {
        plain = plain.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(plain, terminal(&data, 80, false));
}

#[test]
fn hostile_text_reaches_neither_terminal_nor_summary_nor_junit() {
    let data = hostile();
    let files = written(&data);
    for shown in [terminal(&data, 80, false), text(&files, "summary.md"), text(&files, "junit.xml")] {
        let steering = shown.chars().find(|&c| c != '\n' && (c.is_control() || c == '\u{202e}'));
        assert_eq!(steering, None, "{shown}");
    }
    assert!(!text(&files, "summary.md").contains("<script"));
    assert!(!text(&files, "junit.xml").contains("<script"));
    let report = quick_junit::Report::deserialize_from_str(&text(&files, "junit.xml")).unwrap();
    assert_eq!(report.test_suites[0].test_cases.len(), 2);
}

#[test]
fn an_inconclusive_comparison_fails_in_junit_where_the_suite_says_so() {
    let mut data = fixture::report();
    assert!(junit::render(&data).unwrap().contains("failures=\"0\""));
    data.gate_settings.on_inconclusive = crate::suite::settings::OnInconclusive::Fail;
    assert!(junit::render(&data).unwrap().contains("<failure message=\"The difference may lie"));
}
