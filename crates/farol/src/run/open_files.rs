//! Open files: as many as the system lets this process have, and a warning when that is less than the settings allow.
//!
//! Systems set the soft limit low (1024, often) for programs that use `select`; whoever doesn't may raise it to the hard one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Settings;
use crate::settings::value::ListenOrOff;

/// Files beside connections: segments and indexes of partitions, the journal, views, the runtime's own.
const OTHER_FILES: u64 = 1024;

/// Raises the soft limit to the hard one, and says if it is too low all the same.
pub fn raise_limit(settings: &Settings) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files could not be raised");
            limit.current
        }
    };
    let needed = needed(settings);
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed) {
        tracing::warn!(
            allowed,
            needed,
            "connections and files may need more open files than this process may have; raise the hard limit (`ulimit -Hn`, \
             systemd's LimitNOFILE) or lower kafka.connections and http.connections"
        );
    }
}

/// Open files with as many connections as the settings allow.
fn needed(settings: &Settings) -> u64 {
    let kafka = match settings.kafka.listen {
        ListenOrOff::On(_) => u64::from(settings.kafka.connections.get()),
        ListenOrOff::Off => 0,
    };
    u64::from(settings.http.connections.get()) + kafka + OTHER_FILES
}
