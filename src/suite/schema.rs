//! The JSON Schema of the suite file, for editors: generated from `spec`, with the defaults of `defaults`.

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::defaults::{self, Purpose};
use super::settings::{CheckSettings, FitnessSettings};
use super::spec::SuiteSpec;

/// The schema (draft 7, which TOML editors read), pretty-printed, ending in a newline.
pub fn schema() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<SuiteSpec>();
    let mut value = schema.to_value();
    without_null(&mut value);
    if let Some(tables) = value["definitions"].as_object_mut() {
        for (table, values) in documented_defaults() {
            insert_defaults(&mut tables[table], &values);
        }
    }
    let mut text = serde_json::to_string_pretty(&value).expect("JSON values serialise");
    text.push('\n');
    text
}

/// TOML has no null: an optional key is left out, not null.
fn without_null(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [only] = choices.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    map.insert("allOf".to_owned(), Value::Array(vec![only]));
                }
            }
            map.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

fn documented_defaults() -> Vec<(&'static str, Map<String, Value>)> {
    let mut training = members(&defaults::training(Purpose::Preference, defaults::SAMPLING));
    // Differs between [train], [sft] and judges.
    training.remove("learning_rate");
    training.insert("rounds".to_owned(), json!(1));
    training.insert("round_reference".to_owned(), json!(defaults::ROUND_REFERENCE));
    let mut model = members(&defaults::fresh_model());
    // These follow other keys.
    model.remove("intermediate_size");
    model.remove("num_key_value_heads");
    let mut dataset = members(&defaults::world());
    let [heldout, judge, eval] = defaults::SHARES;
    let format = defaults::PAIRS_FORMAT;
    dataset.extend(members(&json!({ "format": format, "heldout_share": heldout, "judge_share": judge, "eval_share": eval })));
    let gate = json!({
        "margin": defaults::GATE_MARGIN,
        "curve_tolerance": defaults::CURVE_TOLERANCE,
        "on_inconclusive": defaults::ON_INCONCLUSIVE,
    });
    vec![
        ("TrainSpec", training),
        ("ModelSpec", model),
        ("DatasetSpec", dataset),
        ("GenerateSpec", members(&defaults::generate())),
        ("JudgeSpec", members(&json!({ "tie_width": defaults::TIE_WIDTH, "min_accuracy": defaults::MIN_ACCURACY }))),
        ("FitnessSpec", members(&FitnessSettings::default())),
        ("StatisticsSpec", members(&defaults::statistics())),
        (
            "ChecksSpec",
            CheckSettings::default().thresholds().into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect(),
        ),
        ("GateSpec", members(&gate)),
        ("ReportSpec", members(&json!({ "samples": defaults::REPORT_SAMPLES }))),
    ]
}

fn members<T: Serialize>(settings: &T) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("settings are structs of plain values"),
    }
}

fn insert_defaults(table: &mut Value, defaults: &Map<String, Value>) {
    let Some(properties) = table["properties"].as_object_mut() else { return };
    for (key, property) in properties {
        if let (Some(default), Some(property)) = (defaults.get(key).filter(|v| !v.is_null()), property.as_object_mut()) {
            property.insert("default".to_owned(), default.clone());
        }
    }
}
