//! The rules in force: read from files, replaced without a restart, never replaced by a bad file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use farol_detect::{RuleProblems, RuleSet, defaults};
use farol_event::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

/// The largest rules file that is read, in bytes.
pub const MAX_RULES_BYTES: u64 = 4 * 1024 * 1024;

/// The rules at one moment. A new version is a new value: whoever holds this one keeps evaluating the same rules.
#[derive(Debug)]
pub struct RulesInForce {
    /// Rises by one with every change.
    pub version: u64,
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// When they were taken into force.
    pub loaded_at: Timestamp,
    /// A short text that differs when any definition differs.
    pub fingerprint: String,
}

impl RulesInForce {
    fn new(version: u64, rules: RuleSet, loaded_at: Timestamp) -> Self {
        Self { version, fingerprint: fingerprint(&rules), rules: Arc::new(rules), loaded_at }
    }
}

/// Where rules come from.
#[derive(Debug, Clone, Default)]
pub struct RuleSources {
    /// Whether the built-in rules for the known sensor types apply. A rule of the same name in a file replaces one.
    pub defaults: bool,
    /// Files of rules, in order.
    pub files: Vec<PathBuf>,
}

/// Why rules could not be loaded: every problem, each with its file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct RulesError {
    /// The problems, one sentence each.
    pub problems: Vec<String>,
}

/// What changed when rules were loaded again. Rule names.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RulesChange {
    /// Files that were read.
    pub files: Vec<String>,
    /// How many rules are in force now.
    pub rules: usize,
    /// Rules that are new.
    pub added: Vec<String>,
    /// Rules that are gone.
    pub removed: Vec<String>,
    /// Rules whose definition is another.
    pub changed: Vec<String>,
    /// Why the old rules stay in force, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The rules in force, shared by workers and the HTTP face.
pub struct RulesHandle {
    sources: RuleSources,
    current: ArcSwap<RulesInForce>,
    problem: Mutex<Option<String>>,
    /// The version in force, for whoever waits for another one.
    version: watch::Sender<u64>,
}

impl RulesHandle {
    /// Loads the rules for the first time.
    ///
    /// # Errors
    /// Every problem in every file; there are no older rules to stay in force.
    pub fn load(sources: RuleSources, now: Timestamp) -> Result<Self, RulesError> {
        let rules = read(&sources)?;
        Ok(Self { sources, ..Self::of(rules, now) })
    }

    /// Rules that come from elsewhere; see [`RulesHandle::replace`].
    pub fn of(rules: RuleSet, now: Timestamp) -> Self {
        Self {
            sources: RuleSources::default(),
            current: ArcSwap::from_pointee(RulesInForce::new(1, rules, now)),
            problem: Mutex::new(None),
            version: watch::Sender::new(1),
        }
    }

    /// Puts other rules in force. False if they are the same.
    pub fn replace(&self, rules: RuleSet, now: Timestamp) -> bool {
        let _one_at_a_time = self.problem.lock();
        let current = self.current();
        if fingerprint(&rules) == current.fingerprint {
            return false;
        }
        self.put_in_force(&current, rules, now);
        true
    }

    /// Tells of every version that is put in force from now on.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn put_in_force(&self, current: &RulesInForce, rules: RuleSet, now: Timestamp) {
        let version = current.version + 1;
        self.current.store(Arc::new(RulesInForce::new(version, rules, now)));
        self.version.send_replace(version);
    }

    /// The rules in force.
    pub fn current(&self) -> Arc<RulesInForce> {
        self.current.load_full()
    }

    /// The files that the rules come from.
    pub fn files(&self) -> &[PathBuf] {
        &self.sources.files
    }

    /// Why the newest attempt to load rules was refused, if it was.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Reads the files again. Rules that load replace the ones in force; a file that doesn't load changes nothing. Gives what changed,
    /// or nothing if everything is as it was.
    pub fn reload(&self, now: Timestamp) -> Option<RulesChange> {
        // One reload at a time, so that versions only rise.
        let mut problem = self.problem.lock();
        let files = self.sources.files.iter().map(|f| f.display().to_string()).collect();
        let current = self.current();
        match read(&self.sources) {
            Ok(rules) => {
                let had_problem = problem.take().is_some();
                let changes = rules.changes_since(&current.rules);
                if changes.is_empty() && !had_problem {
                    return None;
                }
                let change = RulesChange {
                    files,
                    rules: rules.len(),
                    added: changes.added.clone(),
                    removed: changes.removed.clone(),
                    changed: changes.changed.clone(),
                    problem: None,
                };
                if !changes.is_empty() {
                    self.put_in_force(&current, rules, now);
                }
                Some(change)
            }
            Err(error) => {
                let text = error.to_string();
                if problem.as_deref() == Some(text.as_str()) {
                    return None;
                }
                *problem = Some(text.clone());
                let rules = current.rules.len();
                Some(RulesChange { files, rules, problem: Some(text), ..RulesChange::default() })
            }
        }
    }
}

/// Reads and checks rule files on their own, without the built-in rules: what `farol rules check` does.
///
/// # Errors
/// Every problem in every file.
pub fn read_files(files: &[PathBuf]) -> Result<RuleSet, RulesError> {
    let (mut texts, mut problems) = (Vec::new(), Vec::new());
    for path in files {
        match read_text(path) {
            Ok(text) => texts.push((path.display().to_string(), text)),
            Err(problem) => problems.push(format!("{}: {problem}", path.display())),
        }
    }
    match RuleSet::parse(texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))) {
        Ok(rules) if problems.is_empty() => Ok(rules),
        Ok(_) => Err(RulesError { problems }),
        Err(RuleProblems(found)) => {
            problems.extend(found.iter().map(ToString::to_string));
            Err(RulesError { problems })
        }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| format!("can't be read: {e}"))?.len();
    if size > MAX_RULES_BYTES {
        return Err(format!("has {size} bytes; at most {MAX_RULES_BYTES} are read"));
    }
    std::fs::read_to_string(path).map_err(|e| format!("can't be read: {e}"))
}

fn read(sources: &RuleSources) -> Result<RuleSet, RulesError> {
    let own = read_files(&sources.files)?;
    if !sources.defaults {
        return Ok(own);
    }
    let built_in = defaults::definitions().into_iter().filter(|rule| own.get(&rule.name).is_none());
    let definitions = own.rules().iter().map(|rule| rule.definition().clone()).chain(built_in);
    RuleSet::from_definitions(definitions).map_err(|RuleProblems(found)| RulesError {
        problems: found.iter().map(ToString::to_string).collect(),
    })
}

/// One text for all definitions: another text means other rules.
fn fingerprint(rules: &RuleSet) -> String {
    let all: Vec<u8> = rules.rules().iter().flat_map(|rule| *rule.fingerprint().0.as_bytes()).collect();
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &all).to_string()
}
