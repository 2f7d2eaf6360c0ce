//! Mutated record batches against the validator: whatever comes, it says yes or no, and what it takes can be read.
//!
//! Seeded mutation of valid batches for [`DEFAULT_SECONDS`]; `FAROL_FUZZ_SECONDS` says otherwise, `FAROL_FUZZ_SEED` repeats a
//! run. Half of the mutants get a right checksum, so that mutations reach what lies behind it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use farol_log::{Batch, BatchBuilder, BatchLimits, Compression};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const DEFAULT_SECONDS: u64 = 5;
const LIMITS: BatchLimits = BatchLimits { max_batch_bytes: 1 << 20, max_decompressed_bytes: 1 << 20 };
const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn corpus() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for compression in Compression::ALL {
        for records in [1, 3, 50] {
            let mut builder = BatchBuilder::new(compression);
            for number in 0..records {
                let value = vec![b'v'; number * 7 % 200];
                let header: (&str, Option<&[u8]>) = ("h", Some(b"x"));
                builder.push(Some(b"key"), Some(&value), &[header], 1_700_000_000_000).unwrap();
            }
            all.push(builder.build().unwrap().bytes().to_vec());
        }
    }
    all
}

fn mutate(rng: &mut StdRng, batch: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..4) {
        if batch.is_empty() {
            return;
        }
        let at = rng.random_range(0..batch.len());
        match rng.random_range(0..6) {
            0 => batch[at] ^= 1 << rng.random_range(0..8),
            1 => batch[at] = rng.random(),
            2 => batch.truncate(at),
            3 => batch[at..].iter_mut().take(5).for_each(|byte| *byte = 0xff),
            4 => {
                let more: Vec<u8> = (0..rng.random_range(1..20)).map(|_| rng.random()).collect();
                batch.splice(at..at, more);
            }
            _ => {
                let end = rng.random_range(at..batch.len());
                let again = batch[at..end].to_vec();
                batch.splice(at..at, again);
            }
        }
    }
}

/// Makes length and checksum right.
fn mend(batch: &mut [u8]) {
    if batch.len() > CRC_COVERS_FROM {
        let length = i32::try_from(batch.len() - 12).unwrap();
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_COVERS_FROM..]);
        batch[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

#[test]
fn mutated_batches_are_refused_or_can_be_read() {
    let seconds = from_environment("FAROL_FUZZ_SECONDS").unwrap_or(DEFAULT_SECONDS);
    let seed = from_environment("FAROL_FUZZ_SEED").unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}: FAROL_FUZZ_SEED={seed} repeats this run");
    let mut rng = StdRng::seed_from_u64(seed);
    let corpus = corpus();
    let (mut tried, mut taken) = (0u64, 0u64);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
        mutate(&mut rng, &mut bytes);
        if rng.random_bool(0.5) {
            mend(&mut bytes);
        }
        tried += 1;
        let Ok(batch) = Batch::validate(Bytes::from(bytes), &LIMITS) else { continue };
        taken += 1;
        let records: Result<Vec<_>, _> =
            batch.records_within(LIMITS.max_decompressed_bytes).unwrap().collect();
        let records =
            records.unwrap_or_else(|error| panic!("seed {seed}: taken, and can't be read: {error}"));
        assert_eq!(i32::try_from(records.len()).unwrap(), batch.header().record_count, "seed {seed}");
        assert!(records.windows(2).all(|pair| pair[0].offset < pair[1].offset), "seed {seed}");
        let all = Batch::validate_all(batch.bytes().clone(), &LIMITS);
        assert_eq!(all.unwrap().len(), 1, "seed {seed}");
        let moved = batch.with_base_offset(1_000).unwrap();
        assert_eq!(moved.header().base_offset, 1_000);
    }
    println!("{tried} tried, {taken} taken");
    assert!(tried > 1_000 && taken > 100, "too few to say anything");
}
