//! When the broker was last known to run: after a kill, the only thing that tells how long its groups stood still.
//!
//! The file `last-alive` in the data folder holds one time, overwritten in place every [`INTERVAL`] and when the broker closes. It
//! isn't synced: a killed process leaves what it wrote last; after a power cut the file may be older, damaged or gone, and is then one
//! sign less. A file that can't be written is worth a message and nothing more.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;
use farol_log::fs::{File, FileSystem, OpenMode};

use crate::clock::Clock;
use crate::topic::read_file;

/// How often the time is written, and so how exact it is.
const INTERVAL: Duration = Duration::from_secs(1);
const FILE_NAME: &str = "last-alive";
/// Digits of the microseconds since the Unix epoch, and a line feed. Always as many, so that overwriting leaves nothing behind.
const BYTES: usize = 21;

/// The open file.
pub(crate) struct LastAlive {
    file: Arc<dyn File>,
    clock: Clock,
}

/// What the file says; `None` if it isn't there or can't be read.
pub(crate) fn read(file_system: &dyn FileSystem, dir: &Path) -> Option<Timestamp> {
    let text = read_file(file_system, &dir.join(FILE_NAME)).ok()??;
    let text = Some(text).filter(|text| text.len() == BYTES)?;
    let digits = std::str::from_utf8(text.strip_suffix(b"\n")?).ok()?;
    Timestamp::from_micros(digits.parse().ok()?).ok()
}

impl LastAlive {
    /// Opens the file to be written; `None`, with a message, if that can't be done.
    pub(crate) fn open(file_system: &dyn FileSystem, dir: &Path, clock: Clock) -> Option<Self> {
        let path = dir.join(FILE_NAME);
        let file = file_system.open(&path, OpenMode::Write).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => file_system.open(&path, OpenMode::Create),
            _ => Err(error),
        });
        match file {
            Ok(file) => Some(Self { file, clock }),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "pauses over the next start can't be told whole: the file can't be opened");
                None
            }
        }
    }

    /// Writes the present time.
    pub(crate) fn write(&self) {
        let text = format!("{:0width$}\n", self.clock.now().as_micros(), width = BYTES - 1);
        // A short write gives a time that is older, or nothing that can be read; the next one comes soon.
        if let Err(error) = self.file.write_vectored_at(&[IoSlice::new(text.as_bytes())], 0) {
            tracing::debug!(%error, file = FILE_NAME, "the time could not be written");
        }
    }

    /// Writes the time now and then. Never ends.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            let this = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || this.write()).await.is_err() {
                tracing::error!("writing the time panicked");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use farol_log::fs::RealFileSystem;

    use super::*;

    #[tokio::test]
    async fn what_was_written_last_is_read_and_damage_is_no_time() {
        let dir = tempfile::tempdir().unwrap();
        let (file_system, dir) = (RealFileSystem, dir.path());
        assert_eq!(read(&file_system, dir), None);
        let clock = Clock::start();
        let before = clock.now();
        for _ in 0..2 {
            LastAlive::open(&file_system, dir, clock).unwrap().write();
            assert!((before..=clock.now()).contains(&read(&file_system, dir).unwrap()));
        }
        for damaged in
            ["", "123\n", "0000000000000000000x\n", "99999999999999999999\n", "00000000000000000000 "]
        {
            std::fs::write(dir.join(FILE_NAME), damaged).unwrap();
            assert_eq!(read(&file_system, dir), None, "{damaged:?}");
        }
    }
}
