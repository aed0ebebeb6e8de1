//! CPU time, as the kernel counts it.

use std::fs;
use std::time::Duration;

use crate::Error;

/// Length of the kernel's tick in these files; it is the same on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process with all of its threads.
pub(crate) fn process(pid: u32) -> Result<Duration, Error> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    of_process(&text).ok_or_else(|| format!("/proc/{pid}/stat cannot be read").into())
}

/// Time that the machine's cores have spent on anything.
pub(crate) fn machine() -> Result<Duration, Error> {
    let text = fs::read_to_string("/proc/stat")?;
    of_machine(&text).ok_or_else(|| "/proc/stat cannot be read".into())
}

fn of_process(text: &str) -> Option<Duration> {
    // The command stands in parentheses and may contain anything; utime and stime are fields 14 and 15, and the first
    // one after the command is field 3.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.saturating_add(system))
}

fn of_machine(text: &str) -> Option<Duration> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of these.
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
        assert_eq!(of_machine("cpu  100 10 40 900 80 20 20 10 5 5\ncpu0 1"), Some(Duration::from_secs(2)));
    }
}
