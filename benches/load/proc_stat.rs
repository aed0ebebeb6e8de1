//! CPU time, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::Error;

/// Length of the kernel's tick in these files; the same on every Linux.
const TICK: Duration = Duration::from_millis(10);
/// The flag of a process that marks a kernel thread.
const OF_KERNEL: u64 = 0x0020_0000;

/// User and system time of a process with all of its threads.
pub(crate) fn process(pid: u32) -> Result<Duration, Error> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    of_process(&text).ok_or_else(|| format!("/proc/{pid}/stat cannot be read").into())
}

/// Every running process, with its line. The parent's line counts a process that has ended meanwhile.
fn all() -> Result<impl Iterator<Item = (u32, String)>, Error> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Some((pid, fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
    }))
}

/// The same for a process with its children, including those that have ended.
pub(crate) fn family(pid: u32) -> Result<Duration, Error> {
    let mut sum = Duration::ZERO;
    for (member, text) in all()? {
        if member == pid {
            sum += of_process(&text).unwrap_or_default() + of_ended_children(&text).unwrap_or_default();
        } else if parent(&text) == Some(pid) {
            sum += of_process(&text).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// CPU time of each of the kernel's own threads, which write back file content, among other things. Where they cannot
/// be seen, as in a container, there are none.
pub(crate) struct Kernel(BTreeMap<u32, Duration>);

impl Kernel {
    /// Their CPU time now.
    pub(crate) fn now() -> Result<Self, Error> {
        let threads = all()?.filter(|(_, text)| is_of_kernel(text));
        Ok(Self(threads.filter_map(|(pid, text)| Some((pid, of_process(&text)?))).collect()))
    }

    /// The CPU time that they took since. Such threads come and go: that of threads that have ended meanwhile is
    /// missing.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let took = |(pid, now): (&u32, &Duration)| now.saturating_sub(before.0.get(pid).copied().unwrap_or_default());
        self.0.iter().map(took).sum()
    }
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64, Error> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<u64>().ok());
    kibibytes.map(|kibibytes| kibibytes * 1024).ok_or_else(|| format!("/proc/{pid}/status names no memory").into())
}

/// Time that the machine's cores have spent on any work.
pub(crate) fn machine() -> Result<Duration, Error> {
    let text = fs::read_to_string("/proc/stat")?;
    of_machine(&text).ok_or_else(|| "/proc/stat cannot be read".into())
}

/// The fields after the command, which is in parentheses and may contain anything; the first of them is field 3.
fn fields(text: &str) -> Option<impl Iterator<Item = &str>> {
    Some(text.rsplit_once(')')?.1.split_ascii_whitespace())
}

/// Fields 14 and 15.
fn of_process(text: &str) -> Option<Duration> {
    two_times(text, 11)
}

/// Fields 16 and 17.
fn of_ended_children(text: &str) -> Option<Duration> {
    two_times(text, 13)
}

/// Field 9.
fn is_of_kernel(text: &str) -> bool {
    let flags = fields(text).and_then(|mut fields| fields.nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & OF_KERNEL != 0)
}

/// Field 4.
fn parent(text: &str) -> Option<u32> {
    fields(text)?.nth(1)?.parse().ok()
}

fn two_times(text: &str, behind: usize) -> Option<Duration> {
    let mut fields = fields(text)?.skip(behind);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.saturating_add(system))
}

fn of_machine(text: &str) -> Option<Duration> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; the fields after these are part of them.
    let busy = ticks.get(..8)?.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, ticks)| ticks);
    Some(Duration::from_millis(10 * busy.sum::<u64>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_command_name() {
        let text = "42 (a) (b 1) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 3 0 99";
        assert_eq!(of_process(text), Some(Duration::from_secs(2)));
        assert_eq!(of_ended_children(text), Some(Duration::from_millis(150)));
        assert_eq!(parent(text), Some(1));
        assert!(!is_of_kernel(text));
        assert!(is_of_kernel("7 (kworker/u8:0-flush) I 2 0 0 0 -1 69238880 0 0 0 0 0 9 0 0 20 0 1 0 1"));
        assert_eq!(of_machine("cpu  100 10 40 900 80 20 20 10 5 5\ncpu0 1"), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_thread_of_the_kernel_that_came_or_went_takes_nothing_from_the_others() {
        let kernel = |threads: &[(u32, u64)]| {
            Kernel(threads.iter().map(|(pid, millis)| (*pid, Duration::from_millis(*millis))).collect())
        };
        let before = kernel(&[(7, 90_000), (8, 100)]);
        assert_eq!(kernel(&[(8, 150), (9, 20)]).since(&before), Duration::from_millis(70));
    }
}
