//! What a model takes and gives, by the names and types of its inputs and outputs.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::error::{Error, Result};
use crate::suite::settings::{InputRole, OnnxSettings};

/// Other names under which exporters write an input.
const ALIASES: [(&str, InputRole); 5] = [
    ("input_mask", InputRole::AttentionMask),
    ("mask", InputRole::AttentionMask),
    ("segment_ids", InputRole::TokenTypeIds),
    ("type_ids", InputRole::TokenTypeIds),
    ("positions", InputRole::PositionIds),
];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Signature {
    pub inputs: Vec<Input>,
    pub output: String,
    /// None where the model leaves it open.
    pub classes: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input {
    pub role: InputRole,
    pub name: String,
    /// int32, not int64.
    pub narrow: bool,
}

impl Signature {
    /// Every input of a known role, an integer (batch, sequence) of free size; one output (batch) or (batch, classes) of floats.
    pub fn read(session: &Session, settings: &OnnxSettings) -> Result<Self> {
        let inputs = session.inputs().iter().map(|input| self::input(input, settings)).collect::<Result<Vec<_>>>()?;
        let has = |wanted: InputRole| inputs.iter().any(|input| input.role == wanted);
        if let Some((role, name)) = settings.inputs.iter().find(|(_, name)| !session.inputs().iter().any(|i| i.name() == *name)) {
            return Err(refused(format!("it has no input `{name}`, which `inputs` gives for `{}`", role.name()))
                .help(listed("inputs", session.inputs())));
        }
        if !has(InputRole::InputIds) {
            return Err(refused(format!("it has no input `input_ids`; {}", listed("inputs", session.inputs()))).help(INPUT_HELP));
        }
        for (i, input) in inputs.iter().enumerate() {
            if inputs[..i].iter().any(|before| before.role == input.role) {
                return Err(refused(format!("it has two inputs for `{}`", input.role.name())));
            }
        }
        let (output, classes) = output(session, settings)?;
        Ok(Self { inputs, output, classes })
    }

    pub fn has(&self, role: InputRole) -> bool {
        self.inputs.iter().any(|input| input.role == role)
    }
}

const INPUT_HELP: &str = "say which input is which in its [[judge]] table: `inputs = { input_ids = \"…\", attention_mask = \"…\" }`; a judge takes \
                          `input_ids` and perhaps `attention_mask`, `token_type_ids` and `position_ids`, int64 or int32 (batch, sequence)";

fn refused(what: String) -> Error {
    Error::input(format!("this model can't judge: {what}"))
}

fn input(input: &Outlet, settings: &OnnxSettings) -> Result<Input> {
    let name = input.name();
    let declared = settings.inputs.iter().find(|(_, declared)| *declared == name).map(|(role, _)| *role);
    let standard = || InputRole::ALL.into_iter().find(|role| role.name() == name && !settings.inputs.contains_key(role));
    let other = || ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, role)| *role);
    let Some(role) = declared.or_else(standard).or_else(other) else {
        return Err(refused(format!("nothing says what its input `{name}` is")).help(INPUT_HELP));
    };
    let (narrow, shape) = match input.dtype() {
        ValueType::Tensor { ty: TensorElementType::Int64, shape, .. } if shape.len() == 2 => (false, shape),
        ValueType::Tensor { ty: TensorElementType::Int32, shape, .. } if shape.len() == 2 => (true, shape),
        other => return Err(refused(format!("its input `{name}` is {}", described(other))).help(INPUT_HELP)),
    };
    if shape.iter().any(|&d| d != -1) {
        return Err(refused(format!("its input `{name}` has the fixed shape {shape}"))
            .help("export it with free sizes of batch and sequence (`dynamic_axes` or `dynamic_shapes` of torch.onnx.export)"));
    }
    Ok(Input { role, name: name.to_owned(), narrow })
}

fn listed(what: &str, outlets: &[Outlet]) -> String {
    let names: Vec<_> = outlets.iter().map(|outlet| format!("`{}`", outlet.name())).collect();
    format!("its {what}: {}", names.join(", "))
}

/// The output to read and how many columns it has.
fn output(session: &Session, settings: &OnnxSettings) -> Result<(String, Option<usize>)> {
    let outputs = session.outputs();
    let which = || format!("write `output` in its [[judge]] table; {}", listed("outputs", outputs));
    let chosen = match &settings.output {
        Some(name) => {
            let missing = || refused(format!("it has no output `{name}`")).help(listed("outputs", outputs));
            outputs.iter().find(|output| output.name() == *name).ok_or_else(missing)?
        }
        None => {
            let fit: Vec<&Outlet> = outputs.iter().filter(|output| columns(output.dtype()).is_some()).collect();
            let named = |name: &str| outputs.iter().find(|output| output.name() == name);
            match (named("logits"), fit.as_slice(), outputs) {
                (Some(logits), ..) => logits,
                (None, [only], _) => only,
                // Its own form is the better thing to say.
                (None, [], [only]) => only,
                (None, [], _) => {
                    return Err(
                        refused("none of its outputs is one number or up to three classes a text".to_owned()).help(which())
                    );
                }
                (None, ..) => return Err(refused("several of its outputs could be its answer".to_owned()).help(which())),
            }
        }
    };
    let Some(classes) = columns(chosen.dtype()) else {
        return Err(refused(format!("its output `{}` is {}", chosen.name(), described(chosen.dtype())))
            .help("a judge gives (batch) or (batch, classes): one number a text, or up to three classes of floats"));
    };
    Ok((chosen.name().to_owned(), classes))
}

/// The columns of an answer, none for those that the model leaves open; nothing for what is no answer.
fn columns(value: &ValueType) -> Option<Option<usize>> {
    let ValueType::Tensor { ty, shape, .. } = value else { return None };
    let floats =
        [TensorElementType::Float32, TensorElementType::Float16, TensorElementType::Bfloat16, TensorElementType::Float64];
    if !floats.contains(ty) || shape.first().is_some_and(|&batch| batch != -1) {
        return None;
    }
    match shape.get(1..) {
        Some([]) => Some(Some(1)),
        Some([-1]) => Some(None),
        Some([classes]) if *classes >= 1 => Some(Some(*classes as usize)),
        _ => None,
    }
}

fn described(value: &ValueType) -> String {
    match value {
        ValueType::Tensor { ty, shape, .. } => format!("{ty} with {} dimensions {shape}", shape.len()),
        _ => "no tensor".to_owned(),
    }
}
