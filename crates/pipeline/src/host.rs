//! The machine on which Farol runs, as a service like any other: its processor, memory, disks and network, and of Farol's own process
//! processor and memory, as events `metrica_coletada`.
//!
//! A thread of its own measures: asking a disk that hangs (a network disk whose server is gone) hangs with it, and must hold up nobody,
//! not even the end of the program. What it measured goes over a channel of `WAITING` to a task that publishes it in one append. If
//! appends are slower than measuring, measurements are left out and counted in the log of the program.
//!
//! What changes slowly (disks, uptime) is told once in `SLOW`. Loopback and disks beyond `MAX_DISKS` are left out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use farol_event::service::{Metric, ServiceDescription, names};
use farol_event::{Event, EventType};
use sysinfo::{DiskRefreshKind, Disks, Networks, Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::system_events::{Recording, SystemEvents, now};

/// How many measurements wait to be published at most.
const WAITING: usize = 2;
/// How many disks are told of.
const MAX_DISKS: usize = 16;
/// How often what changes slowly is told.
const SLOW: Duration = Duration::from_secs(60);
/// What a machine is called that doesn't say.
const NAMELESS: &str = "localhost";
/// The service that Farol itself is.
const FAROL: &str = "farol";
/// The tag by which rules tell a machine's processor from a program's.
const KIND: (&str, &str) = ("kind", "host");

/// How the machine is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Time between measurements.
    pub interval: Duration,
    /// The service's name; the machine's own without it.
    pub name: Option<String>,
}

/// What was measured of the machine and of Farol's process.
#[derive(Debug, Clone, PartialEq, Default)]
struct Measured {
    cpu_percent: f64,
    memory_used: u64,
    memory_total: u64,
    /// Bytes since the measurement before.
    received: u64,
    sent: u64,
    /// Time since the measurement before.
    elapsed: Duration,
    /// Of Farol's process: processor in percent of all of them, and memory in bytes.
    process: Option<(f64, u64)>,
    slow: Option<Slow>,
}

/// What changes slowly.
#[derive(Debug, Clone, PartialEq, Default)]
struct Slow {
    uptime: Option<Duration>,
    process_uptime: Duration,
    /// By mount point: bytes used, and bytes used and still to be had.
    disks: BTreeMap<String, (u64, u64)>,
}

impl Measured {
    /// The machine's metrics.
    fn of_host(&self) -> Vec<Metric> {
        let mut metrics = vec![
            Metric::new(names::CPU_PERCENT, self.cpu_percent, "%"),
            Metric::new(names::MEMORY_PERCENT, percent(self.memory_used, self.memory_total), "%"),
            Metric::new(names::MEMORY_BYTES, float(self.memory_used), "B"),
            Metric::new(names::NETWORK_RECEIVED, per_second(self.received, self.elapsed), "B/s"),
            Metric::new(names::NETWORK_SENT, per_second(self.sent, self.elapsed), "B/s"),
        ];
        if let Some(slow) = &self.slow {
            let uptime = slow.uptime.map(|uptime| uptime.as_secs_f64());
            metrics.extend(uptime.map(|uptime| Metric::new(names::UPTIME_SECONDS, uptime, "s")));
            let disk = |(mount, (used, total)): (&String, &(u64, u64))| {
                Metric::new(names::DISK_PERCENT, percent(*used, *total), "%").with_tag("mount", mount)
            };
            metrics.extend(slow.disks.iter().map(disk));
        }
        metrics.into_iter().map(|metric| metric.with_tag(KIND.0, KIND.1)).collect()
    }

    /// The metrics of Farol's process.
    fn of_process(&self) -> Vec<Metric> {
        let Some((cpu, memory)) = self.process else { return Vec::new() };
        let mut metrics = vec![
            Metric::new(names::CPU_PERCENT, cpu, "%").with_tag(KIND.0, KIND.1),
            Metric::new(names::MEMORY_BYTES, float(memory), "B"),
        ];
        if let Some(slow) = &self.slow {
            metrics.push(Metric::new(names::UPTIME_SECONDS, slow.process_uptime.as_secs_f64(), "s"));
        }
        metrics
    }
}

#[allow(clippy::cast_precision_loss, reason = "beyond 2^53 bytes nobody minds one more")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// To a hundredth. Nothing of nothing is nothing.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { rounded(100.0 * float(part) / float(whole)) }
}

