//! Reading the journal back: which frames count, where the torn tail begins, and whether it is one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{
    BatchReference, ENTRY_HEADER_BYTES, FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, REFERENCE_FLAG,
};
use super::{JournalFile, number_of};
use crate::fs::{self, FileSystem, OpenMode};

/// Bytes read at once when looking for frames beyond a damaged one.
const SEARCH_BYTES: usize = 1024 * 1024;

/// A journal file and the frame at its beginning.
#[derive(Debug, Clone)]
pub(crate) struct ScannedFile {
    pub(crate) file: JournalFile,
    pub(crate) first: Option<FrameHeader>,
}

/// Where reading ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScanEnd {
    /// Newest sequence that was whole.
    pub(crate) last_sequence: u64,
    pub(crate) frames: u64,
    /// Bytes of the frame that was not whole, if a header told or bytes other than zero were there.
    pub(crate) torn_bytes: u64,
}

/// One batch of a frame.
#[derive(Debug, Clone)]
pub(crate) struct JournaledBatch {
    pub(crate) partition_number: u32,
    pub(crate) content: Content,
}

/// What a frame has of a batch.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// All of it.
    Batch(Bytes),
    /// That it stands in its segment.
    Reference(BatchReference),
}

/// Why the journal can't be replayed.
#[derive(Debug)]
pub(crate) enum JournalScanError {
    Io {
        path: PathBuf,
        source: io::Error,
    },
    /// A frame that had been synced is damaged or missing.
    Lost {
        path: PathBuf,
        position: u64,
        sequence: u64,
        proof_sequence: u64,
        proof_durable_through: u64,
    },
    /// A frame passed its checksum but its content makes no sense.
    Malformed {
        path: PathBuf,
        position: u64,
        sequence: u64,
    },
}

/// Opens every file of the journal and reads its first header.
pub(crate) fn open_files(
    file_system: &Arc<dyn FileSystem>,
    dir: &Path,
) -> Result<Vec<ScannedFile>, JournalScanError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| JournalScanError::Io { path, source }
    };
    let mut files = Vec::new();
    for entry in file_system.read_dir(dir).map_err(failed(dir))? {
        if number_of(&entry.name).is_none() {
            continue;
        }
        let path = dir.join(&entry.name);
        let file = file_system.open(&path, OpenMode::Write).map_err(failed(&path))?;
        let start = fs::read_up_to(&*file, FRAME_HEADER_BYTES, 0).map_err(failed(&path))?;
        files.push(ScannedFile {
            first: FrameHeader::parse(&start),
            file: JournalFile { path, file, bytes: entry.len },
        });
    }
    Ok(files)
}

/// Calls `replay` with the batches of every whole frame of `epoch` after `after_sequence`, in order.
pub(crate) fn replay<E: From<JournalScanError>>(
    files: &[ScannedFile],
    epoch: u64,
    after_sequence: u64,
    mut replay: impl FnMut(Vec<JournaledBatch>) -> Result<(), E>,
) -> Result<ScanEnd, E> {
    let mut live: Vec<(u64, &JournalFile)> = files
        .iter()
        .filter_map(|scanned| {
            Some((scanned.first.filter(|first| first.epoch == epoch)?.sequence, &scanned.file))
        })
        .collect();
    live.sort_by_key(|(first, _)| *first);
    // The file that holds the first frame wanted, or the end of the frames before it.
    let start = live.partition_point(|(first, _)| *first <= after_sequence + 1).saturating_sub(1);
    let mut end = ScanEnd { last_sequence: after_sequence, frames: 0, torn_bytes: 0 };
    let mut expected =
        live.get(start).map_or(after_sequence + 1, |(first, _)| (*first).min(after_sequence + 1));
    let mut stop: Option<(&JournalFile, u64)> = None;
    for (first, file) in live.get(start..).unwrap_or_default() {
        if *first != expected {
            break;
        }
        let mut position = 0;
        while let Some((header, batches)) = read_frame(file, position, epoch, expected)? {
            if header.sequence > after_sequence {
                replay(batches)?;
                end.last_sequence = header.sequence;
                end.frames += 1;
            }
            expected += 1;
            position += header.total_bytes();
        }
        stop = Some((file, position));
    }
    if let Some((file, position)) = stop {
        end.torn_bytes = torn_bytes(file, position, epoch, expected)?;
    }
    refuse_if_synced_frames_are_missing(files, stop, epoch, expected)?;
    Ok(end)
}

/// The frame at `position`, if it is whole and the one expected.
fn read_frame(
    file: &JournalFile,
    position: u64,
    epoch: u64,
    expected: u64,
) -> Result<Option<(FrameHeader, Vec<JournaledBatch>)>, JournalScanError> {
    let failed = |source| JournalScanError::Io { path: file.path.clone(), source };
    let start = fs::read_up_to(&*file.file, FRAME_HEADER_BYTES, position).map_err(failed)?;
    let Some(header) = FrameHeader::parse(&start) else { return Ok(None) };
    // Without the padding: it isn't written, and the zeros that stood there may be lost.
    let end = position + FRAME_HEADER_BYTES as u64 + u64::from(header.body_bytes);
    let fits = end <= file.bytes;
    if header.epoch != epoch || header.sequence != expected || !fits {
        return Ok(None);
    }
    let body_bytes = usize::try_from(header.body_bytes).unwrap_or(usize::MAX);
    let body =
        fs::read_up_to(&*file.file, body_bytes, position + FRAME_HEADER_BYTES as u64).map_err(failed)?;
    if body.len() != body_bytes || crc32c::crc32c(&body) != header.body_crc {
        return Ok(None);
    }
    let batches =
        parse_body(Bytes::from(body)).filter(|batches| batches.len() == header.batch_count as usize);
    let batches = batches.ok_or_else(|| JournalScanError::Malformed {
        path: file.path.clone(),
        position,
        sequence: header.sequence,
    })?;
    Ok(Some((header, batches)))
}

