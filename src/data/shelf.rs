//! Examples that a training comes back to in any order: in memory, or in a temporary file, of which memory holds eight bytes an example.
//! The file has no name and goes with the process, however that ends.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Bytes that are written together.
const WRITTEN_TOGETHER: usize = 1 << 20;

pub enum Shelf<T> {
    Held(Vec<T>),
    Filed(Filed),
}

/// Examples as JSON, one after another.
pub struct Filed {
    folder: PathBuf,
    /// Where each ends.
    ends: Vec<u64>,
    bytes: Mutex<Bytes>,
}

struct Bytes {
    file: File,
    /// How many are in the file; the rest waits.
    written: u64,
    waiting: Vec<u8>,
}

impl Bytes {
    fn add(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.waiting.extend(bytes);
        if self.waiting.len() >= WRITTEN_TOGETHER {
            self.file.seek(SeekFrom::Start(self.written))?;
            self.file.write_all(&self.waiting)?;
            self.written += self.waiting.len() as u64;
            self.waiting.clear();
        }
        Ok(())
    }

    /// What stands at one place: an example is wholly in the file or wholly not.
    fn read(&mut self, start: u64, end: u64) -> std::io::Result<Vec<u8>> {
        if start >= self.written {
            let [start, end] = [start, end].map(|place| (place - self.written) as usize);
            return Ok(self.waiting[start..end].to_vec());
        }
        let mut bytes = vec![0; (end - start) as usize];
        self.file.seek(SeekFrom::Start(start))?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Filed {
    fn bytes_of(&self, index: usize) -> Vec<u8> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.read(start, self.ends[index]).unwrap_or_else(|e| panic!("the temporary file of examples can't be read: {e}"))
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("an example is plain data")
}

impl<T: Serialize + DeserializeOwned + Clone> Shelf<T> {
    /// An empty one whose examples will be in a file in `folder`.
    pub fn in_file(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|e| Error::io("make a temporary file in", folder, &e))?;
        let bytes = Mutex::new(Bytes { file, written: 0, waiting: Vec::new() });
        Ok(Self::Filed(Filed { folder: folder.to_owned(), ends: Vec::new(), bytes }))
    }

    pub fn add(&mut self, example: T) -> Result<()> {
        match self {
            Self::Held(all) => all.push(example),
            Self::Filed(filed) => {
                let json = json(&example);
                filed.ends.push(filed.ends.last().unwrap_or(&0) + json.len() as u64);
                let bytes = filed.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
                bytes.add(&json).map_err(|e| Error::input(format!("the temporary file of examples can't be written: {e}")))?;
            }
        }
        Ok(())
    }

    /// Adds all of another.
    pub fn extend(&mut self, others: &Self) -> Result<()> {
        others.iter().try_for_each(|example| self.add(example.into_owned()))
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Held(all) => all.len(),
            Self::Filed(filed) => filed.ends.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// # Panics
    /// When there is no such example, or its file has become unreadable.
    pub fn get(&self, index: usize) -> Cow<'_, T> {
        match self {
            Self::Held(all) => Cow::Borrowed(&all[index]),
            Self::Filed(filed) => {
                let example = serde_json::from_slice(&filed.bytes_of(index));
                Cow::Owned(example.unwrap_or_else(|e| panic!("the temporary file of examples isn't as it was written: {e}")))
            }
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Cow<'_, T>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Some examples, in the order of `indices`.
    pub fn some(&self, indices: &[usize]) -> Vec<Cow<'_, T>> {
        indices.iter().map(|&index| self.get(index)).collect()
    }

    /// All examples, so many at a time.
    pub fn chunks(&self, size: usize) -> impl Iterator<Item = Vec<Cow<'_, T>>> {
        (0..self.len()).step_by(size).map(move |start| (start..self.len().min(start + size)).map(|i| self.get(i)).collect())
    }

    /// An empty one that keeps its examples in the same way.
    pub fn like<U: Serialize + DeserializeOwned + Clone>(&self) -> Result<Shelf<U>> {
        match self {
            Self::Held(_) => Ok(Shelf::Held(Vec::new())),
            Self::Filed(filed) => Shelf::in_file(&filed.folder),
        }
    }

    /// The digest of what `part` takes of each example, in order.
    pub fn digest_of<P: Serialize>(&self, part: impl Fn(T) -> P) -> Digest {
        let line = |example: Cow<'_, T>| {
            let mut line = json(&part(example.into_owned()));
            line.push(b'\n');
            line
        };
        Digest::of_parts(self.iter().map(line))
    }

    /// The digest of all examples.
    pub fn digest(&self) -> Digest {
        self.digest_of(|example| example)
    }
}

impl<T: Clone> From<&[T]> for Shelf<T> {
    fn from(examples: &[T]) -> Self {
        Self::Held(examples.to_vec())
    }
}

impl<T: Clone> From<&Vec<T>> for Shelf<T> {
    fn from(examples: &Vec<T>) -> Self {
        Self::Held(examples.clone())
    }
}

impl<T> From<Vec<T>> for Shelf<T> {
    fn from(examples: Vec<T>) -> Self {
        Self::Held(examples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filed_shelf_gives_what_one_in_memory_gives() {
        let folder = tempfile::tempdir().unwrap();
        let (mut filed, mut held) = (Shelf::in_file(folder.path()).unwrap(), Shelf::Held(Vec::new()));
        // Some of them are still to be written, some are longer than what is written together.
        for i in 0..40u32 {
            let example: Vec<u32> = (0..i * i * i * 10).collect();
            filed.add(example.clone()).unwrap();
            held.add(example).unwrap();
        }
        assert_eq!(filed.len(), 40);
        for i in [39, 0, 17, 38, 1, 39] {
            assert_eq!(filed.get(i), held.get(i));
        }
        assert_eq!(filed.digest(), held.digest());
        assert_ne!(filed.digest(), filed.digest_of(|example| example.len()));
        assert!(filed.iter().eq(held.iter()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }
}
