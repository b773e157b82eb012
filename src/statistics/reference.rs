//! Reading `shared/reference/vectors` in tests.

use serde_json::Value;

/// None, said aloud, where the shared folder is absent.
pub fn vectors(name: &str) -> Option<Value> {
    let path = format!("{}/../../../shared/reference/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).expect("a JSON file")),
        Err(_) => {
            eprintln!("skipped: {path} is absent");
            None
        }
    }
}

pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[track_caller]
pub fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance, "found {f}, expected {e}");
    }
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

pub fn limits(interval: crate::interval::Interval) -> Vec<f64> {
    vec![interval.lower, interval.upper]
}

/// a − b of the paired tests' vector.
pub fn differences(file: &Value) -> Vec<f64> {
    numbers(&file["a"]).iter().zip(numbers(&file["b"])).map(|(a, b)| a - b).collect()
}

/// What other packages say, recorded by `golden/statistics/record.py`.
pub fn peers() -> Value {
    let path = format!("{}/../../golden/statistics/peers.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("golden/statistics/peers.json")).expect("a JSON file")
}
