//! How many connections the limit of open file descriptors leaves room for.
//!
//! A store that cannot open a file fails for good, so clients, which need no key to connect, must never take the last
//! descriptor.

/// Of all descriptors, connections get one in this many; the store's tables, files and outgoing calls have the rest.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;
/// Descriptors that those others take however few connections there are: tables, turns, deliveries and uploads.
const RESERVED_DESCRIPTORS: u64 = 2_048;

/// The number of connections to accept of those that are configured: all of them, or half of the descriptors if the
/// system allows no more even when asked.
pub(crate) fn connections(configured: usize) -> usize {
    let wanted = (configured as u64).saturating_mul(DESCRIPTORS_PER_CONNECTION).saturating_add(RESERVED_DESCRIPTORS);
    let Some(limit) = raised_limit(wanted) else { return configured };
    let room = room(configured, limit);
    if room < configured {
        tracing::warn!(
            max_connections = configured,
            accepted = room,
            open_files = limit,
            "the limit of open files leaves room for fewer connections than configured; raise it (LimitNOFILE, ulimit -n)"
        );
    }
    room
}

/// How many of the configured connections have room within this limit of descriptors.
fn room(configured: usize, limit: u64) -> usize {
    let share = usize::try_from(limit / DESCRIPTORS_PER_CONNECTION).unwrap_or(usize::MAX);
    share.clamp(1, configured.max(1))
}

/// The limit of the process, which is first raised to what is wanted if the system allows that. `None`: there is none.
#[cfg(unix)]
fn raised_limit(wanted: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current?;
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if raised <= current {
        return Some(current);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => Some(raised),
        Err(error) => {
            tracing::debug!(%error, raised, "cannot raise the limit of open files");
            Some(current)
        }
    }
}

#[cfg(not(unix))]
fn raised_limit(_wanted: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_at_most_half_of_the_descriptors() {
        assert_eq!(room(10_000, 20_000), 10_000);
        assert_eq!(room(10_000, 1_024), 512);
        assert_eq!(room(9, u64::MAX), 9);
    }

    #[test]
    fn there_is_room_for_one_connection_whatever_the_limit() {
        assert_eq!(room(10_000, 0), 1);
    }
}
