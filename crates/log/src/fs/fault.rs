//! A file system in memory that fails, tears and forgets on purpose.
//!
//! Everything random comes from one seeded generator, so that the same calls in the same order meet the same fate.
//!
//! * **Crash** ([`FaultFileSystem::crash_after`], [`FaultFileSystem::restart`]): every operation fails from some moment on;
//!   a restart keeps what was synced, and of the rest any part: each write since a file's last sync is kept, dropped, or
//!   kept up to some sector; each directory keeps a prefix of the names made, changed or removed since its last sync.
//! * **Death of the process** ([`FaultFileSystem::crash_after`], [`FaultFileSystem::resume`]): the same moment, but the machine
//!   stays up, so that nothing is lost yet. What was not synced can still go in a later crash.
//! * **Failure** ([`FaultFileSystem::fail_next`]): an operation on a path that contains some text fails once, or each time
//!   ([`FaultFileSystem::refuse`]). A failed write may have written a part. A failed sync loses what it should have made durable even if a later sync succeeds,
//!   as Linux does: the data can be read until the crash and not after.
//! * **Short writes** happen all the time; **no space** ([`FaultFileSystem::set_capacity`]) when files grow too large.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DirEntry, File, FileSystem, OpenMode};

/// Bytes that a disk writes wholly or not at all.
const SECTOR_BYTES: u64 = 512;
/// One write in so many is cut short.
const SHORT_WRITE_EVERY: u64 = 16;

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Writing to a file.
    Write,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Opening or creating a file.
    Open,
    /// Renaming.
    Rename,
    /// Cutting or extending a file.
    SetLen,
}

/// What really happened, to prove that a test met what it was made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Crashes restarted from.
    pub crashes: u64,
    /// Deaths of the process resumed from.
    pub deaths: u64,
    /// Unsynced writes that a crash dropped.
    pub writes_lost: u64,
    /// Unsynced writes that a crash kept in part.
    pub writes_torn: u64,
    /// Unsynced writes that a crash kept.
    pub writes_kept: u64,
    /// Unsynced names that a crash dropped.
    pub names_lost: u64,
    /// Operations that failed as told.
    pub failures: u64,
    /// Writes that were cut short.
    pub short_writes: u64,
    /// Writes refused for want of space.
    pub no_space: u64,
    /// Bytes that were written, also those that a later failure took back.
    pub bytes_written: u64,
}

/// A file system in memory. Clones are the same one.
#[derive(Debug, Clone)]
pub struct FaultFileSystem {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: Random,
    nodes: Vec<Node>,
    /// Files by path, as running programs see them.
    files: BTreeMap<PathBuf, usize>,
    /// Files by path, as a crash leaves them.
    durable_files: BTreeMap<PathBuf, usize>,
    /// Directories; making one is durable at once, as nothing here rests on the contrary.
    dirs: BTreeMap<PathBuf, ()>,
    /// Changes of names since the last sync of their directory.
    pending_names: BTreeMap<PathBuf, Vec<NameChange>>,
    planned: Vec<(Operation, String)>,
    refused: Vec<(Operation, String, io::ErrorKind)>,
    operations_until_crash: Option<u64>,
    crashed: bool,
    capacity: u64,
    locked: Vec<PathBuf>,
    /// Handles from before a crash are dead.
    generation: u64,
    counts: FaultCounts,
}

#[derive(Debug, Default)]
struct Node {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { position: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Remove(PathBuf),
    /// One step: a crash leaves the old name or the new one.
    Rename {
        from: PathBuf,
        to: PathBuf,
        node: usize,
    },
}

#[derive(Debug)]
struct OpenFile {
    state: Arc<Mutex<State>>,
    node: usize,
    path: PathBuf,
    generation: u64,
}

#[derive(Debug)]
struct LockGuard {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

/// SplitMix64: small, and the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, `bound`; 0 for 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

impl FaultFileSystem {
    /// An empty file system whose fate hangs on `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random(seed),
            nodes: Vec::new(),
            files: BTreeMap::new(),
            durable_files: BTreeMap::new(),
            dirs: BTreeMap::new(),
            pending_names: BTreeMap::new(),
            planned: Vec::new(),
            refused: Vec::new(),
            operations_until_crash: None,
            crashed: false,
            capacity: u64::MAX,
            locked: Vec::new(),
            generation: 0,
            counts: FaultCounts::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Everything fails after so many more changing operations.
    pub fn crash_after(&self, operations: u64) {
        self.state.lock().operations_until_crash = Some(operations);
    }

