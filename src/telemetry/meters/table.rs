//! The table of instruments: group, name, kind, labels and help text of each. The tables of `docs/metrics.md` are
//! generated from it; alert rules and the dashboard use only these names.

/// The kind of an instrument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InstrumentKind {
    /// A counter, incremented when the event happens.
    Counter,
    /// A counter, read at each scrape.
    ReadCounter,
    /// A gauge, read at each scrape.
    Gauge,
    /// A histogram with these upper bounds.
    Histogram(&'static [f64]),
}

/// The subsystem that an instrument belongs to, a section of `docs/metrics.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// HTTP requests and GraphQL operations.
    Http,
    /// Upstream calls, budgets and credentials.
    Upstreams,
    /// Lookups, the cache and single flight.
    Cache,
    /// Polls and the delivery of updates.
    Polling,
    /// Open streams.
    Streams,
    /// The job store.
    Store,
    /// Redis, shared by replicas.
    Redis,
    /// Build, configuration, telemetry, runtime and process.
    Process,
}

impl Group {
    /// All groups, in the order of the page.
    pub const ALL: [Self; 8] = [
        Self::Http,
        Self::Upstreams,
        Self::Cache,
        Self::Polling,
        Self::Streams,
        Self::Store,
        Self::Redis,
        Self::Process,
    ];

