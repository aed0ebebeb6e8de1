//! What the real server reports about its store: how much became durable, and in how many batches.

use crate::Error;
use crate::connection::Connection;
use crate::server::Server;

/// The metric's sum is the commits, its count the batches.
const METRIC: &str = "tertulia_store_batch_commits";

/// Commits, and the batches in which they became durable.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stored {
    pub(crate) commits: f64,
    pub(crate) batches: f64,
}

impl Stored {
    /// The numbers since the server's start; zero where the server does not report them.
    pub(crate) async fn now(server: &Server) -> Result<Self, Error> {
        let Some(metrics) = server.metrics else { return Ok(Self::default()) };
        Ok(Self::read(Connection::new(metrics).text("/metrics").await?.as_ref()))
    }

    /// The numbers since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { commits: self.commits - before.commits, batches: self.batches - before.batches }
    }

    fn read(metrics: &str) -> Self {
        let of = |end: &str| {
            let lines =
                metrics.lines().filter_map(|line| line.strip_prefix(METRIC)?.strip_prefix(end)?.split_once(' '));
            lines.filter_map(|(_, value)| value.trim().parse::<f64>().ok()).sum()
        };
        Self { commits: of("_sum"), batches: of("_count") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_the_metrics_sum_and_batches_its_count() {
        let metrics = "# TYPE tertulia_store_batch_commits histogram\n\
            tertulia_store_batch_commits_bucket{le=\"1\"} 7\ntertulia_store_batch_commits_sum 120\n\
            tertulia_store_batch_commits_count 8\ntertulia_commit_seconds_sum{outcome=\"committed\"} 3.5\n";
        assert_eq!(Stored::read(metrics), Stored { commits: 120.0, batches: 8.0 });
    }
}
