//! The file that lists the topics: `topics.json` in the data folder.
//!
//! It is replaced as a whole: written beside, synced, renamed, folder synced. A topic is listed before its partitions
//! are made, and partitions that are missing are made at the next start, so a crash between leaves a whole topic. A topic
//! that is deleted leaves the list, and is listed among those being deleted until the last of its partitions is gone; what a
//! crash leaves of it goes at the next start.
//!
//! Version 2 gives the cluster and each topic a random id, which clients use to tell a topic from a later one of the same
//! name. A list of version 1 gets its ids when it is read, and is replaced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farol_log::fs::{FileSystem, OpenMode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{BrokerError, OpenError};

const FILE_NAME: &str = "topics.json";
/// The version that is written.
const VERSION: u32 = 2;
/// A list that is longer than this isn't one of ours.
const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// A topic of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListedTopic {
    pub(crate) id: Uuid,
    pub(crate) partitions: i32,
    #[serde(default)]
    pub(crate) config: BTreeMap<String, String>,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    cluster_id: Uuid,
    topics: BTreeMap<String, ListedTopic>,
    /// Topics whose partitions are being deleted, with how many there were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    deleting: BTreeMap<String, i32>,
}

/// What every version begins with.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The content of version 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContentV1 {
    #[serde(rename = "version")]
    _version: u32,
    topics: BTreeMap<String, ListedTopicV1>,
}

/// A topic of version 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedTopicV1 {
    partitions: i32,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

/// The list of topics.
#[derive(Debug)]
pub(crate) struct Catalog {
    file_system: Arc<dyn FileSystem>,
    dir: PathBuf,
    cluster_id: Uuid,
    topics: BTreeMap<String, ListedTopic>,
    deleting: BTreeMap<String, i32>,
}

impl Catalog {
    /// Reads the list of a data folder; an absent file is an empty list. Ids that are new are durable when this returns.
    pub(crate) fn read(file_system: Arc<dyn FileSystem>, dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE_NAME);
        let dir = dir.to_owned();
        let unusable = |problem: String| OpenError::Catalog { path: path.clone(), problem };
        let text = match read_file(&*file_system, &path) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(unusable(format!("it is larger than {MAX_FILE_BYTES} bytes"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut catalog = Self::empty(file_system, dir);
                catalog.begin(BTreeMap::new())?;
                return Ok(catalog);
            }
            Err(source) => return Err(OpenError::ReadCatalog { path, source }),
        };
        let content = parse(&text).map_err(unusable)?;
        let mut catalog = Self::empty(file_system, dir);
        match content {
            Parsed::Current(content) => {
                catalog.cluster_id = content.cluster_id;
                catalog.topics = content.topics;
                catalog.deleting = content.deleting;
            }
            Parsed::V1(topics) => catalog.begin(topics)?,
        }
        Ok(catalog)
    }

    fn empty(file_system: Arc<dyn FileSystem>, dir: PathBuf) -> Self {
        let (topics, deleting) = (BTreeMap::new(), BTreeMap::new());
        Self { file_system, dir, cluster_id: Uuid::nil(), topics, deleting }
    }

    /// Gives the cluster its id.
    fn begin(&mut self, topics: BTreeMap<String, ListedTopic>) -> Result<(), OpenError> {
        self.cluster_id = Uuid::new_v4();
        self.replace(topics, BTreeMap::new()).map_err(OpenError::Topic)
    }

    /// Names this data folder for ever.
    pub(crate) fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// The topics, by name.
    pub(crate) fn topics(&self) -> &BTreeMap<String, ListedTopic> {
        &self.topics
    }

    /// Lists a topic, durably, in place of the one of that name if there is one. On an error the list is as before.
    pub(crate) fn set(&mut self, name: &str, topic: ListedTopic) -> Result<(), BrokerError> {
        let mut topics = self.topics.clone();
        topics.insert(name.to_owned(), topic);
        self.replace(topics, self.deleting.clone())
    }

    /// Topics of whose partitions there may be something left, with how many there were.
    pub(crate) fn deleting(&self) -> &BTreeMap<String, i32> {
        &self.deleting
    }

    /// Takes a topic off the list, durably: from now on it is gone, whatever of its partitions is left.
    pub(crate) fn begin_deletion(&mut self, name: &str) -> Result<(), BrokerError> {
        let (mut topics, mut deleting) = (self.topics.clone(), self.deleting.clone());
        if let Some(topic) = topics.remove(name) {
            deleting.insert(name.to_owned(), topic.partitions);
        }
        self.replace(topics, deleting)
    }

    /// Notes that nothing is left of a topic.
    pub(crate) fn end_deletion(&mut self, name: &str) -> Result<(), BrokerError> {
        let mut deleting = self.deleting.clone();
        deleting.remove(name);
        self.replace(self.topics.clone(), deleting)
    }

    fn replace(
        &mut self,
        topics: BTreeMap<String, ListedTopic>,
        deleting: BTreeMap<String, i32>,
    ) -> Result<(), BrokerError> {
        let content = Content { version: VERSION, cluster_id: self.cluster_id, topics, deleting };
        let path = self.dir.join(FILE_NAME);
        replace_file(&*self.file_system, &self.dir, &path, &content)
            .map_err(|source| BrokerError::Catalog { path, source })?;
        (self.topics, self.deleting) = (content.topics, content.deleting);
        Ok(())
    }
}

/// What a list says, by its version.
enum Parsed {
    Current(Content),
    V1(BTreeMap<String, ListedTopic>),
}

