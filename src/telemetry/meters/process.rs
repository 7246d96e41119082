//! Metrics of the process and its runtime, and the version.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use procfs::process::{LimitValue, Process};
use tokio::runtime::Handle;

use super::snapshot::GaugeSnapshot;
use super::table::Instrument as I;

static CONFIG_STALE: AtomicBool = AtomicBool::new(false);

/// The runtime, for reads from a thread outside it, such as that of a collector.
static RUNTIME: OnceLock<Handle> = OnceLock::new();

/// Stores the runtime of the current thread.
pub(super) fn remember_runtime() {
    if let Ok(runtime) = Handle::try_current() {
        RUNTIME.set(runtime).ok();
    }
}

/// Records whether the newest configuration is active.
pub(super) fn reloaded(active: bool) {
    CONFIG_STALE.store(!active, Ordering::Relaxed);
}

/// Writes all values. Values that this system does not provide are omitted.
pub(super) fn read(out: &mut GaugeSnapshot) {
    out.put_for(I::BuildInfo, env!("CARGO_PKG_VERSION"), 1.0);
    out.put(I::ConfigStale, f64::from(u8::from(CONFIG_STALE.load(Ordering::Relaxed))));
    if let Some(runtime) = Handle::try_current().ok().as_ref().or_else(|| RUNTIME.get()) {
        let metrics = runtime.metrics();
        let workers = metrics.num_workers();
        let busy: f64 = (0..workers).map(|one| metrics.worker_total_busy_duration(one).as_secs_f64()).sum();
        out.put(I::RuntimeWorkers, amount(workers as u64));
        out.put(I::RuntimeTasks, amount(metrics.num_alive_tasks() as u64));
        out.put(I::RuntimeQueue, amount(metrics.global_queue_depth() as u64));
        out.put(I::RuntimeBusy, busy);
    }
    let Ok(process) = Process::myself() else { return };
    if let Ok(stat) = process.stat() {
        let ticks = amount(procfs::ticks_per_second());
        out.put(I::ProcessCpu, amount(stat.utime + stat.stime) / ticks);
        out.put(I::ProcessResident, amount(stat.rss * procfs::page_size()));
        out.put(I::ProcessVirtual, amount(stat.vsize));
        out.put(I::ProcessThreads, amount(u64::try_from(stat.num_threads).unwrap_or_default()));
        if let Ok(boot) = procfs::boot_time_secs() {
            out.put(I::ProcessStart, amount(boot) + amount(stat.starttime) / ticks);
        }
    }
    if let Ok(count) = process.fd_count() {
        out.put(I::ProcessFds, amount(count as u64));
    }
    if let Ok(limits) = process.limits()
        && let LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        out.put(I::ProcessMaxFds, amount(most));
    }
}

/// Prometheus has only floating-point numbers.
#[expect(clippy::cast_precision_loss, reason = "no count reaches 2^53 in practice")]
pub(super) fn amount(count: u64) -> f64 {
    count as f64
}