    /// Whether the moment of the crash has come.
    pub fn has_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// Fails the next `operation` on a path that contains `path_part`.
    pub fn fail_next(&self, operation: Operation, path_part: &str) {
        self.state.lock().planned.push((operation, path_part.to_owned()));
    }

    /// Fails each `operation` on a path that contains `path_part` with `kind` from now on.
    pub fn refuse(&self, operation: Operation, path_part: &str, kind: io::ErrorKind) {
        self.state.lock().refused.push((operation, path_part.to_owned(), kind));
    }

    /// Forgets failures that were planned and have not happened, and refuses nothing any more.
    pub fn cancel_failures(&self) {
        let mut state = self.state.lock();
        state.planned.clear();
        state.refused.clear();
    }

    /// Bytes that all files may have together.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity = bytes;
    }

    /// Bytes that all files have together.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// Loses what a power cut may lose, and works again.
    pub fn restart(&self) {
        self.state.lock().restart();
    }

    /// Works again with everything as it was when [`FaultFileSystem::crash_after`] struck: the process died, the machine
    /// did not. What is not synced stays so.
    pub fn resume(&self) {
        let mut state = self.state.lock();
        state.counts.deaths += 1;
        state.begin_again();
    }

    /// What happened so far.
    pub fn counts(&self) -> FaultCounts {
        self.state.lock().counts
    }

    /// Flips a bit of a file, durably.
    pub fn flip_bit(&self, path: &Path, position: usize) {
        let mut state = self.state.lock();
        let Some(node) = state.files.get(path).copied() else { return };
        if let Some(node) = state.nodes.get_mut(node) {
            for content in [&mut node.content, &mut node.durable] {
                if let Some(byte) = content.get_mut(position) {
                    *byte ^= 1;
                }
            }
        }
    }

    /// The content of a file as a program sees it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let node = state.files.get(path)?;
        state.nodes.get(*node).map(|node| node.content.clone())
    }
}

impl State {
    fn change(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        self.alive()?;
        if let Some(left) = self.operations_until_crash {
            if left == 0 {
                self.crashed = true;
                self.alive()?;
            }
            self.operations_until_crash = Some(left - 1);
        }
        let text = path.to_string_lossy();
        let planned =
            self.planned.iter().position(|(op, part)| *op == operation && text.contains(part.as_str()));
        if let Some(planned) = planned {
            self.planned.remove(planned);
            self.counts.failures += 1;
            return Err(io::Error::other(format!("{operation:?} made to fail")));
        }
        let refused =
            self.refused.iter().find(|(op, part, _)| *op == operation && text.contains(part.as_str()));
        if let Some((_, _, kind)) = refused {
            self.counts.failures += 1;
            return Err((*kind).into());
        }
        Ok(())
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other("the machine has crashed")) } else { Ok(()) }
    }

    fn set_name(&mut self, path: &Path, node: usize) {
        self.files.insert(path.to_owned(), node);
        self.note_name(path, NameChange::Set(path.to_owned(), node));
    }

    fn remove_name(&mut self, path: &Path) -> io::Result<usize> {
        let node = self.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        self.note_name(path, NameChange::Remove(path.to_owned()));
        Ok(node)
    }

    fn note_name(&mut self, path: &Path, change: NameChange) {
        let dir = path.parent().unwrap_or(path).to_owned();
        self.pending_names.entry(dir).or_default().push(change);
    }

    fn used_bytes(&self) -> u64 {
        let nodes = self.files.values().filter_map(|node| self.nodes.get(*node));
        nodes.map(|node| node.content.len() as u64).sum()
    }

    fn restart(&mut self) {
        self.counts.crashes += 1;
        for (_, changes) in std::mem::take(&mut self.pending_names) {
            let kept = self.random.below(changes.len() as u64 + 1);
            for (nth, change) in (0..).zip(changes) {
                if nth >= kept {
                    self.counts.names_lost += 1;
                } else {
                    change.apply(&mut self.durable_files);
                }
            }
        }
        self.files = self.durable_files.clone();
        for node in &mut self.nodes {
            for change in std::mem::take(&mut node.pending) {
                lose_some(change, &mut node.durable, &mut self.random, &mut self.counts);
            }
            node.content = node.durable.clone();
        }
        self.begin_again();
    }

    /// A new process: handles and locks of the old one are gone.
    fn begin_again(&mut self) {
        self.planned.clear();
        self.refused.clear();
        self.operations_until_crash = None;
        self.crashed = false;
        self.locked.clear();
        self.generation += 1;
    }
}

