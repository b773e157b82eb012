//! The renderers together: snapshots, the same bytes twice, reports with pieces missing, hostile text.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

mod missing;
mod page;
mod study;
mod tables;

fn written(data: &ReportData) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    write(data, folder.path()).unwrap();
    files(folder.path())
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

#[test]
fn the_same_data_gives_the_same_bytes_also_over_an_older_report() {
    let folder = tempfile::tempdir().unwrap();
    write(&missing::without_gate(), folder.path()).unwrap();
    write(&fixture::report(), folder.path()).unwrap();
    assert_eq!(files(folder.path()), written(&fixture::report()));
}

#[test]
fn a_report_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = fixture::report();
    write(&data, folder.path()).unwrap();
    assert_eq!(load_json(&folder.path().join("report.json")).unwrap(), data);
}

#[test]
fn what_is_no_report_is_an_input_error_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    for (content, expected) in [("{\n\"schema\": oops", "report.json:2: "), ("{\"schema\": 99}", "has schema 99")] {
        std::fs::write(&path, content).unwrap();
        let error = load_json(&path).unwrap_err();
        assert_eq!(error.kind, crate::error::Kind::Input);
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(load_json(&folder.path().join("none.json")).unwrap_err().to_string().contains("no such file"));
}

#[test]
fn a_number_that_is_not_finite_is_an_error_that_names_it() {
    let mut data = fixture::report();
    data.estimates[0].upper = f64::INFINITY;
    let error = write(&data, tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(error.message.contains("judge_accuracy of pairwise"), "{error}");
}

/// `DPO_EVAL_REPORT_PREVIEW=folder cargo test --lib report::tests::preview` writes the fixture's report for looking at.
#[test]
fn preview() {
    if let Some(folder) = std::env::var_os("DPO_EVAL_REPORT_PREVIEW") {
        let folder = Path::new(&folder);
        write(&fixture::report(), &folder.join("full")).unwrap();
        write(&missing::nearly_everything(), &folder.join("bare")).unwrap();
        write(&tables::hostile(), &folder.join("hostile")).unwrap();
    }
}