fn per_second(bytes: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { rounded(float(bytes) / elapsed.as_secs_f64()) }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Bytes used on a disk, and of how many. What is kept for the administrator or by a quota counts as neither, as in `df`: a disk
/// is full when nothing more can be written.
fn space(disk: &rustix::fs::StatVfs) -> (u64, u64) {
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let usable = used.saturating_add(disk.f_bavail);
    (used.saturating_mul(disk.f_frsize), usable.saturating_mul(disk.f_frsize))
}

/// Measures; made and used on one thread.
struct Meter {
    system: System,
    networks: Networks,
    process: Option<Pid>,
    processors: f64,
    began: Instant,
    measured_at: Instant,
    slow_at: Option<Instant>,
}

impl Meter {
    fn new() -> Result<Self, sysinfo::Error> {
        let mut system = System::new()?;
        system.refresh_cpu_usage();
        let processors = float(u64::try_from(system.cpus().len()).unwrap_or(1)).max(1.0);
        let began = Instant::now();
        let mut meter = Self {
            system,
            networks: Networks::new_with_refreshed_list()?,
            process: sysinfo::get_current_pid().ok(),
            processors,
            began,
            measured_at: began,
            slow_at: None,
        };
        meter.measure_process();
        Ok(meter)
    }

    fn measure(&mut self) -> Measured {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.networks.refresh(true);
        let elapsed = self.measured_at.elapsed();
        self.measured_at = Instant::now();
        let outside = self.networks.iter().filter(|(name, _)| *name != "lo");
        let (received, sent) = outside.fold((0_u64, 0_u64), |(received, sent), (_, data)| {
            (received.saturating_add(data.received()), sent.saturating_add(data.transmitted()))
        });
        Measured {
            cpu_percent: rounded(f64::from(self.system.global_cpu_usage())),
            memory_used: self.system.used_memory(),
            memory_total: self.system.total_memory(),
            received,
            sent,
            elapsed,
            process: self.measure_process(),
            slow: self.measure_slow(),
        }
    }

    fn measure_process(&mut self) -> Option<(f64, u64)> {
        let pid = self.process?;
        let what = ProcessRefreshKind::nothing().with_cpu().with_memory();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
        let process = self.system.process(pid)?;
        Some((rounded(f64::from(process.cpu_usage()) / self.processors), process.memory()))
    }

    fn measure_slow(&mut self) -> Option<Slow> {
        if self.slow_at.is_some_and(|at| at.elapsed() < SLOW) {
            return None;
        }
        self.slow_at = Some(Instant::now());
        // Only where they are; how full they are is asked once, below.
        let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing());
        let disks = disks.inspect_err(|error| tracing::debug!(%error, "no disks"));
        let disks = disks
            .iter()
            .flat_map(|disks| disks.iter())
            .filter_map(|disk| {
                let mount = disk.mount_point();
                Some((mount.display().to_string(), space(&rustix::fs::statvfs(mount).ok()?)))
            })
            .filter(|(_, (_, usable))| *usable > 0)
            .take(MAX_DISKS);
        Some(Slow {
            uptime: System::uptime().ok().map(Duration::from_secs),
            process_uptime: self.began.elapsed(),
            disks: disks.collect(),
        })
    }
}

/// Watches the machine until told to stop.
pub async fn watch_host(settings: HostSettings, events: SystemEvents, stop: CancellationToken) {
    let name = settings.name.or_else(|| System::host_name().ok()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| NAMELESS.to_owned());
    events.announce(EventType::SERVICE_STARTED, &name, &description()).await;
    let (sender, mut measurements) = mpsc::channel(WAITING);
    let interval = settings.interval;
    if let Err(error) =
        std::thread::Builder::new().name("host".into()).spawn(move || measure(interval, &sender))
    {
        tracing::error!(%error, "no thread to measure the machine: it is not watched");
        return;
    }
    let recording = Recording::of("measurements of the machine");
    loop {
        let measured: Measured = tokio::select! {
            measured = measurements.recv() => match measured {
                Some(measured) => measured,
                None => return,
            },
            () = stop.cancelled() => return,
        };
        let at = now();
        let event = |service: &str, metric: &Metric| {
            Event::new(Uuid::now_v7(), at, EventType::METRIC_COLLECTED, service, metric)
        };
        let mut told: Vec<Event> = measured.of_host().iter().map(|metric| event(&name, metric)).collect();
        told.extend(measured.of_process().iter().map(|metric| event(FAROL, metric)));
        recording.note(&events.publish_all(&told).await, &name);
    }
}

