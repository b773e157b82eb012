//! Writes judges as ONNX files.

pub(crate) mod external;
pub(crate) mod graph;
pub(crate) mod llama;
pub(crate) mod proto;
