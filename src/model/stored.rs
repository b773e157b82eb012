//! Safetensors files as they are read: tensors in f32, f16 or bf16, which are widened exactly. Those of a file are mapped into memory, a
//! window at a time, so that what is read lies in memory once, as the floats that it becomes.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::Path;

use memmap2::MmapOptions;
use safetensors::tensor::{Dtype, Metadata};

use crate::error::{Error, Result};
use crate::model::{Parameters, Tensor};

/// The format's own limit, bytes.
const LARGEST_HEADER: u64 = 100_000_000;

/// Bytes that are mapped at a time, whole values of any type. The pages of a map count as the process's memory: a file that is mapped
/// whole would double it.
const WINDOW: usize = 4 << 20;

/// Gives the bytes of a range, in pieces of whole values.
type Pieces<'a> = &'a dyn Fn(Range<usize>, &mut dyn FnMut(&[u8])) -> Result<()>;

impl Parameters {
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self> {
        let header = Header::read(&mut &bytes[..], bytes.len() as u64)?;
        let pieces = |range: Range<usize>, take: &mut dyn FnMut(&[u8])| {
            take(&bytes[range]);
            Ok(())
        };
        header.tensors(&|name| Some(name.to_owned()), &pieces)
    }

    /// All tensors of a file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_named(path, &|name| Some(name.to_owned()))
    }

    /// `named`: what a file's tensors are called here; none: passed over.
    pub(crate) fn read_named(path: &Path, named: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        Stored::open(path)?.tensors(named)
    }
}

/// A file whose header has been read.
struct Stored<'a> {
    path: &'a Path,
    file: File,
    header: Header,
}

impl<'a> Stored<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let failed = |e: io::Error| Error::io("read", path, &e);
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let header = Header::read(&mut BufReader::new(&file), length).map_err(|e| e.in_file(path))?;
        Ok(Self { path, file, header })
    }

    fn tensors(&self, named: &dyn Fn(&str) -> Option<String>) -> Result<Parameters> {
        let pieces = |range: Range<usize>, take: &mut dyn FnMut(&[u8])| self.mapped(range, take);
        self.header.tensors(named, &pieces).map_err(|e| e.in_file(self.path))
    }

    fn mapped(&self, range: Range<usize>, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        let failed = |e: io::Error| Error::input(format!("the file can't be mapped into memory: {e}"));
        for start in range.clone().step_by(WINDOW) {
            let end = range.end.min(start + WINDOW);
            // Reading a part of a map that its file doesn't have any more ends the process.
            let length = self.file.metadata().map_err(failed)?.len();
            if length < end as u64 {
                return Err(Error::input(format!("the file was cut to {length} bytes while it was read")));
            }
            // SAFETY: The window lies within the file, is read once and dropped. Nobody here changes such a file in place (it is renamed
            // into place); were it changed from elsewhere, any bytes are floats, as they would be for an ordinary read.
            let window = unsafe { MmapOptions::new().offset(start as u64).len(end - start).map(&self.file) };
            take(&window.map_err(failed)?);
        }
        Ok(())
    }
}

/// What a file says of its tensors.
struct Header {
    metadata: Metadata,
    /// Where the first tensor begins.
    start: usize,
}

impl Header {
    /// Of a file of that length, whose beginning `file` gives.
    fn read(file: &mut dyn Read, length: u64) -> Result<Self> {
        let broken = |why: &dyn Display| Error::input(format!("these bytes are no safetensors file: {why}"));
        let mut read = |bytes: &mut [u8]| file.read_exact(bytes).map_err(|e| broken(&e));
        let mut prefix = [0; 8];
        read(&mut prefix)?;
        let header = u64::from_le_bytes(prefix);
        if header > length.saturating_sub(8).min(LARGEST_HEADER) {
            return Err(broken(&format!("a header of {header} bytes is too long")));
        }
        let mut json = vec![0; header as usize];
        read(&mut json)?;
        let metadata: Metadata = serde_json::from_slice(&json).map_err(|e| broken(&e))?;
        let expected = 8 + header + metadata.data_len() as u64;
        if expected != length {
            return Err(broken(&format!("its header tells of {expected} bytes, but it has {length}")));
        }
        Ok(Self { metadata, start: 8 + header as usize })
    }

    fn tensors(&self, named: &dyn Fn(&str) -> Option<String>, pieces: Pieces) -> Result<Parameters> {
        let mut tensors = Vec::new();
        for name in self.metadata.offset_keys() {
            let info = self.metadata.info(&name).expect("a name of this header");
            let Some(named) = named(&name) else { continue };
            let widen = widening(info.dtype).ok_or_else(|| {
                Error::input(format!("tensor `{name}` has type {:?}; F32, F16 and BF16 can be read", info.dtype))
            })?;
            let (from, to) = info.data_offsets;
            let mut values = Vec::with_capacity(info.shape.iter().product());
            pieces(self.start + from..self.start + to, &mut |bytes| widen(bytes, &mut values))?;
            tensors.push((named, Tensor { shape: info.shape.clone(), values: values.into() }));
        }
        Ok(tensors.into_iter().collect())
    }
}