/// Lets an unsynced change reach the disk wholly, in part, or not at all.
fn lose_some(change: Change, durable: &mut Vec<u8>, random: &mut Random, counts: &mut FaultCounts) {
    match (change, random.below(3)) {
        (Change::Write { .. }, 0) => counts.writes_lost += 1,
        (Change::Write { position, mut bytes }, 1) => {
            // Sectors are whole, so the cut is at a multiple of their size in the file.
            let end = position + random.below(bytes.len() as u64 + 1);
            let kept = (end - end % SECTOR_BYTES).saturating_sub(position);
            bytes.truncate(usize::try_from(kept).unwrap_or(0));
            counts.writes_torn += 1;
            write_into(durable, position, &bytes);
        }
        (Change::Write { position, bytes }, _) => {
            counts.writes_kept += 1;
            write_into(durable, position, &bytes);
        }
        (Change::SetLen(_), 0) => counts.writes_lost += 1,
        (Change::SetLen(len), _) => durable.resize(usize::try_from(len).unwrap_or(0), 0),
    }
}

fn write_into(content: &mut Vec<u8>, position: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let start = usize::try_from(position).unwrap_or(usize::MAX);
    let end = start.saturating_add(bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(place) = content.get_mut(start..end) {
        place.copy_from_slice(bytes);
    }
}

impl NameChange {
    fn apply(self, files: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Set(path, node) => {
                files.insert(path, node);
            }
            Self::Remove(path) => {
                files.remove(&path);
            }
            Self::Rename { from, to, node } => {
                files.remove(&from);
                files.insert(to, node);
            }
        }
    }
}

impl OpenFile {
    fn with<T>(&self, run: impl FnOnce(&mut State, &Self) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.generation != self.generation {
            return Err(io::Error::other("opened before the crash"));
        }
        run(&mut state, self)
    }
}

