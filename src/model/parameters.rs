//! Named tensors: a model's weights, their gradients, optimizer moments.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::numerics::buffer::Buffer;
use crate::rng::Stream;

/// Floats that are turned into bytes at a time.
const PIECE: usize = 1 << 14;

/// A dense row-major array.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Buffer,
}

impl Tensor {
    pub fn filled(shape: &[usize], value: f32) -> Self {
        Self { shape: shape.to_vec(), values: Buffer::filled(shape.iter().product(), value) }
    }

    /// Normal values with mean 0 and standard deviation `std`, from the stream of the tensor's name.
    pub(crate) fn normal(shape: &[usize], std: f64, seed: u64, name: &str) -> Self {
        let mut stream = Stream::of(seed, &format!("model/init/{name}"), 0);
        let values = (0..shape.iter().product()).map(|_| (stream.normal() * std) as f32).collect();
        Self { shape: shape.to_vec(), values }
    }
}

/// Tensors by name, always visited in name order. A clone shares them until one of the two is changed: so a frozen reference and
/// the policy that starts from it, or the adapters over one base, hold the weights once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters(Arc<BTreeMap<String, Tensor>>);

impl Parameters {
    pub fn new() -> Self {
        Self::default()
    }

    fn own(&mut self) -> &mut BTreeMap<String, Tensor> {
        Arc::make_mut(&mut self.0)
    }

    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.own().insert(name.into(), tensor);
    }

    /// Takes the tensor out.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.own().remove(name)
    }

    /// The same names and shapes, all zero: where gradients are accumulated.
    pub fn zeros_like(&self) -> Self {
        self.iter().map(|(name, t)| (name.to_owned(), Tensor::filled(&t.shape, 0.0))).collect()
    }

    pub fn fill(&mut self, value: f32) {
        self.iter_mut().for_each(|(_, t)| t.values.set_all(value));
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// # Panics
    /// When there is no tensor of that name.
    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}`"))
    }

    /// # Panics
    /// When there is no tensor of that name.
    pub fn get_mut(&mut self, name: &str) -> &mut Tensor {
        self.own().get_mut(name).unwrap_or_else(|| panic!("no tensor `{name}`"))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, t)| (name.as_str(), t))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Tensor)> {
        self.own().iter_mut().map(|(name, t)| (name.as_str(), t))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn element_count(&self) -> usize {
        self.0.values().map(|t| t.values.len()).sum()
    }

    /// Of names, shapes and the bits of every value.
    pub fn digest(&self) -> Digest {
        let entries: Vec<_> = self.iter().map(|(name, t)| (name, &t.shape, Digest::of_floats(&t.values))).collect();
        Digest::of_value(&entries)
    }

    /// A safetensors file up to the first tensor's bytes.
    fn safetensors_header(&self) -> Vec<u8> {
        let mut offset = 0;
        let infos = self.0.iter().map(|(name, t)| {
            let start = offset;
            offset += size_of_val(t.values.as_slice());
            (name.clone(), TensorInfo { dtype: Dtype::F32, shape: t.shape.clone(), data_offsets: (start, offset) })
        });
        // transformers refuses files without this entry.
        let format = [("format".to_owned(), "pt".to_owned())].into();
        let metadata = Metadata::new(Some(format), infos.collect()).expect("names and shapes that safetensors can hold");
        let mut json = serde_json::to_vec(&metadata).expect("metadata is plain data");
        json.resize(json.len().next_multiple_of(8), b' ');
        [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat()
    }

    /// The length of the safetensors file, bytes.
    pub fn safetensors_length(&self) -> usize {
        self.safetensors_header().len() + size_of::<f32>() * self.element_count()
    }

    /// Writes the safetensors file without holding it in memory.
    pub fn write_safetensors(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.safetensors_header())?;
        for values in self.0.values().flat_map(|t| t.values.chunks(PIECE)) {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    pub fn to_safetensors(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_safetensors(&mut bytes).expect("memory takes all that is written");
        bytes
    }

    /// An error that lists every tensor that `expected` (name, shape) names and this lacks, every one it doesn't name, and every
    /// one of another shape or with a value that isn't finite.
    pub(crate) fn check(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        let expected: BTreeMap<&str, &[usize]> = expected.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        let mut problems = Vec::new();
        for (name, shape) in &expected {
            match self.0.get(*name) {
                None => problems.push(format!("`{name}` is missing")),
                Some(t) if t.shape != *shape => problems.push(format!("`{name}` has shape {:?}, not {shape:?}", t.shape)),
                Some(t) if t.values.iter().any(|v| !v.is_finite()) => {
                    problems.push(format!("`{name}` has a value that isn't finite"))
                }
                Some(_) => {}
            }
        }
        problems.extend(self.0.keys().filter(|n| !expected.contains_key(n.as_str())).map(|n| format!("`{n}` is not expected")));
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::input(format!("the tensors don't fit the configuration: {}", problems.join("; ")))
                .help("config.json and the weights must belong to one model")),
        }
    }
}

impl IntoIterator for Parameters {
    type Item = (String, Tensor);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor>;
    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl FromIterator<(String, Tensor)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self(Arc::new(tensors.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_bytes_that_the_library_writes() {
        use safetensors::tensor::TensorView;
        let mut p = Parameters::new();
        for (name, shape) in [("z", vec![3, 2]), ("a.weight", vec![7]), ("größe", vec![1, 1, 5])] {
            p.insert(name, Tensor::normal(&shape, 1.0, 5, name));
        }
        let bytes = |t: &Tensor| t.values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let data: Vec<_> = p.iter().map(|(name, t)| (name, t.shape.clone(), bytes(t))).collect();
        let views = data.iter().map(|(n, shape, bytes)| (n, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        let expected = safetensors::serialize(views, Some([("format".into(), "pt".into())].into())).unwrap();
        assert_eq!(p.to_safetensors(), expected);
        assert_eq!(p.safetensors_length(), expected.len());
    }

    #[test]
    fn a_file_of_tensors_reads_back_with_the_same_digest() {
        let mut p = Parameters::new();
        p.insert("b", Tensor::normal(&[3, 2], 1.0, 5, "b"));
        p.insert("a", Tensor::filled(&[4], 1.0));
        let back = Parameters::from_safetensors(&p.to_safetensors()).unwrap();
        assert_eq!(back.digest(), p.digest());
        assert_eq!(back, p);
        assert_eq!(p.to_safetensors(), back.to_safetensors());
    }

    #[test]
    fn a_misfit_names_every_tensor_concerned() {
        let mut p = Parameters::new();
        p.insert("extra", Tensor::filled(&[1], 0.0));
        p.insert("short", Tensor::filled(&[1], 0.0));
        p.insert("nan", Tensor::filled(&[2], f32::NAN));
        let expected = [("missing", 1), ("short", 2), ("nan", 2)].map(|(n, s)| (n.to_owned(), vec![s]));
        let message = p.check(&expected).unwrap_err().message;
        for part in ["`missing` is missing", "`short` has shape [1], not [2]", "`nan` has a value", "`extra` is not expected"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
