//! The resources of the process, under the names that Prometheus clients share. Read from `/proc`, so on Linux only.

use std::fs;

use actors::metrics::MetricKind;

use super::sink::Sink;

/// The unit of the times in `/proc/self/stat`: Linux shows hundredths of a second to programs, whatever it counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes the readable values; without any, it writes nothing.
pub(super) fn write(page: &mut impl Sink) {
    let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) else { return };
    page.metric("process_cpu_seconds_total", "CPU time used, in user and system mode.", MetricKind::Counter);
    page.value(&[], stat.cpu_ticks as f64 / TICKS_PER_SECOND);
    // `stat` counts it in pages, whose size depends on the kernel.
    let resident = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes);
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", resident),
        ("process_virtual_memory_bytes", "Virtual memory.", Some(stat.virtual_bytes)),
        ("process_threads", "Threads.", Some(stat.threads)),
    ];
    for (name, help, value) in gauges.into_iter().filter_map(|(name, help, value)| Some((name, help, value?))) {
        page.metric(name, help, MetricKind::Gauge);
        page.value(&[], value);
    }
    if let Some(started) = started(&stat) {
        page.metric(
            "process_start_time_seconds",
            "Start time of the process, in seconds since 1970.",
            MetricKind::Gauge,
        );
        page.value(&[], started);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        page.metric("process_open_fds", "Open file descriptors.", MetricKind::Gauge);
        // One of them is this read.
        page.value(&[], open.count().saturating_sub(1));
    }
    if let Some(most) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(open_files) {
        page.metric("process_max_fds", "Limit of open file descriptors.", MetricKind::Gauge);
        page.value(&[], most);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
}

impl Stat {
    /// The second field is the program's name in parentheses, which may contain anything; the third follows the last
    /// parenthesis.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
        })
    }
}

/// The process's start in seconds since 1970: the machine's start plus the time until the process's.
fn started(stat: &Stat) -> Option<f64> {
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat.start_ticks as f64 / TICKS_PER_SECOND)
}

/// Linux writes `kB` for 1,024 bytes.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

fn open_files(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 5 0 1234 900000 321 18446744073709551615";
        let stat = Stat { cpu_ticks: 300, threads: 5, start_ticks: 1234, virtual_bytes: 900_000 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (a)"), None);
    }

    #[test]
    fn resident_memory_does_not_depend_on_the_size_of_a_page() {
        assert_eq!(resident_bytes("VmHWM:\t   90 kB\nVmRSS:\t     64 kB\nRssAnon:\t 1 kB\n"), Some(65_536));
        assert_eq!(resident_bytes("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn the_limit_is_the_soft_one() {
        assert_eq!(
            open_files("Max cpu time  unlimited\nMax open files            1024      4096      files\n"),
            Some(1024)
        );
        assert_eq!(open_files("Max open files            unlimited\n"), None);
    }
}
