//! TensorBoard event files: TFRecords of `tensorflow.Event` messages, of which this writes the three fields of scalars.
//!
//! A record is
//!
//! ```text
//! length (u64) ‖ masked CRC-32C of those 8 bytes (u32) ‖ the message ‖ masked CRC-32C of the message (u32)
//! ```
//!
//! in little-endian order, as tensorflow's `lib/io/record_writer.cc` has it; the first message states the version. Field numbers are
//! those of tensorflow's `event.proto` and `summary.proto`.
//!
//! An event's wall time is its step in seconds, so that the file is a function of the run as its logs are; `timing.jsonl` says how
//! long steps really took.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use prost::Message;

use super::evaluation::Evaluation;
use super::metrics::Metrics;
use crate::error::{Error, Result};
use crate::store::{TENSORBOARD, write_atomically};

/// TensorBoard takes any file with `tfevents` in its name.
const FILE: &str = "events.out.tfevents.0.dpo-eval";

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    /// Written also when it is 0: a member of a oneof.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The event file of a run in flight.
pub(super) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Starts the file afresh with the steps and evaluations that are already done.
    pub fn open(work: &Path, metrics: &[Metrics], evaluations: &[Evaluation]) -> Result<Self> {
        let folder = work.join(TENSORBOARD);
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, &e))?;
        let mut bytes = record(&Event { file_version: Some("brain.Event:2".to_owned()), ..Event::default() });
        let mut evaluations = evaluations.iter().peekable();
        for row in metrics {
            bytes.extend(record(&of_step(row)));
            if let Some(evaluation) = evaluations.next_if(|e| e.step == row.step) {
                bytes.extend(record(&of_evaluation(evaluation)));
            }
        }
        let path = folder.join(FILE);
        write_atomically(&path, &[&bytes])?;
        let file = File::options().append(true).open(&path).map_err(|e| Error::io("write", &path, &e))?;
        Ok(Self { path, file })
    }

    pub fn step(&mut self, row: &Metrics) -> Result<()> {
        self.append(&of_step(row))
    }

    pub fn evaluation(&mut self, row: &Evaluation) -> Result<()> {
        self.append(&of_evaluation(row))
    }

    fn append(&mut self, event: &Event) -> Result<()> {
        self.file.write_all(&record(event)).map_err(|e| Error::io("write", &self.path, &e))
    }
}

fn of_step(row: &Metrics) -> Event {
    let own = [("epoch", row.epoch), ("grad_norm", row.grad_norm), ("learning_rate", row.learning_rate), ("loss", row.loss)];
    let own = own.into_iter().chain([("num_tokens", row.num_tokens as f64)]);
    let all = own.chain(row.values.iter().map(|(name, &value)| (name.as_str(), value)));
    event(row.step, all.map(|(name, value)| (format!("train/{name}"), value)))
}

fn of_evaluation(row: &Evaluation) -> Event {
    let tag = |name: &str| format!("eval/{}", name.strip_prefix("eval_").unwrap_or(name));
    event(row.step, row.values.iter().map(|(name, &value)| (tag(name), value)))
}

/// Tags as transformers' `TensorBoardCallback` has them: `train/…` and `eval/…`.
fn event(step: u64, values: impl Iterator<Item = (String, f64)>) -> Event {
    let value = values.map(|(tag, value)| Scalar { tag, simple_value: Some(value as f32) }).collect();
    Event { wall_time: step as f64, step: step as i64, file_version: None, summary: Some(Summary { value }) }
}

fn record(event: &Event) -> Vec<u8> {
    let message = event.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &masked(crc32c(&length)).to_le_bytes(), &message, &masked(crc32c(&message)).to_le_bytes()].concat()
}

/// CRCs of data that hold CRCs would be weak, so records store them rotated and shifted (tensorflow's `lib/hash/crc32c.h`).
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (RFC 3720, appendix B.4): the reflected polynomial 0x82F63B78, all ones at the beginning and inverted at the end. Bit by
/// bit: a step's event has some hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| shift(crc)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// RFC 3720, appendix B.4, and the check value of the CRC catalogues.
    #[test]
    fn the_crc_is_that_of_the_rfc() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, expected) in [
            (&[0u8; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
        ] {
            assert_eq!(crc32c(bytes), expected);
        }
    }

    fn row(step: u64) -> Metrics {
        Metrics {
            step,
            epoch: 0.25 * step as f64,
            loss: 0.5,
            grad_norm: 1.5,
            learning_rate: 0.0,
            num_tokens: 300 * step,
            values: BTreeMap::from([("rewards/margins".to_owned(), -0.125)]),
        }
    }

    /// `golden/train/event_file.py` made the file with tensorboard's own writer.
    #[test]
    fn the_file_has_the_bytes_that_tensorboard_writes_also_after_a_resumption() {
        let rows: Vec<Metrics> = (1..=3).map(row).collect();
        let evaluation = Evaluation { step: 2, epoch: 0.5, values: BTreeMap::from([("eval_loss".to_owned(), 0.75)]) };
        let work = tempfile::tempdir().unwrap();
        let mut events = Events::open(work.path(), &[], &[]).unwrap();
        events.step(&rows[0]).unwrap();
        events.step(&rows[1]).unwrap();
        events.evaluation(&evaluation).unwrap();
        // A killed run's last record may be cut off.
        events.file.write_all(b"half a record").unwrap();
        let mut events = Events::open(work.path(), &rows[..2], std::slice::from_ref(&evaluation)).unwrap();
        events.step(&rows[2]).unwrap();
        let found = fs::read(work.path().join(TENSORBOARD).join(FILE)).unwrap();
        assert_eq!(found, include_bytes!("../../golden/train/events.out.tfevents"));
    }
}