fn parse_body(mut body: Bytes) -> Option<Vec<JournaledBatch>> {
    let mut batches = Vec::new();
    while !body.is_empty() {
        let head: [u8; ENTRY_HEADER_BYTES] = *body.first_chunk()?;
        let (number, length) = head.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length.first_chunk()?);
        let is_reference = length & REFERENCE_FLAG != 0;
        let length = usize::try_from(length & !REFERENCE_FLAG).ok()?;
        let end = ENTRY_HEADER_BYTES.checked_add(length).filter(|end| *end <= body.len())?;
        let entry = body.split_to(end).slice(ENTRY_HEADER_BYTES..);
        let content = if is_reference {
            Content::Reference(BatchReference::parse(&entry)?)
        } else {
            Content::Batch(entry)
        };
        batches.push(JournaledBatch { partition_number: u32::from_be_bytes(*number), content });
    }
    Some(batches)
}

/// How much of a frame that is not whole stands at `position`: 0 if nothing of it was written.
fn torn_bytes(file: &JournalFile, position: u64, epoch: u64, expected: u64) -> Result<u64, JournalScanError> {
    let failed = |source| JournalScanError::Io { path: file.path.clone(), source };
    let start = fs::read_up_to(&*file.file, FRAME_HEADER_BYTES, position).map_err(failed)?;
    Ok(match FrameHeader::parse(&start) {
        Some(header) if header.epoch == epoch && header.sequence == expected => {
            header.total_bytes().min(file.bytes.saturating_sub(position))
        }
        // What stands there is of an earlier use of the file.
        Some(_) => 0,
        None if start.iter().all(|byte| *byte == 0) => 0,
        // Part of a header, or the middle of an older frame: they can't be told apart, so count the header only.
        None => start.len() as u64,
    })
}

/// A later frame may say that it was written after the damaged one had been synced. Then that one was acknowledged, and
/// cutting here would lose it silently.
fn refuse_if_synced_frames_are_missing(
    files: &[ScannedFile],
    stop: Option<(&JournalFile, u64)>,
    epoch: u64,
    expected: u64,
) -> Result<(), JournalScanError> {
    let proves = |header: &FrameHeader| {
        header.epoch == epoch && header.sequence > expected && header.durable_through >= expected
    };
    // The rest of the file where reading stopped, and files whose first header can't be read, have to be searched.
    let unreadable = files.iter().filter(|scanned| scanned.first.is_none()).map(|scanned| (&scanned.file, 0));
    for (file, position) in stop.into_iter().chain(unreadable) {
        if let Some(proof) = find_header(file, position, proves)? {
            return Err(lost(file, position, expected, proof));
        }
    }
    let elsewhere = files.iter().find_map(|scanned| Some((scanned.first.filter(proves)?, &scanned.file)));
    match elsewhere {
        Some((proof, file)) => {
            let (file, position) = stop.unwrap_or((file, 0));
            Err(lost(file, position, expected, proof))
        }
        None => Ok(()),
    }
}

fn lost(file: &JournalFile, position: u64, sequence: u64, proof: FrameHeader) -> JournalScanError {
    JournalScanError::Lost {
        path: file.path.clone(),
        position,
        sequence,
        proof_sequence: proof.sequence,
        proof_durable_through: proof.durable_through,
    }
}

/// The first whole header after `position` that `wanted` accepts, at any place where a frame may begin.
fn find_header(
    file: &JournalFile,
    position: u64,
    wanted: impl Fn(&FrameHeader) -> bool,
) -> Result<Option<FrameHeader>, JournalScanError> {
    let step = usize::try_from(FRAME_ALIGNMENT).unwrap_or(8);
    let mut chunk_start = position;
    while chunk_start < file.bytes {
        let chunk = fs::read_up_to(&*file.file, SEARCH_BYTES + FRAME_HEADER_BYTES, chunk_start)
            .map_err(|source| JournalScanError::Io { path: file.path.clone(), source })?;
        let mut rest = chunk.as_slice();
        if rest.iter().all(|byte| *byte == 0) {
            rest = &[];
        }
        while rest.len() >= FRAME_HEADER_BYTES {
            if let Some(header) = FrameHeader::parse(rest).filter(|header| wanted(header)) {
                return Ok(Some(header));
            }
            rest = rest.get(step..).unwrap_or_default();
        }
        chunk_start += SEARCH_BYTES as u64;
    }
    Ok(None)
}

/// Where to replay from when no checkpoint tells: the newest epoch, and the sequence before its oldest frame from which
/// the files follow one another without a gap.
pub(crate) fn oldest_contiguous(files: &[ScannedFile]) -> Result<Option<(u64, u64)>, JournalScanError> {
    let Some(epoch) = files.iter().filter_map(|scanned| Some(scanned.first?.epoch)).max() else {
        return Ok(None);
    };
    let mut live: Vec<(u64, &JournalFile)> = files
        .iter()
        .filter_map(|scanned| {
            Some((scanned.first.filter(|first| first.epoch == epoch)?.sequence, &scanned.file))
        })
        .collect();
    live.sort_by_key(|(first, _)| *first);
    let mut oldest: Option<(u64, u64)> = None;
    for (first, file) in live {
        let mut sequence = first;
        let mut position = 0;
        while let Some((header, _)) = read_frame(file, position, epoch, sequence)? {
            sequence += 1;
            position += header.total_bytes();
        }
        oldest = match oldest {
            Some((start, next)) if next == first => Some((start, sequence)),
            _ => Some((first, sequence)),
        };
    }
    Ok(oldest.map(|(first, _)| (epoch, first - 1)))
}