    /// The name in the markers of `docs/metrics.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Upstreams => "upstreams",
            Self::Cache => "cache",
            Self::Polling => "polling",
            Self::Streams => "streams",
            Self::Store => "store",
            Self::Redis => "redis",
            Self::Process => "process",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct InstrumentRow {
    pub(super) group: Group,
    pub(super) name: &'static str,
    pub(super) kind: InstrumentKind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// Upper bounds for operations that normally take milliseconds, in seconds.
const QUICK: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds for delays that depend on the poll interval, in seconds.
const SLOW: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0];

macro_rules! instruments {
    ($($group:ident { $($variant:ident: $kind:expr, $name:literal, $labels:expr, $help:literal;)* })*) => {
        /// Every instrument.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Instrument {
            $($(#[doc = $help] $variant,)*)*
        }

        impl Instrument {
            /// All instruments, in the order of exposition.
            pub const ALL: &'static [Self] = &[$($(Self::$variant,)*)*];

            pub(super) const fn row(self) -> InstrumentRow {
                match self {
                    $($(Self::$variant => InstrumentRow {
                        group: Group::$group, name: $name, kind: $kind, labels: &$labels, help: $help,
                    },)*)*
                }
            }
        }
    };
}

instruments! {
    Http {
        HttpRequests: InstrumentKind::Counter, "jobgate_http_requests_total", ["handler", "method", "status"],
            "HTTP requests on the public listener, by handler, method and status class.";
        HttpRequestDuration: InstrumentKind::Histogram(QUICK), "jobgate_http_request_duration_seconds", ["handler"],
            "Time from the request head to the start of the response. For a stream: time until it is open.";
        GraphqlOperations: InstrumentKind::Counter, "jobgate_graphql_operations_total", ["type", "transport"],
            "GraphQL operations that passed validation and limits and were executed.";
        GraphqlOperationDuration: InstrumentKind::Histogram(QUICK), "jobgate_graphql_operation_duration_seconds", ["type"],
            "Execution time of GraphQL queries and mutations.";
        Errors: InstrumentKind::Counter, "jobgate_errors_total", ["code"],
            "Error responses sent to clients, by error code.";
        JobProblems: InstrumentKind::Counter, "jobgate_job_problems_total", ["code"],
            "Problems returned in place of a job, by problem code.";
    }
    Upstreams {
        UpstreamCalls: InstrumentKind::Counter, "jobgate_upstream_calls_total", ["source", "outcome"],
            "HTTP calls to upstreams, by outcome. Each retry counts as a call.";
        UpstreamCallDuration: InstrumentKind::Histogram(QUICK), "jobgate_upstream_call_duration_seconds", ["source"],
            "Duration of one upstream call. Excludes the wait for the budget.";
        UpstreamRetries: InstrumentKind::Counter, "jobgate_upstream_retries_total", ["source"],
            "Upstream calls that were retries.";
        BudgetWait: InstrumentKind::Histogram(QUICK), "jobgate_upstream_budget_wait_seconds", ["source"],
            "Time a call waited for the budget of its source, whether it was then made or rejected.";
        BudgetRefusals: InstrumentKind::Counter, "jobgate_upstream_calls_rejected_total", ["source", "reason"],
            "Upstream calls rejected by the gateway before they were sent, by reason.";
        BreakerOpenings: InstrumentKind::Counter, "jobgate_breaker_openings_total", ["source"],
            "Times the circuit breaker of a source opened.";
        SourceHealth: InstrumentKind::Gauge, "jobgate_source_health", ["source", "health"],
            "1 for the current health of the source, 0 for every other health.";
        SourceBreakerOpen: InstrumentKind::Gauge, "jobgate_source_breaker_open", ["source"],
            "1 while the circuit breaker of the source is open.";
        SourceCallsInFlight: InstrumentKind::Gauge, "jobgate_source_calls_in_flight", ["source"],
            "Upstream calls in flight.";
        SourceConcurrency: InstrumentKind::Gauge, "jobgate_source_budget_concurrency", ["source"],
            "Configured limit of concurrent upstream calls.";
        SourceBudgetPerHour: InstrumentKind::Gauge, "jobgate_source_budget_per_hour", ["source"],
            "Configured limit of upstream calls per hour.";
        SourceBudgetLeft: InstrumentKind::Gauge, "jobgate_source_budget_left_this_hour", ["source"],
            "Upstream calls left before the hourly limit is reached.";
        SourceThrottledUntil: InstrumentKind::Gauge, "jobgate_source_throttled_until_timestamp_seconds", ["source"],
            "Unix time before which no call is made. Absent while the source is not throttled.";
        CredentialExpiry: InstrumentKind::Gauge, "jobgate_source_credential_expiry_timestamp_seconds", ["source"],
            "Unix time at which the active credential expires. Absent if the expiry is unknown.";
        CredentialActiveSince: InstrumentKind::Gauge, "jobgate_source_credential_active_since_timestamp_seconds", ["source"],
            "Unix time at which this process activated the credential. Absent if no credential is active.";
        CredentialState: InstrumentKind::Gauge, "jobgate_source_credential_state", ["source", "state"],
            "1 for the current state of the credential, 0 for every other state.";
    }
    Cache {
        Lookups: InstrumentKind::Counter, "jobgate_lookups_total", ["outcome"],
            "Jobs requested by clients, by cache outcome.";
        CacheReads: InstrumentKind::Counter, "jobgate_cache_reads_total", ["tier"],
            "Reads of cached jobs, by the tier that had the job: memory, store or none.";
        CacheJobs: InstrumentKind::Gauge, "jobgate_cache_entries", [],
            "Approximate number of jobs in the in-memory cache.";
        SingleFlightCalls: InstrumentKind::Counter, "jobgate_singleflight_total", ["role"],
            "Requests for a fetch: the leader starts it, a joiner waits for a fetch in flight.";
    }
    Polling {
        JobsFollowed: InstrumentKind::Gauge, "jobgate_jobs_followed", ["state"],
            "Followed jobs, by the last observed state; unobserved until the first fetch completes.";
        PollLag: InstrumentKind::Histogram(QUICK), "jobgate_poll_lag_seconds", ["source"],
            "Time from the due time of a poll to its start.";
        Sweeps: InstrumentKind::Counter, "jobgate_sweeps_total", ["source", "outcome"],
            "Lists of jobs requested in place of polls, by outcome: completed, missed (the list contradicts a read by id), failed, refused or oversized.";
        NotificationLag: InstrumentKind::Histogram(SLOW), "jobgate_change_to_delivery_seconds", ["source", "basis"],
            "Time from a job change to the delivery of its update, by basis: the upstream timestamp of the change, or the previous poll (upper bound).";
        ChangeDetectionWindow: InstrumentKind::Histogram(SLOW), "jobgate_change_detection_window_seconds", ["source"],
            "Time between the two polls that bracket a job change.";
        DetectionToDelivery: InstrumentKind::Histogram(QUICK), "jobgate_detection_to_delivery_seconds", ["source"],
            "Time from the upstream response that contained a change to the delivery of its update.";
        UpdatesDelivered: InstrumentKind::Counter, "jobgate_updates_delivered_total", ["subscription"],
            "Updates delivered to streams, by subscription field.";
        UpdatesCoalesced: InstrumentKind::Counter, "jobgate_updates_coalesced_total", ["subscription"],
            "Updates replaced by a newer update of the same job before a slow reader read them.";
    }
    Streams {
        StreamsOpen: InstrumentKind::Gauge, "jobgate_streams_open", ["transport"], "Open streams.";
        StreamsOpened: InstrumentKind::Counter, "jobgate_streams_opened_total", ["transport"], "Streams opened.";
        StreamsEnded: InstrumentKind::Counter, "jobgate_streams_ended_total", ["transport", "reason"],
            "Streams ended, by reason.";
    }
    Store {
        StoreFailures: InstrumentKind::Counter, "jobgate_store_failures_total", [],
            "Store operations that failed. A failed read is treated as a cache miss.";
        StoreDegraded: InstrumentKind::Gauge, "jobgate_store_degraded", [],
            "1 while the store cannot be written and jobs are kept in memory only.";
        StoreUnwritten: InstrumentKind::Gauge, "jobgate_store_unwritten", [], "Records waiting to be written to the store.";
        StoreDropped: InstrumentKind::ReadCounter, "jobgate_store_dropped_total", [],
            "Records dropped because the write queue was full.";
        StoreDamaged: InstrumentKind::ReadCounter, "jobgate_store_damaged_total", [],
            "Damaged records found and removed.";
        StoreQuarantined: InstrumentKind::ReadCounter, "jobgate_store_quarantined_total", [],
            "Damaged store files renamed and replaced by an empty one.";
        StoreSize: InstrumentKind::Gauge, "jobgate_store_size_bytes", [], "Size of the store file on disk.";
        StoreJobs: InstrumentKind::Gauge, "jobgate_store_jobs", [], "Jobs in the store file on disk.";
    }
    Redis {
        RedisUp: InstrumentKind::Gauge, "jobgate_redis_up", [], "1 while Redis is connected and in use.";
        RedisBreakerOpen: InstrumentKind::Gauge, "jobgate_redis_breaker_open", [],
            "1 while the circuit breaker of Redis is open.";
        RedisAway: InstrumentKind::Gauge, "jobgate_redis_unavailable_seconds", [],
            "Seconds since Redis became unavailable; 0 while it is available.";
        RedisReplicas: InstrumentKind::Gauge, "jobgate_redis_replicas", [],
            "Live replicas at the last heartbeat, this one included.";
        RedisBudgetFallback: InstrumentKind::Gauge, "jobgate_redis_budget_fallback", [],
            "1 while this replica uses its local share of the budgets because the shared budget is unavailable.";
        RedisOwnShare: InstrumentKind::ReadCounter, "jobgate_redis_local_budget_calls_total", [],
            "Upstream calls counted against the local share of a budget.";
        RedisConnections: InstrumentKind::ReadCounter, "jobgate_redis_connections_total", [],
            "Command connections opened. Each one after the first is a reconnect.";
        RedisFailovers: InstrumentKind::ReadCounter, "jobgate_redis_failovers_total", [],
            "Times the sentinels reported a different master.";
        RedisEmptied: InstrumentKind::ReadCounter, "jobgate_redis_data_loss_total", [],
            "Times the data in Redis was found to be lost.";
        RedisCommands: InstrumentKind::Counter, "jobgate_redis_commands_total", ["outcome"],
            "Redis commands, by outcome.";
        RedisCommandDuration: InstrumentKind::Histogram(QUICK), "jobgate_redis_command_duration_seconds", [],
            "Duration of Redis commands that were sent.";
        RedisTakeovers: InstrumentKind::ReadCounter, "jobgate_redis_lease_takeovers_total", [],
            "Leases acquired after another replica let them expire.";
        RedisFenceRefusals: InstrumentKind::ReadCounter, "jobgate_redis_fenced_writes_total", [],
            "Writes rejected because the lease of the writer was no longer valid.";
        RedisNotifications: InstrumentKind::ReadCounter, "jobgate_redis_notifications_total", [],
            "Change notifications received from other replicas.";
        RedisGaps: InstrumentKind::ReadCounter, "jobgate_redis_notification_gaps_total", [],
            "Times change notifications may have been missed.";
        RedisReconciles: InstrumentKind::ReadCounter, "jobgate_redis_reconciliations_total", [],
            "Times all followed jobs were read from Redis again.";
    }
    Process {
        BuildInfo: InstrumentKind::Gauge, "jobgate_build_info", ["version"], "Always 1; the label has the version of jobgate.";
        ConfigReloads: InstrumentKind::Counter, "jobgate_config_reloads_total", ["outcome"],
            "Configuration reloads, by outcome.";
        ConfigStale: InstrumentKind::Gauge, "jobgate_config_stale", [],
            "1 while the newest configuration is invalid and an older one is active.";
        LogLinesSuppressed: InstrumentKind::ReadCounter, "jobgate_log_lines_suppressed_total", [],
            "Log lines suppressed as repeats.";
        LogLinesDropped: InstrumentKind::ReadCounter, "jobgate_log_lines_dropped_total", [],
            "Log lines dropped because standard error was not read fast enough.";
        TelemetryDropped: InstrumentKind::ReadCounter, "jobgate_telemetry_dropped_total", ["signal"],
            "Spans and metric exports that were not delivered to the collector.";
        RuntimeWorkers: InstrumentKind::Gauge, "jobgate_runtime_workers", [], "Worker threads of the async runtime.";
        RuntimeTasks: InstrumentKind::Gauge, "jobgate_runtime_tasks", [], "Live tasks of the async runtime.";
        RuntimeQueue: InstrumentKind::Gauge, "jobgate_runtime_queue_depth", [], "Tasks in the global queue of the async runtime.";
        RuntimeBusy: InstrumentKind::ReadCounter, "jobgate_runtime_busy_seconds_total", [],
            "Time worker threads spent running tasks, in seconds.";
        ProcessCpu: InstrumentKind::ReadCounter, "process_cpu_seconds_total", [], "User and system CPU time, in seconds.";
        ProcessResident: InstrumentKind::Gauge, "process_resident_memory_bytes", [], "Resident memory size, in bytes.";
        ProcessVirtual: InstrumentKind::Gauge, "process_virtual_memory_bytes", [], "Virtual memory size, in bytes.";
        ProcessFds: InstrumentKind::Gauge, "process_open_fds", [], "Open file descriptors.";
        ProcessMaxFds: InstrumentKind::Gauge, "process_max_fds", [], "Maximum number of open file descriptors.";
        ProcessThreads: InstrumentKind::Gauge, "process_threads", [], "Threads of the process.";
        ProcessStart: InstrumentKind::Gauge, "process_start_time_seconds", [], "Unix time at which the process started.";
    }
}

impl Instrument {
    /// The subsystem.
    pub const fn group(self) -> Group {
        self.row().group
    }

    /// The metric name in the Prometheus exposition.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The kind.
    pub const fn kind(self) -> InstrumentKind {
        self.row().kind
    }

    /// The label names.
    pub const fn labels(self) -> &'static [&'static str] {
        self.row().labels
    }

    /// The help text.
    pub const fn help(self) -> &'static str {
        self.row().help
    }

    /// The metric name without the suffix `_total`.
    pub(super) fn stem(self) -> &'static str {
        self.name().strip_suffix("_total").unwrap_or_else(|| self.name())
    }

    /// The unit in OTLP.
    pub(super) fn unit(self) -> &'static str {
        match self.stem() {
            stem if stem.ends_with("_seconds") => "s",
            stem if stem.ends_with("_bytes") => "By",
            _ => "1",
        }
    }
}
