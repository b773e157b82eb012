//! `ReportData` against a golden file: pass, fail or inconclusive.
