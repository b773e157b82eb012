//! More records than memory should hold, in order: runs of them are sorted, kept in a temporary file, and merged (Knuth, The Art of
//! Computer Programming 3, 5.4). The file has no name and goes with the process, however that ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use crate::error::{Error, Result};

/// Numbers that are sorted in memory: 4 MB.
const HELD: usize = 1 << 19;
/// Numbers of a run that are read at a time.
const BLOCK: usize = 1 << 10;

/// Records of `N` numbers, compared from the first number on.
pub struct Sorter<const N: usize> {
    /// Records in memory, at most.
    most: usize,
    held: Vec<[u64; N]>,
    file: Option<File>,
    /// Where each run stands in the file, in records.
    runs: Vec<Range<u64>>,
}

impl<const N: usize> Default for Sorter<N> {
    fn default() -> Self {
        Self::holding(HELD / N)
    }
}

fn failed(error: &std::io::Error) -> Error {
    let folder = std::env::temp_dir();
    Error::io("use a temporary file in", &folder, error).help("set TMPDIR to a folder with room")
}

impl<const N: usize> Sorter<N> {
    fn holding(most: usize) -> Self {
        Self { most, held: Vec::new(), file: None, runs: Vec::new() }
    }

    pub fn add(&mut self, record: [u64; N]) -> Result<()> {
        if self.held.len() == self.most {
            self.put_away().map_err(|e| failed(&e))?;
        }
        self.held.push(record);
        Ok(())
    }

    /// Writes what is held as one more run.
    fn put_away(&mut self) -> std::io::Result<()> {
        self.held.sort_unstable();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let start = self.runs.last().map_or(0, |run| run.end);
        file.seek(SeekFrom::End(0))?;
        let mut writer = BufWriter::new(file);
        for number in self.held.iter().flatten() {
            writer.write_all(&number.to_le_bytes())?;
        }
        writer.flush()?;
        self.runs.push(start..start + self.held.len() as u64);
        self.held.clear();
        Ok(())
    }

    /// Gives every record, in order.
    pub fn each(&mut self, mut give: impl FnMut([u64; N])) -> Result<()> {
        self.held.sort_unstable();
        let Some(file) = &mut self.file else {
            self.held.iter().for_each(|record| give(*record));
            return Ok(());
        };
        let mut runs: Vec<Run<N>> = self.runs.iter().map(|run| Run { left: run.clone(), block: Vec::new() }).collect();
        let mut held = self.held.iter().copied();
        // The run that a record comes from: the last number is what is held.
        let mut heap = BinaryHeap::new();
        let mut refill = |heap: &mut BinaryHeap<_>, from: usize| -> std::io::Result<()> {
            let next = if from < runs.len() { runs[from].next(file)? } else { held.next() };
            heap.extend(next.map(|record| Reverse((record, from))));
            Ok(())
        };
        for from in 0..=self.runs.len() {
            refill(&mut heap, from).map_err(|e| failed(&e))?;
        }
        while let Some(Reverse((record, from))) = heap.pop() {
            give(record);
            refill(&mut heap, from).map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// Gives the records that have their first number in common, in order, those of one number at a time.
    pub fn each_group(&mut self, mut give: impl FnMut(&[[u64; N]])) -> Result<()> {
        let mut group: Vec<[u64; N]> = Vec::new();
        self.each(|record| {
            if group.first().is_some_and(|first| first[0] != record[0]) {
                give(&group);
                group.clear();
            }
            group.push(record);
        })?;
        if !group.is_empty() {
            give(&group);
        }
        Ok(())
    }
}

/// A run that is being read.
struct Run<const N: usize> {
    /// In the file, after those of `block`.
    left: Range<u64>,
    /// The next ones, the first at the end.
    block: Vec<[u64; N]>,
}

impl<const N: usize> Run<N> {
    fn next(&mut self, file: &mut File) -> std::io::Result<Option<[u64; N]>> {
        if self.block.is_empty() && !self.left.is_empty() {
            let count = (self.left.end - self.left.start).min((BLOCK / N).max(1) as u64);
            let mut bytes = vec![0; count as usize * N * 8];
            file.seek(SeekFrom::Start(self.left.start * N as u64 * 8))?;
            file.read_exact(&mut bytes)?;
            self.left.start += count;
            let numbers = bytes.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number)).collect::<Vec<_>>();
            self.block.extend(numbers.as_chunks::<N>().0.iter().rev());
        }
        Ok(self.block.pop())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_in_order_however_few_are_held(
            records in prop::collection::vec([0..20u64, 0..u64::MAX], 0..60), most in 1..9usize
        ) {
            let mut sorter = Sorter::holding(most);
            records.iter().for_each(|record| sorter.add(*record).unwrap());
            let mut sorted = records.clone();
            sorted.sort_unstable();
            // Again and again.
            for _ in 0..2 {
                let mut given = Vec::new();
                sorter.each(|record| given.push(record)).unwrap();
                prop_assert_eq!(&given, &sorted);
            }
            let mut groups = Vec::new();
            sorter.each_group(|group| groups.push(group.to_vec())).unwrap();
            let expected: Vec<Vec<[u64; 2]>> = sorted.chunk_by(|a, b| a[0] == b[0]).map(<[_]>::to_vec).collect();
            prop_assert_eq!(groups, expected);
        }
    }

    #[test]
    fn records_that_are_added_after_some_were_given_are_given_next_time() {
        let mut sorter = Sorter::holding(2);
        for number in [5, 3, 4] {
            sorter.add([number]).unwrap();
        }
        sorter.each(|_| ()).unwrap();
        sorter.add([1]).unwrap();
        let mut given = Vec::new();
        sorter.each(|[number]| given.push(number)).unwrap();
        assert_eq!(given, [1, 3, 4, 5]);
    }
}
