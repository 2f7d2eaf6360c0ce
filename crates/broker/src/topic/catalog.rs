//! The file that lists the topics: `topics.json` in the data folder.
//!
//! It is replaced as a whole: written beside, synced, renamed, folder synced. A topic is listed before its partitions
//! are made, and partitions that are missing are made at the next start, so a crash between leaves a whole topic.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{BrokerError, OpenError};

const FILE_NAME: &str = "topics.json";
/// The only version there is.
const VERSION: u32 = 1;
/// A list that is longer than this isn't one of ours.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A topic of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListedTopic {
    pub(crate) partitions: i32,
    #[serde(default)]
    pub(crate) config: BTreeMap<String, String>,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    topics: BTreeMap<String, ListedTopic>,
}

/// The list of topics.
#[derive(Debug)]
pub(crate) struct Catalog {
    dir: PathBuf,
    topics: BTreeMap<String, ListedTopic>,
}

impl Catalog {
    /// Reads the list of a data folder; an absent file is an empty list.
    pub(crate) fn read(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE_NAME);
        let unusable = |problem: String| OpenError::Catalog { path: path.clone(), problem };
        let text = match fs::metadata(&path).and_then(|metadata| {
            if metadata.len() > MAX_FILE_BYTES { Ok(None) } else { fs::read(&path).map(Some) }
        }) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(unusable(format!("it is larger than {MAX_FILE_BYTES} bytes"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { dir: dir.to_owned(), topics: BTreeMap::new() });
            }
            Err(source) => return Err(OpenError::ReadCatalog { path, source }),
        };
        let content: Content = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        if content.version != VERSION {
            return Err(unusable(format!("version {} is not {VERSION}", content.version)));
        }
        Ok(Self { dir: dir.to_owned(), topics: content.topics })
    }

    /// The topics, by name.
    pub(crate) fn topics(&self) -> &BTreeMap<String, ListedTopic> {
        &self.topics
    }

    /// Lists one more topic, durably. On an error the list is as before.
    pub(crate) fn add(&mut self, name: &str, topic: ListedTopic) -> Result<(), BrokerError> {
        let mut topics = self.topics.clone();
        topics.insert(name.to_owned(), topic);
        self.replace(topics)
    }

    /// Takes a topic off the list again.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), BrokerError> {
        let mut topics = self.topics.clone();
        topics.remove(name);
        self.replace(topics)
    }

    fn replace(&mut self, topics: BTreeMap<String, ListedTopic>) -> Result<(), BrokerError> {
        let content = Content { version: VERSION, topics };
        let path = self.dir.join(FILE_NAME);
        write_atomically(&self.dir, &path, &content)
            .map_err(|source| BrokerError::Catalog { path, source })?;
        self.topics = content.topics;
        Ok(())
    }
}

fn write_atomically(dir: &Path, path: &Path, content: &Content) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    let beside = path.with_extension("json.new");
    let mut file = File::create(&beside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(partitions: i32) -> ListedTopic {
        ListedTopic { partitions, config: BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]) }
    }

    #[test]
    fn the_list_is_there_after_reading_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::read(dir.path()).unwrap();
        assert!(catalog.topics().is_empty());
        catalog.add("a", listed(1)).unwrap();
        catalog.add("b", listed(3)).unwrap();
        catalog.remove("a").unwrap();
        let again = Catalog::read(dir.path()).unwrap();
        assert_eq!(again.topics(), &BTreeMap::from([("b".to_owned(), listed(3))]));
    }

    #[test]
    fn a_file_half_written_beside_the_list_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        Catalog::read(dir.path()).unwrap().add("a", listed(1)).unwrap();
        fs::write(dir.path().join("topics.json.new"), "{\"version\":1,\"top").unwrap();
        let mut again = Catalog::read(dir.path()).unwrap();
        assert_eq!(again.topics().len(), 1);
        again.add("b", listed(1)).unwrap();
        assert_eq!(Catalog::read(dir.path()).unwrap().topics().len(), 2);
    }

    #[test]
    fn rubbish_and_other_versions_are_refused_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        for text in
            ["", "[]", "{\"version\":2,\"topics\":{}}", "{\"version\":1,\"topics\":{},\"x\":1}", "\u{0}\u{1}"]
        {
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            let error = Catalog::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(FILE_NAME), "{error}");
        }
    }
}
