//! The batch format against another implementation of it, against kept bytes, and against rubbish.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use farol_log::{
    AppendRequest, Background, Batch, BatchBuilder, BatchError, BatchHeader, BatchLimits, Batches,
    Compression, LogOptions, PartitionOptions, Record,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as kafka;
use proptest::prelude::*;
use support::*;

const LIMITS: BatchLimits = BatchLimits { max_batch_bytes: 1 << 20, max_decompressed_bytes: 1 << 20 };
const ALL: [(Compression, kafka::Compression); 5] = [
    (Compression::None, kafka::Compression::None),
    (Compression::Gzip, kafka::Compression::Gzip),
    (Compression::Snappy, kafka::Compression::Snappy),
    (Compression::Lz4, kafka::Compression::Lz4),
    (Compression::Zstd, kafka::Compression::Zstd),
];

/// A record as a test writes it.
#[derive(Debug, Clone)]
struct Plain {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: i64,
}

fn plain() -> impl Strategy<Value = Plain> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
    // The other implementation keeps headers in a map, so their names must differ.
    let headers = prop::collection::btree_map("[a-z]{1,8}", bytes(), 0..3)
        .prop_map(|headers| headers.into_iter().collect::<Vec<_>>());
    (bytes(), bytes(), headers, 0..2_000_000_000_000i64)
        .prop_map(|(key, value, headers, timestamp_ms)| Plain { key, value, headers, timestamp_ms })
}

fn build(compression: Compression, records: &[Plain]) -> Batch {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|(name, v)| (name.as_str(), v.as_deref())).collect();
        builder.push(record.key.as_deref(), record.value.as_deref(), &headers, record.timestamp_ms).unwrap();
    }
    builder.build().unwrap()
}

fn kafka_bytes(compression: kafka::Compression, records: &[Plain]) -> Bytes {
    let records: Vec<_> = records
        .iter()
        .enumerate()
        .map(|(nth, record)| {
            let mut theirs = kafka::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 0,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: kafka::TimestampType::Creation,
                offset: i64::try_from(nth).unwrap(),
                sequence: i32::try_from(nth).unwrap(),
                timestamp: record.timestamp_ms,
                key: record.key.clone().map(Bytes::from),
                value: record.value.clone().map(Bytes::from),
                headers: Default::default(),
            };
            for (name, value) in &record.headers {
                let name = StrBytes::from_string(name.clone());
                theirs.headers.insert(name, value.clone().map(Bytes::from));
            }
            theirs
        })
        .collect();
    let mut out = BytesMut::new();
    let options = kafka::RecordEncodeOptions { version: 2, compression };
    kafka::RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.freeze()
}

