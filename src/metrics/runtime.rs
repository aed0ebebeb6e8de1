//! Metrics of the asynchronous runtime: those that Tokio has without `tokio_unstable`.
//! `docs/decisions/0051-the-runtime-is-read-directly.md` says why no more.

use actors::metrics::MetricKind;
use tokio::runtime::{Handle, RuntimeMetrics};

use super::sink::Sink;

/// The runtime's current tasks.
pub(super) struct Tasks {
    /// Those that have not ended.
    pub(super) alive: usize,
    /// Those that wait for any worker.
    pub(super) waiting: usize,
}

/// The tasks of the runtime that this runs on.
pub(super) fn tasks() -> Tasks {
    let runtime = Handle::current().metrics();
    Tasks { alive: runtime.num_alive_tasks(), waiting: runtime.global_queue_depth() }
}

/// Writes the runtime's counters; it always counts, so this costs only the read.
pub(super) fn write(page: &mut impl Sink) {
    let runtime = Handle::current().metrics();
    let tasks = tasks();
    let workers = runtime.num_workers();
    // The counter grows by one with each park and unpark: it is odd while the worker is parked.
    let is_parked = |worker: &usize| runtime.worker_park_unpark_count(*worker) % 2 == 1;
    let gauges = [
        ("tokio_workers", "Worker threads.", workers),
        ("tokio_parked_workers", "Worker threads without a task to run.", (0..workers).filter(is_parked).count()),
        ("tokio_alive_tasks", "Tasks that have not ended.", tasks.alive),
        ("tokio_global_queue_depth", "Tasks waiting for any worker.", tasks.waiting),
    ];
    for (name, help, value) in gauges {
        page.metric(name, help, MetricKind::Gauge);
        page.value(&[], value);
    }
    page.metric("tokio_worker_busy_seconds_total", "Time that a worker spent running tasks.", MetricKind::Counter);
    each(page, &runtime, |worker| runtime.worker_total_busy_duration(worker).as_secs_f64());
    page.metric("tokio_worker_parks_total", "How often a worker became idle.", MetricKind::Counter);
    each(page, &runtime, |worker| runtime.worker_park_count(worker));
}

/// A value for each worker: as many as processors, or as set by `TOKIO_WORKER_THREADS`.
fn each<N: Into<super::sink::Number>>(page: &mut impl Sink, runtime: &RuntimeMetrics, of: impl Fn(usize) -> N) {
    for worker in 0..runtime.num_workers() {
        page.value(&[("worker", &worker.to_string())], of(worker));
    }
}
