//! The file of acknowledged readings: what a test compares with the store after it killed the server.
//!
//! One line `seq,sensor_id,timestamp` per reading, timestamps in microseconds since the Unix epoch, in the order of
//! acknowledgement per connection. Written by a thread of its own; at most [`BLOCKS_AHEAD`] blocks wait for it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::LoadError;
use super::lines::{LineBuilder, SentReading};

/// Blocks (one per acknowledged batch) that wait to be written.
const BLOCKS_AHEAD: usize = 64;

pub(super) struct AcknowledgedFile {
    path: PathBuf,
    blocks: mpsc::Sender<Vec<u8>>,
    writing: JoinHandle<std::io::Result<()>>,
}

impl AcknowledgedFile {
    pub(super) fn create(path: PathBuf) -> Result<Self, LoadError> {
        let file =
            File::create(&path).map_err(|source| LoadError::Acknowledged { path: path.clone(), source })?;
        let (blocks, mut received) = mpsc::channel::<Vec<u8>>(BLOCKS_AHEAD);
        let writing = tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(256 * 1024, file);
            while let Some(block) = received.blocking_recv() {
                out.write_all(&block)?;
                // Whoever reads the file while the run goes on finds everything but what is being acknowledged now.
                if received.is_empty() {
                    out.flush()?;
                }
            }
            out.flush()
        });
        Ok(Self { path, blocks, writing })
    }

    /// Takes the readings of one batch that were acknowledged. When the file can't be written, `finish` says so.
    pub(super) async fn append(&self, readings: impl Iterator<Item = SentReading>, lines: &LineBuilder) {
        let mut block = Vec::with_capacity(48 * readings.size_hint().0);
        for reading in readings {
            writeln!(block, "{},{},{}", reading.seq, lines.sensor_id(reading.sensor), reading.micros)
                .expect("a vector takes every write");
        }
        let _ = self.blocks.send(block).await;
    }

    pub(super) async fn finish(self) -> Result<(), LoadError> {
        let Self { path, blocks, writing } = self;
        drop(blocks);
        match writing.await {
            Ok(written) => written.map_err(|source| LoadError::Acknowledged { path, source }),
            Err(died) => Err(LoadError::TaskDied(died.to_string())),
        }
    }
}
