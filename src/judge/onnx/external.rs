//! Weights in a file beside the model (ONNX's external data): the form for more than the two gigabytes that one message can hold.

use std::collections::BTreeSet;

use prost::Message;

use super::proto::{ModelProto, StringStringEntryProto};

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// The shortest weights that are worth a place of their own, bytes; ONNX Runtime wants small constants in the model's file.
const SHORTEST: usize = 1024;

/// Moves the weights of `model` into the bytes of a file of that name beside it.
pub(crate) fn moved_out(model: &mut ModelProto, file: &str) -> Vec<u8> {
    let mut moved = Vec::new();
    for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= SHORTEST) else { continue };
        let entries = [("location", file.to_owned()), ("offset", moved.len().to_string()), ("length", raw.len().to_string())];
        let entry = |(key, value): (&str, String)| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        tensor.external_data = entries.map(entry).to_vec();
        tensor.data_location = Some(EXTERNAL);
        moved.extend_from_slice(&raw);
    }
    moved
}

// What `files` reads: names alone; weights inside the model's file are skipped, whatever their size.

#[derive(Clone, PartialEq, prost::Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Graph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Tensor {
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
    #[prost(int32, optional, tag = "14")]
    data_location: Option<i32>,
}

/// The files' names relative to the model's folder, in order; none where `bytes` are no model (loading it tells why).
pub(crate) fn files(bytes: &[u8]) -> Vec<String> {
    let Ok(Model { graph: Some(graph) }) = Model::decode(bytes) else { return Vec::new() };
    let external = graph.initializer.into_iter().filter(|tensor| tensor.data_location == Some(EXTERNAL));
    let location =
        |tensor: Tensor| tensor.external_data.into_iter().find(|entry| entry.key.as_deref() == Some("location"))?.value;
    external.filter_map(location).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::onnx::classifier::sequence_classifier;
    use crate::judge::onnx::classifier::tests::{random, sequences};
    use crate::judge::session::Model;
    use crate::suite::settings::{JudgeKind, Pooling};
    use crate::watch::Silent;

    #[test]
    fn weights_in_a_file_of_their_own_give_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let sequences = sequences();
        let rows: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let mut model = sequence_classifier(&random(), JudgeKind::RewardModel, Pooling::Last, &Default::default());
        let whole = model.encode_to_vec();
        assert!(files(&whole).is_empty());
        let answers = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Model::open(&path, JudgeKind::RewardModel, 1).unwrap().logits(&rows, &Silent).unwrap()
        };
        let inside = answers(&whole);
        let moved = moved_out(&mut model, "model.onnx.data");
        let rest = model.encode_to_vec();
        assert!(moved.len() > 4 * rest.len() && rest.len() + moved.len() > whole.len());
        assert_eq!(files(&rest), ["model.onnx.data"]);
        std::fs::write(folder.path().join("model.onnx.data"), moved).unwrap();
        assert_eq!(answers(&rest), inside);
    }
}
