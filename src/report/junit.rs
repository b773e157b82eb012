//! `junit.xml` for test dashboards. Where a gate ran its rows are the test cases, else the conclusions and findings.
//! Without time stamps: the same data gives the same bytes.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::checks::{Answer, Conclusion, Finding, Severity};
use crate::error::{Error, Result};
use crate::suite::settings::OnInconclusive;

use super::{GateRow, ReportData, Verdict, format};

pub(crate) fn render(data: &ReportData) -> Result<String> {
    let mut report = Report::new(clean(&data.suite.name));
    if let Some(gate) = &data.gate {
        report.add_test_suite(suite("gate", gate.rows.iter().map(|row| gate_case(row, data.gate_settings.on_inconclusive))));
    } else {
        report.add_test_suite(suite("verdict", data.conclusions.iter().map(conclusion_case)));
        report.add_test_suite(suite("findings", data.findings.iter().map(|f| finding_case(data, f))));
    }
    report.to_string().map_err(|e| Error::unexpected(format!("the report can't be written as JUnit XML: {e}")))
}

fn suite(name: &str, cases: impl Iterator<Item = TestCase>) -> TestSuite {
    let mut suite = TestSuite::new(name);
    suite.add_test_cases(cases);
    suite
}

fn case(class: &str, name: String, status: TestCaseStatus, said: &str) -> TestCase {
    let mut case = TestCase::new(clean(&name), status);
    case.set_classname(class);
    case.set_system_out(clean(said));
    case
}

/// An undecided row fails where the suite says so, as the exit code does.
fn gate_case(row: &GateRow, on_inconclusive: OnInconclusive) -> TestCase {
    let status = match row.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Fail => failure(NonSuccessKind::Failure, &row.kind, &row.message),
        Verdict::Inconclusive if on_inconclusive == OnInconclusive::Fail => {
            failure(NonSuccessKind::Failure, "inconclusive", &row.message)
        }
        Verdict::Inconclusive => skipped(&row.message),
    };
    let said = format!("golden {}\nfound {}\ndifference {}", row.golden, row.found, super::gate_difference(row));
    case("gate", format!("{}: {}", row.kind, row.name), status, &said)
}

fn conclusion_case(c: &Conclusion) -> TestCase {
    let (_, word) = format::answer(c.answer);
    let status = match c.answer {
        Answer::Better => TestCaseStatus::success(),
        Answer::Worse => failure(NonSuccessKind::Failure, word, &c.sentence),
        Answer::Void => failure(NonSuccessKind::Error, word, &c.sentence),
        Answer::Undecided => skipped(&c.sentence),
    };
    case("verdict", format!("{} against the reference", c.variant), status, &c.sentence)
}

fn finding_case(data: &ReportData, f: &Finding) -> TestCase {
    let place = [
        Some(f.variant.clone()).filter(|v| !v.is_empty()),
        f.checkpoint.map(|c| data.place(&f.variant, c)),
        f.seed.map(|s| format!("seed {s}")),
    ];
    let place: Vec<String> = place.into_iter().flatten().collect();
    let name = if place.is_empty() { f.id.clone() } else { format!("{} ({})", f.id, place.join(", ")) };
    let status = match f.severity {
        Severity::Fail => failure(NonSuccessKind::Failure, &f.id, &f.message),
        Severity::Warn | Severity::Info => TestCaseStatus::success(),
    };
    let (_, word) = format::severity(f.severity);
    case("findings", name, status, &format!("{word}: {}\n{}", f.message, f.hint))
}

fn failure(kind: NonSuccessKind, type_: &str, message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(clean(type_)).set_message(clean(message));
    status
}

fn skipped(message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(clean(message));
    status
}

fn clean(raw: &str) -> String {
    format::visible(raw).into_owned()
}