impl File for OpenFile {
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(|state, file| {
            state.alive()?;
            let content = state.nodes.get(file.node).map(|node| node.content.as_slice()).unwrap_or_default();
            let from = content.get(usize::try_from(position).unwrap_or(usize::MAX)..).unwrap_or_default();
            let count = from.len().min(into.len());
            for (place, byte) in into.iter_mut().zip(from) {
                *place = *byte;
            }
            Ok(count)
        })
    }

    fn write_vectored_at(&self, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.with(|state, file| {
            let failed = state.change(Operation::Write, &file.path);
            if bytes.is_empty() {
                return failed.map(|()| 0);
            }
            if failed.is_err() {
                // Part of it may be there, and the caller can't know.
                bytes.truncate(usize::try_from(state.random.below(bytes.len() as u64)).unwrap_or(0));
            } else if state.random.below(SHORT_WRITE_EVERY) == 0 && bytes.len() > 1 {
                state.counts.short_writes += 1;
                let shorter = 1 + state.random.below(bytes.len() as u64 - 1);
                bytes.truncate(usize::try_from(shorter).unwrap_or(1));
            }
            let len = state.nodes.get(file.node).map_or(0, |node| node.content.len() as u64);
            let growth = (position + bytes.len() as u64).saturating_sub(len);
            if state.capacity < u64::MAX && growth > 0 && state.used_bytes() + growth > state.capacity {
                state.counts.no_space += 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.counts.bytes_written += bytes.len() as u64;
            if let Some(node) = state.nodes.get_mut(file.node) {
                write_into(&mut node.content, position, &bytes);
                node.pending.push(Change::Write { position, bytes: bytes.clone() });
            }
            failed.map(|()| bytes.len())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.change(Operation::SetLen, &file.path)?;
            if let Some(node) = state.nodes.get_mut(file.node) {
                node.content.resize(usize::try_from(len).unwrap_or(0), 0);
                node.pending.push(Change::SetLen(len));
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| {
            state.alive()?;
            Ok(state.nodes.get(file.node).map_or(0, |node| node.content.len() as u64))
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, file| {
            let outcome = state.change(Operation::Sync, &file.path);
            if state.crashed {
                return outcome;
            }
            let State { nodes, random, counts, .. } = state;
            let Some(node) = nodes.get_mut(file.node) else { return outcome };
            for change in std::mem::take(&mut node.pending) {
                match (&outcome, change) {
                    (Ok(()), Change::Write { position, bytes }) => {
                        write_into(&mut node.durable, position, &bytes)
                    }
                    (Ok(()), Change::SetLen(len)) => {
                        node.durable.resize(usize::try_from(len).unwrap_or(0), 0)
                    }
                    // Marked clean without having been written: no later sync brings it back.
                    (Err(_), change) => lose_some(change, &mut node.durable, random, counts),
                }
            }
            outcome
        })
    }
}

impl FileSystem for FaultFileSystem {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.alive()?;
        if mode == OpenMode::Create {
            state.change(Operation::Open, path)?;
            if !path.parent().is_some_and(|dir| state.dirs.contains_key(dir)) {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        let node = match (state.files.get(path).copied(), mode) {
            (Some(node), OpenMode::Create) => {
                if let Some(node) = state.nodes.get_mut(node) {
                    node.content.clear();
                    node.pending.push(Change::SetLen(0));
                }
                node
            }
            (Some(node), _) => node,
            (None, OpenMode::Create) => {
                let node = state.nodes.len();
                state.nodes.push(Node::default());
                state.set_name(path, node);
                node
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        let generation = state.generation;
        Ok(Arc::new(OpenFile { state: Arc::clone(&self.state), node, path: path.to_owned(), generation }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        for dir in path.ancestors() {
            state.dirs.insert(dir.to_owned(), ());
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        state.alive()?;
        if !state.dirs.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name_in = |child: &Path| {
            let inside = child.parent() == Some(path);
            inside.then(|| child.file_name()?.to_str().map(str::to_owned)).flatten()
        };
        let dirs =
            state.dirs.keys().filter_map(|dir| Some(DirEntry { name: name_in(dir)?, is_dir: true, len: 0 }));
        let files = state.files.iter().filter_map(|(file, node)| {
            let len = state.nodes.get(*node)?.content.len() as u64;
            Some(DirEntry { name: name_in(file)?, is_dir: false, len })
        });
        let mut entries: Vec<_> = dirs.chain(files).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change(Operation::Rename, from)?;
        if state.dirs.contains_key(from) {
            // Directories are only renamed to be removed, so treat it as durable: the harder case is a file's.
            let moved =
                |path: &Path| path.strip_prefix(from).map_or_else(|_| path.to_owned(), |rest| to.join(rest));
            state.dirs = std::mem::take(&mut state.dirs).into_keys().map(|dir| (moved(&dir), ())).collect();
            for which in [true, false] {
                let files = if which { &mut state.files } else { &mut state.durable_files };
                *files = std::mem::take(files).into_iter().map(|(file, node)| (moved(&file), node)).collect();
            }
            state.pending_names.retain(|dir, _| !dir.starts_with(from));
            return Ok(());
        }
        let node = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), node);
        state.note_name(to, NameChange::Rename { from: from.to_owned(), to: to.to_owned(), node });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change(Operation::Rename, path)?;
        state.remove_name(path).map(|_| ())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change(Operation::Rename, path)?;
        state.dirs.retain(|dir, ()| !dir.starts_with(path));
        state.files.retain(|file, _| !file.starts_with(path));
        state.durable_files.retain(|file, _| !file.starts_with(path));
        state.pending_names.retain(|dir, _| !dir.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change(Operation::SyncDir, path)?;
        for change in state.pending_names.remove(path).unwrap_or_default() {
            change.apply(&mut state.durable_files);
        }
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<Option<u64>> {
        let state = self.state.lock();
        state.alive()?;
        Ok(Some(state.capacity.saturating_sub(state.used_bytes())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state.lock();
        state.alive()?;
        if state.locked.iter().any(|locked| locked == path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked.push(path.to_owned());
        Ok(Box::new(LockGuard { state: Arc::clone(&self.state), path: path.to_owned() }))
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.state.lock().locked.retain(|locked| *locked != self.path);
    }
}