/// Appends the floats that some bytes stand for.
type Widen = fn(&[u8], &mut Vec<f32>);

/// None for types that aren't read.
fn widening(dtype: Dtype) -> Option<Widen> {
    fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
        bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }
    match dtype {
        Dtype::F32 => Some(|bytes, values| {
            values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }),
        Dtype::BF16 => Some(|bytes, values| values.extend(halves(bytes).map(|h| f32::from_bits(u32::from(h) << 16)))),
        Dtype::F16 => Some(|bytes, values| values.extend(halves(bytes).map(widen_f16))),
        _ => None,
    }
}

/// IEEE binary16 to binary32, exactly.
fn widen_f16(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(half >> 10 & 0x1f), u32::from(half & 0x3ff));
    match exponent {
        // Zero and subnormals: fraction · 2⁻²⁴, which binary32 holds as a normal number.
        0 => f32::from_bits((fraction as f32 * f32::from_bits(0x3380_0000)).to_bits() | sign),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widen(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::new();
        widening(dtype).unwrap()(bytes, &mut values);
        values
    }

    #[test]
    fn every_half_widens_as_candle_widens_it() {
        use candle_core::{DType, Device};
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(|h| h.to_le_bytes()).collect();
        for (ours, theirs) in [(Dtype::F16, DType::F16), (Dtype::BF16, DType::BF16)] {
            let expected = candle_core::Tensor::from_raw_buffer(&bytes, theirs, &[1 << 16], &Device::Cpu).unwrap();
            let expected: Vec<f32> = expected.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
            for (a, b) in widen(ours, &bytes).iter().zip(&expected) {
                assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{a} {b}");
            }
        }
    }

    /// Tensors that begin and end within pages, one of them longer than a window.
    fn several() -> Parameters {
        let shapes = [("a", vec![3, 2]), ("b.weight", vec![WINDOW / 4 + 77]), ("c", vec![0]), ("d", vec![1, 5])];
        shapes.into_iter().map(|(name, shape)| (name.to_owned(), Tensor::normal(&shape, 1.0, 5, name))).collect()
    }

    #[test]
    fn a_mapped_file_has_the_values_of_its_bytes() {
        let (file, parameters) = (tempfile::NamedTempFile::new().unwrap(), several());
        std::fs::write(file.path(), parameters.to_safetensors()).unwrap();
        assert_eq!(Parameters::read(file.path()).unwrap(), parameters);
        let others = Parameters::read_named(file.path(), &|name| (name != "b.weight").then(|| format!("its.{name}"))).unwrap();
        assert_eq!(others.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["its.a", "its.c", "its.d"]);
        assert_eq!(others.get("its.d"), parameters.get("d"));
    }

    #[test]
    fn mapped_halves_are_widened_across_windows() {
        use safetensors::tensor::TensorView;
        let bytes: Vec<u8> = (0..WINDOW as u32 / 2 + 9).flat_map(|i| (i.wrapping_mul(7919) as u16).to_le_bytes()).collect();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let view = TensorView::new(dtype, vec![bytes.len() / 2], &bytes).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            safetensors::serialize_to_file([("x", view)], None, file.path()).unwrap();
            let (found, expected) = (Parameters::read(file.path()).unwrap(), widen(dtype, &bytes));
            assert!(found.get("x").values.iter().map(|v| v.to_bits()).eq(expected.iter().map(|v| v.to_bits())));
        }
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), several().to_safetensors()).unwrap();
        let stored = Stored::open(file.path()).unwrap();
        file.as_file().set_len(WINDOW as u64).unwrap();
        let error = stored.tensors(&|name| Some(name.to_owned())).unwrap_err();
        assert_eq!(error.message, format!("the file was cut to {WINDOW} bytes while it was read"));
        assert_eq!(error.place.unwrap().file, file.path());
    }

    #[test]
    fn a_cut_or_lying_file_is_refused() {
        let mut p = Parameters::new();
        p.insert("a", Tensor::normal(&[3, 2], 1.0, 5, "a"));
        let bytes = p.to_safetensors();
        let long = [&bytes[..], &[0; 4]].concat();
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let file = tempfile::NamedTempFile::new().unwrap();
        for broken in [&bytes[..3], &bytes[..8], &bytes[..40], &bytes[..bytes.len() - 1], &long, &lying, b""] {
            std::fs::write(file.path(), broken).unwrap();
            for found in [Parameters::from_safetensors(broken), Parameters::read(file.path())] {
                let message = found.unwrap_err().message;
                assert!(message.starts_with("these bytes are no safetensors file"), "{message}");
            }
        }
        let integers = String::from_utf8_lossy(&bytes[8..]).find("F32").unwrap() + 8;
        let mut other = bytes;
        other[integers..integers + 3].copy_from_slice(b"I32");
        assert!(Parameters::from_safetensors(&other).unwrap_err().message.contains("`a` has type I32"));
    }
}
