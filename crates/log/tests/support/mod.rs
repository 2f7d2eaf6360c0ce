//! What the crate's tests share: small batches with known content, and reading everything back.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use farol_log::{
    AppendRequest, Batch, BatchBuilder, Batches, Compression, Log, LogOptions, Partition, PartitionId,
    PartitionOptions, Record, RecoveryReport, Verify,
};

/// A batch of records with these values, no keys, and timestamps from `timestamp_ms` on.
pub fn batch_at(timestamp_ms: i64, values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::default();
    for (nth, value) in values.iter().enumerate() {
        builder.push(None, Some(value.as_bytes()), &[], timestamp_ms + i64::try_from(nth).unwrap()).unwrap();
    }
    builder.build().unwrap()
}

/// A batch of records with these values.
pub fn batch(values: &[&str]) -> Batch {
    batch_at(1_700_000_000_000, values)
}

/// A batch of one record with a key; without a value it is a tombstone.
pub fn keyed(timestamp_ms: i64, key: &str, value: Option<&str>) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Some(key.as_bytes()), value.map(str::as_bytes), &[], timestamp_ms).unwrap();
    builder.build().unwrap()
}

/// The id of that name.
pub fn id(name: &str) -> PartitionId {
    PartitionId::new(name).unwrap()
}

/// Opens a log.
pub fn open(options: LogOptions) -> (Log, RecoveryReport) {
    Log::open(options).unwrap()
}

/// The partition of that name, made if it isn't there.
pub fn partition(log: &Log, name: &str, options: PartitionOptions) -> Partition {
    match log.partition(&id(name)) {
        Some(partition) => {
            partition.set_options(options);
            partition
        }
        None => log.create_partition(&id(name), options).unwrap(),
    }
}

/// Appends one batch and waits for it. Returns its base offset.
pub fn append(log: &Log, partition: &Partition, batch: Batch) -> i64 {
    log.append(AppendRequest::single(partition.clone(), batch)).wait().unwrap().base_offsets[0]
}

/// Every record from `from` on, checksums verified.
pub fn records_from(partition: &Partition, from: i64) -> Vec<Record> {
    let mut records = Vec::new();
    let mut next = from;
    loop {
        let fetched = partition.read(next, 10_000, Verify::Checksums).unwrap();
        if fetched.batches.is_empty() {
            return records;
        }
        for batch in fetched.batches() {
            records
                .extend(batch.unwrap().records().unwrap().map(Result::unwrap).filter(|r| r.offset >= next));
        }
        assert!(fetched.next_offset > next, "a read that finds something must get on");
        next = fetched.next_offset;
    }
}

/// Asserts that locating finds from everywhere what reading finds, within every bound.
pub fn assert_locating_finds_what_reading_finds(partition: &Partition) {
    let (start, end) = (partition.start_offset(), partition.end_offset());
    let mut found = 0;
    for from in start..end {
        for max_bytes in [0, 100, 1_000, 10_000] {
            let fetched = partition.read(from, max_bytes, Verify::Headers).unwrap();
            let located = partition.locate(from, max_bytes, i64::MAX).unwrap();
            let batches = located.batches.as_ref().map(|stored| stored.read(usize::MAX).unwrap());
            assert_eq!(batches.unwrap_or_default(), fetched.batches, "from {from}, {max_bytes} bytes");
            // In a gap that compaction left, either end of it says the same.
            let after = |offset| partition.locate(offset, 0, i64::MAX).unwrap().next_offset;
            assert!(located.next_offset > from);
            assert!(located.next_offset == end || after(located.next_offset) == after(fetched.next_offset));
            assert_eq!((located.start_offset, located.end_offset), (start, end));
        }
        for before in from + 1..=end {
            let located = partition.locate(from, 10_000, before).unwrap();
            let Some(stored) = located.batches else {
                assert_eq!(located.next_offset, before);
                continue;
            };
            for batch in Batches::new(stored.read(usize::MAX).unwrap()) {
                let header = *batch.unwrap().header();
                assert!(header.base_offset < before && header.last_offset() >= from);
                found += 1;
            }
        }
    }
    assert!(found > 0, "nothing was compared");
    assert!(partition.locate(end, 10, i64::MAX).unwrap().batches.is_none());
    assert!(partition.locate(end + 1, 10, i64::MAX).is_err());
}

/// Offset and value of every record that can be read.
pub fn contents(partition: &Partition) -> Vec<(i64, String)> {
    let text = |record: Record| {
        (record.offset, String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap())
    };
    records_from(partition, partition.start_offset()).into_iter().map(text).collect()
}
