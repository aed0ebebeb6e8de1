//! How the asynchronous runtime is doing, as it says itself.

use actors::metrics::MetricKind;
use tokio::runtime::Handle;

use super::sink::Sink;

/// Writes what the runtime counts; it counts always, so this costs nothing but the look.
pub(super) fn write(page: &mut impl Sink) {
    let runtime = Handle::current().metrics();
    let gauges = [
        ("tokio_workers", "Threads that run tasks.", runtime.num_workers()),
        ("tokio_alive_tasks", "Tasks that have not ended.", runtime.num_alive_tasks()),
        ("tokio_global_queue_depth", "Tasks that wait for any worker.", runtime.global_queue_depth()),
    ];
    for (name, help, value) in gauges {
        page.metric(name, help, MetricKind::Gauge);
        page.value(&[], value);
    }
    page.metric("tokio_worker_busy_seconds_total", "Time that workers ran tasks.", MetricKind::Counter);
    let busy: f64 =
        (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker).as_secs_f64()).sum();
    page.value(&[], busy);
    page.metric("tokio_worker_parks_total", "Times that a worker had nothing to do.", MetricKind::Counter);
    page.value(&[], (0..runtime.num_workers()).map(|worker| runtime.worker_park_count(worker)).sum::<u64>());
}