fn parse(text: &[u8]) -> Result<Parsed, String> {
    let versioned: Versioned = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match versioned.version {
        1 => {
            let content: ContentV1 = serde_json::from_slice(text).map_err(|error| error.to_string())?;
            let with_id = |topic: ListedTopicV1| ListedTopic {
                id: Uuid::new_v4(),
                partitions: topic.partitions,
                config: topic.config,
            };
            Ok(Parsed::V1(content.topics.into_iter().map(|(name, topic)| (name, with_id(topic))).collect()))
        }
        VERSION => serde_json::from_slice(text).map(Parsed::Current).map_err(|error| error.to_string()),
        version => Err(format!("version {version} is not {VERSION} or an earlier one")),
    }
}

/// The content of a file; `None` if it is larger than a list may be.
pub(crate) fn read_file(file_system: &dyn FileSystem, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = file_system.open(path, OpenMode::Read)?;
    let Some(length) = usize::try_from(file.len()?).ok().filter(|length| *length <= MAX_FILE_BYTES) else {
        return Ok(None);
    };
    let mut content = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = content.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    content.truncate(filled);
    Ok(Some(content))
}

fn replace_file(file_system: &dyn FileSystem, dir: &Path, path: &Path, content: &Content) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    let beside = path.with_extension("json.new");
    let file = file_system.open(&beside, OpenMode::Create)?;
    let mut written = 0;
    while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write_vectored_at(&[io::IoSlice::new(rest)], written as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => written += count,
        }
    }
    file.sync_data()?;
    file_system.rename(&beside, path)?;
    file_system.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use farol_log::fs::RealFileSystem;
    use farol_log::fs::fault::{FaultFileSystem, Operation};

    use super::*;

    fn listed(partitions: i32) -> ListedTopic {
        let config = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
        ListedTopic { id: Uuid::from_u128(7), partitions, config }
    }

    fn read(dir: &Path) -> Result<Catalog, OpenError> {
        Catalog::read(Arc::new(RealFileSystem), dir)
    }

    #[test]
    fn the_list_is_there_after_reading_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = read(dir.path()).unwrap();
        assert!(catalog.topics().is_empty());
        catalog.set("a", listed(1)).unwrap();
        catalog.set("b", listed(3)).unwrap();
        catalog.begin_deletion("b").unwrap();
        let again = read(dir.path()).unwrap();
        assert_eq!(again.topics(), &BTreeMap::from([("a".to_owned(), listed(1))]));
        assert_eq!(again.deleting(), &BTreeMap::from([("b".to_owned(), 3)]));
        catalog.end_deletion("b").unwrap();
        assert!(read(dir.path()).unwrap().deleting().is_empty());
    }

    #[test]
    fn a_crash_at_any_moment_leaves_the_old_or_the_new_list() {
        let dir = Path::new("/data");
        let (mut old, mut new) = (0, 0);
        for seed in 0..200 {
            let file_system = FaultFileSystem::new(seed);
            file_system.create_dir_all(dir).unwrap();
            let mut catalog = Catalog::read(Arc::new(file_system.clone()), dir).unwrap();
            catalog.set("a", listed(1)).unwrap();
            file_system.crash_after(seed % 7);
            let added = catalog.set("b", listed(2)).is_ok();
            file_system.restart();
            let again = Catalog::read(Arc::new(file_system), dir).unwrap();
            match again.topics().len() {
                1 => old += 1,
                2 => new += 1,
                other => panic!("{other} topics"),
            }
            assert!(again.topics().len() == 2 || !added, "an acknowledged topic is gone (seed {seed})");
        }
        assert!(old > 10 && new > 10, "{old} old, {new} new");
    }

    #[test]
    fn a_list_that_cannot_be_written_stays_as_it_was() {
        let dir = Path::new("/data");
        for operation in [Operation::Open, Operation::Write, Operation::Sync, Operation::Rename] {
            let file_system = FaultFileSystem::new(1);
            file_system.create_dir_all(dir).unwrap();
            let mut catalog = Catalog::read(Arc::new(file_system.clone()), dir).unwrap();
            catalog.set("a", listed(1)).unwrap();
            file_system.fail_next(operation, "topics");
            let error = catalog.set("b", listed(2)).unwrap_err();
            assert!(matches!(error, BrokerError::Catalog { .. }), "{operation:?}");
            assert_eq!(catalog.topics().len(), 1);
            catalog.set("c", listed(1)).unwrap();
            assert_eq!(Catalog::read(Arc::new(file_system), dir).unwrap().topics().len(), 2);
        }
    }

    #[test]
    fn rubbish_and_other_versions_are_refused_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        for text in
            ["", "[]", "{\"version\":3,\"topics\":{}}", "{\"version\":1,\"topics\":{},\"x\":1}", "\u{0}\u{1}"]
        {
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            let error = read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(FILE_NAME), "{error}");
        }
    }

    #[test]
    fn a_list_of_version_1_gets_ids_that_stay() {
        let dir = tempfile::tempdir().unwrap();
        let old = r#"{"version":1,"topics":{"a":{"partitions":3},"b":{"partitions":1,"config":{"retention.ms":"5"}}}}"#;
        fs::write(dir.path().join(FILE_NAME), old).unwrap();
        let first = read(dir.path()).unwrap();
        assert_eq!(first.topics()["a"].partitions, 3);
        assert_eq!(first.topics()["b"].config["retention.ms"], "5");
        assert_ne!(first.topics()["a"].id, first.topics()["b"].id);
        let again = read(dir.path()).unwrap();
        assert_eq!(again.topics(), first.topics());
        assert_eq!(again.cluster_id(), first.cluster_id());
    }

    #[test]
    fn a_new_folder_has_a_cluster_id_that_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = read(dir.path()).unwrap();
        assert!(!first.cluster_id().is_nil());
        assert_eq!(read(dir.path()).unwrap().cluster_id(), first.cluster_id());
    }
}
