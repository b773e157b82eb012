//! Builds an ONNX graph node by node. Each method adds one operator and gives the name of its output.

use std::collections::BTreeMap;

use super::proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

pub(crate) const IR_VERSION: i64 = 8;
pub(crate) const OPSET: i64 = 17;

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dim {
    Named(&'static str),
    Fixed(i64),
}

pub(crate) enum Attribute<'a> {
    Float(f32),
    Int(i64),
    Ints(&'a [i64]),
}

#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
}

impl Graph {
    pub fn input(&mut self, name: &str, data_type: DataType, dims: &[Dim]) -> String {
        self.inputs.push(value_info(name, data_type, dims));
        name.to_owned()
    }

    /// Declares `value`, the output of some node, as an output of the graph under `name`.
    pub fn output(&mut self, value: &str, name: &str, data_type: DataType, dims: &[Dim]) {
        self.push("Identity", &[value], name.to_owned(), &[]);
        self.outputs.push(value_info(name, data_type, dims));
    }

    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, dims, DataType::Float, raw)
    }

    pub fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, &[values.len()], DataType::Int64, raw)
    }

    /// A 0-dimensional integer.
    pub fn int(&mut self, name: &str, value: i64) -> String {
        self.initializer(name, &[], DataType::Int64, value.to_le_bytes().to_vec())
    }

    /// A constant that is asked for twice stands there once.
    fn initializer(&mut self, name: &str, dims: &[usize], data_type: DataType, raw: Vec<u8>) -> String {
        if let Some(known) = self.initializers.iter().find(|known| known.name.as_deref() == Some(name)) {
            debug_assert_eq!(known.raw_data.as_ref(), Some(&raw), "two constants are called {name}");
            return name.to_owned();
        }
        self.initializers.push(TensorProto {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: Some(data_type as i32),
            name: Some(name.to_owned()),
            raw_data: Some(raw),
            ..TensorProto::default()
        });
        name.to_owned()
    }

    /// One operator; the output's name is made of the operator's and the node's number.
    pub fn op(&mut self, op_type: &str, inputs: &[&str]) -> String {
        self.op_with(op_type, inputs, &[])
    }

    pub fn op_with(&mut self, op_type: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let output = format!("{op_type}_{}", self.nodes.len());
        self.push(op_type, inputs, output.clone(), attributes);
        output
    }

    fn push(&mut self, op_type: &str, inputs: &[&str], output: String, attributes: &[(&str, Attribute)]) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&s| s.to_owned()).collect(),
            name: Some(format!("node_{}", self.nodes.len())),
            output: vec![output],
            op_type: Some(op_type.to_owned()),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        });
    }

    /// The finished model, with `metadata` in the order of its keys.
    pub fn into_model(self, name: &str, metadata: &BTreeMap<String, String>) -> ModelProto {
        ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some(env!("CARGO_PKG_NAME").to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(GraphProto {
                node: self.nodes,
                name: Some(name.to_owned()),
                initializer: self.initializers,
                input: self.inputs,
                output: self.outputs,
            }),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
            metadata_props: metadata
                .iter()
                .map(|(k, v)| StringStringEntryProto { key: Some(k.clone()), value: Some(v.clone()) })
                .collect(),
        }
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    match value {
        Attribute::Float(f) => {
            proto.f = Some(*f);
            proto.r#type = Some(AttributeType::Float as i32);
        }
        Attribute::Int(i) => {
            proto.i = Some(*i);
            proto.r#type = Some(AttributeType::Int as i32);
        }
        Attribute::Ints(ints) => {
            proto.ints = ints.to_vec();
            proto.r#type = Some(AttributeType::Ints as i32);
        }
    }
    proto
}

fn value_info(name: &str, data_type: DataType, dims: &[Dim]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| match dim {
            Dim::Named(name) => DimensionProto { dim_value: None, dim_param: Some((*name).to_owned()) },
            Dim::Fixed(value) => DimensionProto { dim_value: Some(*value), dim_param: None },
        })
        .collect();
    let tensor = TensorTypeProto { elem_type: Some(data_type as i32), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}
