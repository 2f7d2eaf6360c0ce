//! The rules in force: checked, with unique names, in the order of their files.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::rule::{Rule, RuleDefinition, RuleFingerprint, RuleProblem, RuleProblems};
use crate::selector::SeriesLabels;

/// How many rules may be in force at a time.
pub const MAX_RULES: usize = 1000;

/// The rules in force. Cheap to clone parts of: rules are shared.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    rules: Vec<Arc<Rule>>,
}

/// What became of the rules from one set to the next, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleChanges {
    /// Names that are new.
    pub added: Vec<String>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// Names whose definition differs.
    pub changed: Vec<String>,
}

impl RuleChanges {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl RuleSet {
    /// Checks definitions that don't come from a file.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, with the rule's name.
    pub fn from_definitions(
        definitions: impl IntoIterator<Item = RuleDefinition>,
    ) -> Result<Self, RuleProblems> {
        let (mut rules, mut names, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for definition in definitions {
            let name = definition.name.clone();
            names.push((Origin::default(), name.clone()));
            match Rule::new(definition) {
                Ok(rule) => rules.push(rule),
                Err(mistakes) => problems.extend(mistakes.into_iter().map(|mistake| RuleProblem {
                    file: None,
                    line: None,
                    rule: Some(name.clone()),
                    problem: mistake.to_string(),
                })),
            }
        }
        Self::assemble(rules, &names, problems)
    }

    /// Puts checked rules together, unless there are problems already or the names clash. `names` are those of all rules,
    /// also of rules that have problems of their own.
    pub(crate) fn assemble(
        rules: Vec<Rule>,
        names: &[(Origin, String)],
        mut problems: Vec<RuleProblem>,
    ) -> Result<Self, RuleProblems> {
        let mut first: BTreeMap<&str, &Origin> = BTreeMap::new();
        for (origin, name) in names.iter().filter(|(_, name)| !name.is_empty()) {
            if let Some(earlier) = first.get(name.as_str()) {
                let problem = format!("this name is taken{earlier}: names must be unique");
                problems.push(origin.problem(Some(name), problem));
            } else {
                first.insert(name, origin);
            }
        }
        if rules.len() > MAX_RULES {
            problems.push(
                Origin::default()
                    .problem(None, format!("{} rules; at most {MAX_RULES} are accepted", rules.len())),
            );
        }
        if problems.is_empty() {
            Ok(Self { rules: rules.into_iter().map(Arc::new).collect() })
        } else {
            Err(RuleProblems(problems))
        }
    }

    /// All rules, also those that are not enabled, in order.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// How many rules there are, enabled or not.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| rule.name() == name)
    }

    /// The enabled rules that are about this series, in order.
    pub fn selecting<'a>(&'a self, labels: &'a SeriesLabels<'a>) -> impl Iterator<Item = &'a Arc<Rule>> {
        self.rules.iter().filter(|rule| rule.enabled() && rule.selects(labels))
    }

    /// What changed since `before`. Names are in order.
    pub fn changes_since(&self, before: &RuleSet) -> RuleChanges {
        let index = |set: &RuleSet| -> BTreeMap<String, RuleFingerprint> {
            set.rules.iter().map(|rule| (rule.name().to_owned(), rule.fingerprint())).collect()
        };
        let (old, new) = (index(before), index(self));
        let mut changes = RuleChanges::default();
        for (name, fingerprint) in &new {
            match old.get(name) {
                None => changes.added.push(name.clone()),
                Some(earlier) if earlier != fingerprint => changes.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        changes.removed = old.into_keys().filter(|name| !new.contains_key(name)).collect();
        changes
    }
}

/// Where a rule was written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub file: Option<String>,
    pub line: Option<usize>,
}

impl Origin {
    pub fn problem(&self, rule: Option<&str>, problem: String) -> RuleProblem {
        RuleProblem { file: self.file.clone(), line: self.line, rule: rule.map(str::to_owned), problem }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " by {file}:{line}"),
            _ => write!(f, " by an earlier rule"),
        }
    }
}
