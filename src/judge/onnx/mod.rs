//! Writes judges as ONNX files.

pub(crate) mod classifier;
pub(crate) mod external;
pub(crate) mod graph;
pub(crate) mod proto;