fn assert_same(ours: &[Record], expected: &[Plain]) {
    assert_eq!(ours.len(), expected.len());
    for (nth, (record, plain)) in ours.iter().zip(expected).enumerate() {
        assert_eq!(record.offset, i64::try_from(nth).unwrap());
        assert_eq!(record.timestamp_ms, plain.timestamp_ms);
        assert_eq!(record.key.as_deref(), plain.key.as_deref());
        assert_eq!(record.value.as_deref(), plain.value.as_deref());
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|h| (String::from_utf8(h.key.to_vec()).unwrap(), h.value.as_deref().map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(headers, plain.headers);
    }
}

fn records_of(batch: &Batch) -> Vec<Record> {
    batch.records().unwrap().map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn another_implementation_reads_what_we_write(records in prop::collection::vec(plain(), 1..20)) {
        for (compression, _) in ALL {
            let batch = build(compression, &records);
            let set = kafka::RecordBatchDecoder::decode(&mut batch.bytes().clone()).unwrap();
            prop_assert_eq!(set.records.len(), records.len());
            for (theirs, plain) in set.records.iter().zip(&records) {
                prop_assert_eq!(theirs.timestamp, plain.timestamp_ms);
                prop_assert_eq!(theirs.key.as_deref(), plain.key.as_deref());
                prop_assert_eq!(theirs.value.as_deref(), plain.value.as_deref());
                prop_assert_eq!(theirs.headers.len(), plain.headers.len());
            }
            prop_assert_eq!(Batch::validate(batch.bytes().clone(), &LIMITS).unwrap(), batch);
        }
    }

    #[test]
    fn we_read_what_another_implementation_writes(records in prop::collection::vec(plain(), 1..20)) {
        for (_, compression) in ALL {
            let batch = Batch::validate(kafka_bytes(compression, &records), &LIMITS).unwrap();
            assert_same(&records_of(&batch), &records);
        }
    }

    #[test]
    fn any_bytes_are_a_batch_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        prop_assert!(Batch::validate(bytes.clone(), &LIMITS).is_err());
        prop_assert!(Batch::validate_all(bytes.clone(), &LIMITS).is_err());
        let _ = BatchHeader::parse(&bytes);
        prop_assert!(Batches::new(bytes).count() <= 5);
    }

    #[test]
    fn damaged_batches_never_panic_even_with_a_checksum_that_fits(
        records in prop::collection::vec(plain(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        which in 0..5usize,
    ) {
        let mut bytes = build(ALL[which].0, &records).bytes().to_vec();
        for (at, value) in damage {
            // Everything after the checksum and the length, so that decoding is reached.
            let at = 21 + at.index(bytes.len() - 21);
            bytes[at] = value;
        }
        let broken = Batch::validate(Bytes::from(bytes.clone()), &LIMITS);
        let crc = crc32c::crc32c(&bytes[21..]).to_be_bytes();
        bytes[17..21].copy_from_slice(&crc);
        // Whatever the records say now, it is decoded or refused.
        let sealed = Batch::validate(Bytes::from(bytes), &LIMITS);
        prop_assert!(sealed.is_ok() || broken.is_err());
    }
}

#[test]
fn a_flipped_bit_is_noticed_wherever_the_checksum_reaches() {
    let batch = batch(&["first", "second"]);
    for at in 17..batch.bytes().len() {
        let mut bytes = batch.bytes().to_vec();
        bytes[at] ^= 4;
        assert!(Batch::validate(Bytes::from(bytes), &LIMITS).is_err(), "byte {at}");
    }
}

#[test]
fn the_errors_say_what_is_wrong_with_a_foreign_batch() {
    let good = batch(&["a", "b"]);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.bytes().to_vec();
        change(&mut bytes);
        if bytes.len() > 61 {
            let crc = crc32c::crc32c(&bytes[21..]).to_be_bytes();
            bytes[17..21].copy_from_slice(&crc);
        }
        Batch::validate(Bytes::from(bytes), &LIMITS).unwrap_err()
    };
    assert!(matches!(with(&|b| b.truncate(60)), BatchError::HeaderCut { available: 60 }));
    assert!(matches!(with(&|b| b.truncate(65)), BatchError::BatchCut { available: 65, .. }));
    assert!(matches!(with(&|b| b.push(0)), BatchError::TrailingBytes { bytes: 1 }));
    assert!(matches!(with(&|b| b[16] = 1), BatchError::Magic { magic: 1 }));
    assert!(matches!(with(&|b| b[11] = 3), BatchError::Length { length: 3 }));
    assert!(matches!(with(&|b| b[60] = 3), BatchError::Counts { record_count: 3, .. }));
    assert!(matches!(with(&|b| b[60] = 1), BatchError::TrailingBytes { .. }));
    assert!(matches!(with(&|b| b[22] = 7), BatchError::UnknownCompression { code: 7 }));
    assert!(matches!(with(&|b| b[22] = 1), BatchError::Decompress { .. }));
    let small = BatchLimits { max_batch_bytes: 10, ..LIMITS };
    assert!(matches!(
        Batch::validate(good.bytes().clone(), &small),
        Err(BatchError::TooLarge { limit: 10, .. })
    ));
    assert!(matches!(Batch::validate_all(Bytes::new(), &LIMITS), Err(BatchError::Empty)));
}

#[test]
fn batches_back_to_back_are_taken_one_by_one_and_renumbered_without_a_new_checksum() {
    let (first, second) = (batch(&["a", "b"]), batch(&["c"]));
    let both: Bytes = [&first.bytes()[..], &second.bytes()[..]].concat().into();
    let split = Batch::validate_all(both, &LIMITS).unwrap();
    assert_eq!(split, [first, second.clone()]);
    let moved = second.with_base_offset(41).unwrap();
    moved.verify_checksum().unwrap();
    assert_eq!((records_of(&moved)[0].offset, moved.header().next_offset()), (41, 42));
    assert!(second.with_base_offset(i64::MAX).is_err());
}

#[test]
fn a_builder_refuses_what_passes_its_limit_and_stays_usable() {
    let mut builder = BatchBuilder::with_max_bytes(Compression::None, 200);
    builder.push(None, Some(b"fits"), &[], 1).unwrap();
    let refused = builder.push(None, Some(&[0; 500]), &[], 2);
    assert!(matches!(refused, Err(BatchError::TooLarge { limit: 200, .. })));
    builder.push(Some(b"k"), None, &[("h", Some(b"v"))], 0).unwrap();
    let built = builder.build().unwrap();
    assert_eq!(records_of(&built).len(), 2);
    assert_eq!((built.header().base_timestamp_ms, built.header().max_timestamp_ms), (1, 1));
    assert!(matches!(BatchBuilder::default().build(), Err(BatchError::Empty)));
}

fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden_records() -> Vec<Plain> {
    (0..5u8)
        .map(|n| Plain {
            key: (n != 1).then(|| format!("sensor-{n}").into_bytes()),
            value: (n != 2).then(|| format!("{{\"value\":{n}}}").repeat(4).into_bytes()),
            headers: (0..n % 3).map(|h| (format!("h{h}"), (h == 0).then(|| vec![n]))).collect(),
            timestamp_ms: 1_758_058_901_011 + i64::from(n) * 250 - 300 * i64::from(n == 3),
        })
        .collect()
}

fn golden_folder_options(dir: &std::path::Path) -> LogOptions {
    LogOptions {
        background: Background::Inline,
        journal_first_bytes: 4_096,
        journal_bytes: 4_096,
        ..LogOptions::new(dir)
    }
}

/// Not a test: writes the kept files anew, after a deliberate change of format, if `FAROL_WRITE_GOLDEN` is set.
#[test]
#[ignore = "writes tests/golden"]
fn write_golden_files() {
    if std::env::var_os("FAROL_WRITE_GOLDEN").is_none() {
        return;
    }
    let dir = golden_dir();
    std::fs::create_dir_all(&dir).unwrap();
    for (ours, theirs) in ALL {
        std::fs::write(dir.join(format!("batch-v2-{ours:?}.bin")), kafka_bytes(theirs, &golden_records()))
            .unwrap();
    }
    let folder = dir.join("folder-v1");
    let _ = std::fs::remove_dir_all(&folder);
    let work = tempfile::tempdir().unwrap();
    let (log, _) = open(golden_folder_options(work.path()));
    let a = partition(&log, "a-0", PartitionOptions { segment_bytes: 300, ..PartitionOptions::default() });
    let b = partition(&log, "b-0", PartitionOptions::default());
    for n in 0..6 {
        append(&log, &a, batch(&[&format!("a{n}"), "second"]));
    }
    log.checkpoint().unwrap();
    log.append(AppendRequest::new(vec![(a, batch(&["a6"])), (b, batch(&["b0"]))])).wait().unwrap();
    // Copied while open: a folder as a killed process leaves it.
    copy_dir(work.path(), &folder);
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn kept_batches_of_every_compression_still_read_the_same() {
    for (compression, _) in ALL {
        let kept = std::fs::read(golden_dir().join(format!("batch-v2-{compression:?}.bin"))).unwrap();
        let batch = Batch::validate(Bytes::from(kept.clone()), &LIMITS).unwrap();
        assert_eq!(batch.header().compression().unwrap(), compression);
        assert_same(&records_of(&batch), &golden_records());
        if compression == Compression::None {
            // Compressors may pack differently from version to version; plain bytes may not change.
            let ours = build(compression, &golden_records());
            assert_eq!(ours.bytes()[21..43], kept[21..43], "attributes to timestamps");
            assert_eq!(ours.bytes()[57..], kept[57..], "count and records");
        }
    }
}

#[test]
fn a_kept_folder_of_version_1_still_opens() {
    let work = tempfile::tempdir().unwrap();
    copy_dir(&golden_dir().join("folder-v1"), work.path());
    let (log, report) = open(golden_folder_options(work.path()));
    assert_eq!((report.clean_shutdown, report.frames_replayed, report.batches_replayed), (false, 1, 2));
    let a = contents(&log.partition(&id("a-0")).unwrap());
    assert_eq!(a.len(), 13);
    assert_eq!((a[10].1.as_str(), a[12].1.as_str()), ("a5", "a6"));
    assert_eq!(contents(&log.partition(&id("b-0")).unwrap()), [(0, "b0".to_owned())]);
}

#[test]
fn append_time_is_the_timestamp_of_every_record_and_the_checksum_follows() {
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression);
        for at in [5, 9] {
            builder.push(Some(b"k"), Some(b"value"), &[], at).unwrap();
        }
        let stamped = builder.build().unwrap().with_append_time(1_000);
        let foreign = Batch::validate(stamped.bytes().clone(), &BatchLimits::default()).unwrap();
        assert!(foreign.header().is_log_append_time());
        let times: Vec<i64> = foreign.records().unwrap().map(|record| record.unwrap().timestamp_ms).collect();
        assert_eq!(times, [1_000, 1_000], "{compression:?}");
    }
}

#[test]
fn records_without_a_key_are_found_by_their_places() {
    let mut builder = BatchBuilder::default();
    builder.push(Some(b"k"), Some(b"v"), &[], 1).unwrap();
    assert!(builder.build().unwrap().records_without_key().unwrap().is_empty());
    let mut builder = BatchBuilder::default();
    builder.push(Some(b"k"), Some(b"v"), &[], 1).unwrap();
    builder.push(None, Some(b"v"), &[], 1).unwrap();
    builder.push(Some(b""), Some(b"v"), &[], 1).unwrap();
    builder.push(None, None, &[], 1).unwrap();
    assert_eq!(builder.build().unwrap().records_without_key().unwrap(), [1, 3]);
}