/// Measures at once and then in this interval, until nobody wants to know any more.
fn measure(interval: Duration, sender: &mpsc::Sender<Measured>) {
    let mut meter = match Meter::new() {
        Ok(meter) => meter,
        Err(error) => {
            tracing::error!(%error, "this machine can't be measured: it is not watched");
            return;
        }
    };
    // A processor's use is a difference: over less than this it says nothing.
    std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL.min(interval));
    let mut left_out = 0_u64;
    loop {
        match sender.try_send(meter.measure()) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return,
            Err(mpsc::error::TrySendError::Full(_)) => {
                left_out += 1;
                tracing::warn!(left_out, "the log is too slow to take what is measured of the machine");
            }
        }
        std::thread::sleep(interval);
    }
}

/// What the machine is, for people.
fn description() -> ServiceDescription {
    ServiceDescription {
        kind: Some("host".to_owned()),
        version: System::long_os_version().or_else(|_| System::kernel_version()).ok(),
        description: Some("The machine on which Farol runs".to_owned()),
        address: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(metrics: &[Metric]) -> Vec<String> {
        let one = |metric: &Metric| {
            let tags: Vec<String> =
                metric.tags.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            let unit = metric.unit.as_deref().unwrap_or_default();
            format!("{} {} {unit}{}", metric.name, metric.value, tags.concat())
        };
        metrics.iter().map(one).collect()
    }

    #[test]
    fn a_disk_is_full_when_nothing_more_can_be_written() {
        let mut disk = rustix::fs::statvfs("/").unwrap();
        (disk.f_frsize, disk.f_blocks, disk.f_bfree, disk.f_bavail) = (4096, 1000, 500, 100);
        assert_eq!(space(&disk), (500 * 4096, 600 * 4096));
        (disk.f_bfree, disk.f_bavail) = (400, 0);
        let (used, usable) = space(&disk);
        assert_eq!(percent(used, usable), 100.0);
    }

    #[test]
    fn what_was_measured_is_told_in_percent_and_per_second() {
        let disks = BTreeMap::from([("/".to_owned(), (1, 4)), ("/var".to_owned(), (0, 7))]);
        let process_uptime = Duration::from_millis(1500);
        let measured = Measured {
            cpu_percent: 12.5,
            memory_used: 1 << 30,
            memory_total: 3 << 30,
            received: 5000,
            sent: 0,
            elapsed: Duration::from_secs(2),
            process: Some((3.25, 1024)),
            slow: Some(Slow { uptime: Some(Duration::from_secs(90)), process_uptime, disks }),
        };
        assert_eq!(
            told(&measured.of_host()),
            [
                "cpu_percent 12.5 % kind=host",
                "memory_percent 33.33 % kind=host",
                "memory_bytes 1073741824 B kind=host",
                "network_received_bytes_per_second 2500 B/s kind=host",
                "network_sent_bytes_per_second 0 B/s kind=host",
                "uptime_seconds 90 s kind=host",
                "disk_percent 25 % kind=host mount=/",
                "disk_percent 0 % kind=host mount=/var",
            ]
        );
        assert_eq!(
            told(&measured.of_process()),
            ["cpu_percent 3.25 % kind=host", "memory_bytes 1024 B", "uptime_seconds 1.5 s"]
        );
    }

    #[test]
    fn nothing_measured_is_told_as_zero_and_never_as_no_number() {
        let nothing = Measured::default();
        assert!(nothing.of_host().iter().all(|metric| metric.value == 0.0));
        assert!(nothing.of_process().is_empty());
    }

    #[test]
    fn this_machine_can_be_measured() {
        let mut meter = Meter::new().unwrap();
        let first = meter.measure();
        assert!(first.memory_total > 0 && first.memory_used <= first.memory_total);
        assert!((0.0..=100.0).contains(&first.cpu_percent));
        assert!(first.process.is_some_and(|(_, memory)| memory > 0));
        assert!(first.slow.is_some_and(|slow| slow.uptime > Some(Duration::ZERO)));
        assert_eq!(meter.measure().slow, None, "what changes slowly was told just now");
    }
}
