//! The policies of a program, by kind and name: for pages, metrics and whoever wants to hear of all state changes.
//!
//! A registry is an object that is passed around; there is no global one. Policies work the same whether they are in a
//! registry or not. A registry keeps the policies in it alive.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::broadcast;

use crate::changes::{Changes, ListenerId, StateChange, TooManyListeners};
use crate::snapshot::{PolicyKind, PolicySnapshot};

/// Policies that a registry takes if nobody says otherwise.
pub const DEFAULT_CAPACITY: usize = 1024;

/// What a registry needs of a policy.
pub trait Policy: Send + Sync + 'static {
    /// What sort of policy.
    fn kind(&self) -> PolicyKind;

    /// Its name.
    fn name(&self) -> &Arc<str>;

    /// The policy as it stands. Answers from memory.
    fn snapshot(&self) -> PolicySnapshot;

    /// Its state changes; `None` for policies without state.
    fn changes(&self) -> Option<&Changes> {
        None
    }
}

/// Why a policy was not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// There is a policy of this kind and name.
    NameTaken {
        /// What sort of policy.
        kind: PolicyKind,
        /// The name.
        name: Arc<str>,
    },
    /// The registry has as many policies as it takes.
    Full {
        /// How many.
        capacity: usize,
    },
    /// The policy has as many listeners as it takes, so its changes could not be passed on.
    TooManyListeners(TooManyListeners),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken { kind, name } => write!(f, "there is a {kind} named {name} already"),
            Self::Full { capacity } => write!(f, "the registry takes {capacity} policies and has them"),
            Self::TooManyListeners(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RegisterError {}

struct Registered {
    policy: Arc<dyn Policy>,
    /// What passes the policy's changes on to the registry.
    forwarder: Option<ListenerId>,
}

type Policies = BTreeMap<(PolicyKind, Arc<str>), Registered>;

/// Policies by kind and name. Clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    policies: Arc<RwLock<Policies>>,
    changes: Arc<Changes>,
    capacity: usize,
}

impl Default for Registry {
    fn default() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }
}

impl Registry {
    /// An empty registry that takes [`DEFAULT_CAPACITY`] policies.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty registry that takes this many policies.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { policies: Arc::default(), changes: Arc::default(), capacity }
    }

    /// Takes a policy in. Its state changes from now on are also the registry's.
    pub fn register(&self, policy: impl Policy) -> Result<(), RegisterError> {
        let policy: Arc<dyn Policy> = Arc::new(policy);
        let (kind, name) = (policy.kind(), policy.name().clone());
        let mut policies = self.policies.write();
        if policies.contains_key(&(kind, name.clone())) {
            return Err(RegisterError::NameTaken { kind, name });
        }
        if policies.len() >= self.capacity {
            return Err(RegisterError::Full { capacity: self.capacity });
        }
        // Weak: a policy that outlives the registry must not keep it alive.
        let registry = Arc::downgrade(&self.changes);
        let forward = move |change: &StateChange| {
            if let Some(registry) = registry.upgrade() {
                registry.record(change.clone());
            }
        };
        let forwarder = policy
            .changes()
            .map(|changes| changes.listen(forward))
            .transpose()
            .map_err(RegisterError::TooManyListeners)?;
        policies.insert((kind, name), Registered { policy, forwarder });
        Ok(())
    }

    /// Lets a policy go; false if there was none. Whoever holds it can go on using it.
    pub fn remove(&self, kind: PolicyKind, name: &str) -> bool {
        let removed = self.policies.write().remove(&(kind, Arc::from(name)));
        let Some(Registered { policy, forwarder }) = removed else { return false };
        if let (Some(changes), Some(forwarder)) = (policy.changes(), forwarder) {
            changes.unlisten(forwarder);
        }
        true
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.policies.read().len()
    }

    /// Whether there is no policy.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All policies as they stand, by kind and name.
    pub fn snapshots(&self) -> Vec<PolicySnapshot> {
        // Copied, so that a snapshot that takes its time holds nobody up.
        let policies: Vec<Arc<dyn Policy>> =
            self.policies.read().values().map(|registered| registered.policy.clone()).collect();
        policies.iter().map(|policy| policy.snapshot()).collect()
    }

    /// One policy as it stands.
    pub fn snapshot(&self, kind: PolicyKind, name: &str) -> Option<PolicySnapshot> {
        let found = self.policies.read().get(&(kind, Arc::from(name))).map(|found| found.policy.clone());
        found.map(|policy| policy.snapshot())
    }

    /// The state changes of all policies: the last ones, and new ones by listener or subscription.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// A channel that gets each state change of any policy from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<StateChange> {
        self.changes.subscribe()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("policies", &self.policies.read().keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::tests::change;

    struct Fixed {
        name: Arc<str>,
        changes: Arc<Changes>,
    }

    impl Policy for Fixed {
        fn kind(&self) -> PolicyKind {
            PolicyKind::CircuitBreaker
        }

        fn name(&self) -> &Arc<str> {
            &self.name
        }

        fn snapshot(&self) -> PolicySnapshot {
            PolicySnapshot::new(self.kind(), self.name.clone())
        }

        fn changes(&self) -> Option<&Changes> {
            Some(&self.changes)
        }
    }

    fn policy(name: &str) -> Fixed {
        Fixed { name: name.into(), changes: Arc::default() }
    }

    #[test]
    fn names_are_unique_and_the_registry_is_bounded() {
        let registry = Registry::with_capacity(2);
        registry.register(policy("a")).unwrap();
        let taken = RegisterError::NameTaken { kind: PolicyKind::CircuitBreaker, name: "a".into() };
        assert_eq!(registry.register(policy("a")), Err(taken));
        registry.register(policy("b")).unwrap();
        assert_eq!(registry.register(policy("c")), Err(RegisterError::Full { capacity: 2 }));
        assert!(registry.remove(PolicyKind::CircuitBreaker, "a"));
        registry.register(policy("c")).unwrap();
        let names: Vec<_> = registry.snapshots().iter().map(|snapshot| snapshot.name.to_string()).collect();
        assert_eq!(names, ["b", "c"]);
    }

    #[test]
    fn one_subscription_hears_all_policies() {
        let registry = Registry::new();
        let (a, b) = (policy("a"), policy("b"));
        let (of_a, of_b) = (a.changes.clone(), b.changes.clone());
        registry.register(a).unwrap();
        registry.register(b).unwrap();
        let mut subscription = registry.subscribe();
        of_b.record(change("b", 1));
        of_a.record(change("a", 1));
        assert_eq!(subscription.try_recv().unwrap().name.as_ref(), "b");
        assert_eq!(subscription.try_recv().unwrap().name.as_ref(), "a");
        assert_eq!(registry.changes().history().len(), 2);
    }

    #[test]
    fn a_policy_that_was_removed_is_not_heard_of_and_one_that_came_back_is_heard_once() {
        let registry = Registry::new();
        let a = policy("a");
        let changes = a.changes.clone();
        registry.register(a).unwrap();
        registry.remove(PolicyKind::CircuitBreaker, "a");
        changes.record(change("a", 1));
        assert_eq!(registry.changes().history().len(), 0);
        registry.register(Fixed { name: "a".into(), changes: changes.clone() }).unwrap();
        changes.record(change("a", 2));
        assert_eq!(registry.changes().history().len(), 1);
    }
}
