//! What this process uses, as the operating system tells. Linux only; elsewhere nothing is known.

use std::fs;

use serde::Serialize;
use utoipa::ToSchema;

/// Memory and processor time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
pub struct ProcessUsage {
    /// Resident memory, in bytes.
    #[schema(minimum = 0)]
    pub memory_bytes: Option<u64>,
    /// User and system time since the start, in seconds.
    #[schema(minimum = 0)]
    pub cpu_s: Option<f64>,
}

/// Linux counts processor time for `/proc` in hundredths of a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// What this process uses now.
pub fn usage() -> ProcessUsage {
    ProcessUsage {
        memory_bytes: fs::read_to_string("/proc/self/status").ok().and_then(|status| resident_bytes(&status)),
        cpu_s: fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat)),
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Fields 14 and 15. The second field, the name in parentheses, may hold spaces and parentheses of its own.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procs_texts_are_understood() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds(""), None);
    }
}
