//! The table of instruments: name, kind, labels and meaning of each. `docs/telemetry.md` is written from it, and rules and dashboard
//! may name nothing else.

/// What an instrument is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Counts up from the start of the process, as things happen.
    Counter,
    /// The same, read when it is asked for.
    ReadCounter,
    /// How things stand, read when it is asked for.
    Gauge,
    /// How values are spread, by these upper bounds.
    Histogram(&'static [f64]),
}

/// What one instrument is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// Of what takes milliseconds when all is well, in seconds.
const QUICK: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Of what takes as long as the pace of looking, in seconds.
const SLOW: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0];

macro_rules! instruments {
    ($($variant:ident: $kind:expr, $name:literal, $labels:expr, $help:literal;)*) => {
        /// Every instrument.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Instrument {
            $(#[doc = $help] $variant,)*
        }

        impl Instrument {
            /// All of them, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(super) const fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row { name: $name, kind: $kind, labels: &$labels, help: $help },)*
                }
            }
        }
    };
}

instruments! {
    BuildInfo: Kind::Gauge, "jobgate_build_info", ["version"], "Always 1; which version this is.";

    HttpRequests: Kind::Counter, "jobgate_http_requests_total", ["door", "method", "status"],
        "Requests whose answer began, by door, method and class of status.";
    HttpRequestDuration: Kind::Histogram(QUICK), "jobgate_http_request_duration_seconds", ["door"],
        "From a request's head to the beginning of its answer; of a stream, to its opening.";
    GraphqlOperations: Kind::Counter, "jobgate_graphql_operations_total", ["type", "transport"],
        "Operations that passed all limits and were executed.";
    GraphqlOperationDuration: Kind::Histogram(QUICK), "jobgate_graphql_operation_duration_seconds", ["type"],
        "How long queries and mutations took to execute.";
    Errors: Kind::Counter, "jobgate_errors_total", ["code"],
        "Errors and refusals that were sent, by their code.";
    JobProblems: Kind::Counter, "jobgate_job_problems_total", ["code"],
        "Jobs that were answered with a problem in their place, by its code.";

    UpstreamCalls: Kind::Counter, "jobgate_upstream_calls_total", ["source", "outcome"],
        "Calls to upstreams, every try counted, by how they ended.";
    UpstreamCallDuration: Kind::Histogram(QUICK), "jobgate_upstream_call_duration_seconds", ["source"],
        "How long one call to an upstream took, its turn not included.";
    UpstreamRetries: Kind::Counter, "jobgate_upstream_retries_total", ["source"],
        "Calls that were further tries.";
    BudgetWait: Kind::Histogram(QUICK), "jobgate_upstream_budget_wait_seconds", ["source"],
        "How long a call waited for its turn under the budget of its source, whether it got one or not.";
    BudgetRefusals: Kind::Counter, "jobgate_upstream_calls_held_back_total", ["source", "reason"],
        "Calls that were not made, because of budget, pause, breaker or a refused credential.";
    BreakerOpenings: Kind::Counter, "jobgate_breaker_openings_total", ["source"],
        "How often a source was left alone after failing several times in a row.";

    SourceHealth: Kind::Gauge, "jobgate_source_health", ["source", "health"], "1 for how the source is doing.";
    SourceBreakerOpen: Kind::Gauge, "jobgate_source_breaker_open", ["source"],
        "1 while the breaker holds back the calls of a source.";
    SourceCallsInFlight: Kind::Gauge, "jobgate_source_calls_in_flight", ["source"], "Calls under way.";
    SourceConcurrency: Kind::Gauge, "jobgate_source_budget_concurrency", ["source"],
        "Calls that may be under way at once, as configured.";
    SourceBudgetPerHour: Kind::Gauge, "jobgate_source_budget_per_hour", ["source"],
        "Calls that may start in an hour, as configured.";
    SourceBudgetLeft: Kind::Gauge, "jobgate_source_budget_left_this_hour", ["source"],
        "Calls that could start now before the hourly limit is reached.";
    SourceThrottledUntil: Kind::Gauge, "jobgate_source_throttled_until_timestamp_seconds", ["source"],
        "No call is made before this time, in seconds since 1970; missing while nothing holds calls back.";
    CredentialExpiry: Kind::Gauge, "jobgate_source_credential_expiry_timestamp_seconds", ["source"],
        "When the credential in force ends, in seconds since 1970; missing where that is not known.";
    CredentialInForceSince: Kind::Gauge, "jobgate_source_credential_in_force_since_timestamp_seconds", ["source"],
        "Since when the credential in force is, by this gateway, in seconds since 1970.";
    CredentialState: Kind::Gauge, "jobgate_source_credential_state", ["source", "state"],
        "1 for the state that the credential is in.";

    Lookups: Kind::Counter, "jobgate_lookups_total", ["outcome"],
        "Jobs asked for by clients, by whether they were answered from what is held.";
    CacheReads: Kind::Counter, "jobgate_cache_reads_total", ["tier"],
        "Reads of held jobs by where each was found: in memory, in the store behind it, or nowhere.";
    CacheJobs: Kind::Gauge, "jobgate_cache_near_jobs", [], "Jobs held in memory, about.";
    Flights: Kind::Counter, "jobgate_flights_total", ["role"],
        "Seats on shared fetches: who led one, and who joined one that was under way.";

    JobsFollowed: Kind::Gauge, "jobgate_jobs_followed", ["state"],
        "Jobs that are looked at until they end, by the state last seen; unseen where nothing was learned yet.";
    PollLag: Kind::Histogram(QUICK), "jobgate_poll_lag_seconds", ["source"],
        "From when a followed job was due to be looked at to when its look began.";
    NotificationLag: Kind::Histogram(SLOW), "jobgate_notification_lag_seconds", ["source", "basis"],
        "From a job's change to its update handed to a stream. Basis upstream: by the upstream's own time; basis look: at most, since the look before.";
    LookInterval: Kind::Histogram(SLOW), "jobgate_notification_look_interval_seconds", ["source"],
        "From the look before a change to the look that found it: how uncertain the moment of the change is.";
    FoundToTold: Kind::Histogram(QUICK), "jobgate_notification_found_to_told_seconds", ["source"],
        "From the answer that held a change to its update handed to a stream.";
    UpdatesDelivered: Kind::Counter, "jobgate_updates_delivered_total", ["by"], "Updates handed to streams.";
    UpdatesCoalesced: Kind::Counter, "jobgate_updates_coalesced_total", ["by"],
        "Updates that a newer one of the same job overtook before a slow reader took them.";

    StreamsOpen: Kind::Gauge, "jobgate_streams_open", ["transport"], "Streams that are open.";
    StreamsOpened: Kind::Counter, "jobgate_streams_opened_total", ["transport"], "Streams that began.";
    StreamsEnded: Kind::Counter, "jobgate_streams_ended_total", ["transport", "reason"], "Streams that ended, and why.";

    StoreFailures: Kind::Counter, "jobgate_store_failures_total", [], "Failures of the store that were taken as a miss.";
    StoreDegraded: Kind::Gauge, "jobgate_store_degraded", [], "1 while what is kept lies in memory alone.";
    StoreUnwritten: Kind::Gauge, "jobgate_store_unwritten", [], "Things that wait to be written.";
    StoreDropped: Kind::ReadCounter, "jobgate_store_dropped_total", [], "Things that could not wait for want of room.";
    StoreDamaged: Kind::ReadCounter, "jobgate_store_damaged_total", [], "Damaged records that were met and removed.";
    StoreQuarantined: Kind::ReadCounter, "jobgate_store_quarantined_total", [], "Files set aside as damaged.";
    StoreSize: Kind::Gauge, "jobgate_store_size_bytes", [], "The size of what lies on disk.";
    StoreJobs: Kind::Gauge, "jobgate_store_jobs", [], "Jobs that lie on disk.";

    RedisUp: Kind::Gauge, "jobgate_redis_up", [], "1 while a connection to Redis stands and is used.";
    RedisBreakerOpen: Kind::Gauge, "jobgate_redis_breaker_open", [],
        "1 while Redis is left alone, because it did not answer.";
    RedisAway: Kind::Gauge, "jobgate_redis_away_seconds", [],
        "For how long Redis has been left alone; 0 while it is asked.";
    RedisReplicas: Kind::Gauge, "jobgate_redis_replicas", [],
        "Replicas that are there, by what was last known, this one included.";
    RedisBudgetFallback: Kind::Gauge, "jobgate_redis_budget_fallback", [],
        "1 while this replica keeps to its even share of the budgets, because the common ones are out of reach.";
    RedisOwnShare: Kind::ReadCounter, "jobgate_redis_own_share_calls_total", [],
        "Calls to sources counted against this replica's even share of a budget.";
    RedisConnections: Kind::ReadCounter, "jobgate_redis_connections_total", [],
        "Connections made for commands; each but the first came after a loss.";
    RedisFailovers: Kind::ReadCounter, "jobgate_redis_failovers_total", [],
        "Times when sentinels named another server than before.";
    RedisEmptied: Kind::ReadCounter, "jobgate_redis_emptied_total", [], "Times when Redis was found emptied.";
    RedisCommands: Kind::Counter, "jobgate_redis_commands_total", ["outcome"],
        "Commands by what became of them: done, refused by the server, failed on the way, too slow, left unsent.";
    RedisCommandDuration: Kind::Histogram(QUICK), "jobgate_redis_command_duration_seconds", [],
        "How long commands took that were sent.";
    RedisTakeovers: Kind::ReadCounter, "jobgate_redis_turn_takeovers_total", [],
        "Turns taken over from a replica that did not end them.";
    RedisFenceRefusals: Kind::ReadCounter, "jobgate_redis_fence_refusals_total", [],
        "Writes that were refused because their turn was over.";
    RedisHints: Kind::ReadCounter, "jobgate_redis_feed_hints_total", [], "Hints heard from other replicas.";
    RedisGaps: Kind::ReadCounter, "jobgate_redis_feed_gaps_total", [], "Times when hints may have been missed.";
    RedisReconciles: Kind::ReadCounter, "jobgate_redis_feed_reconciles_total", [],
        "Times when everything followed was read again.";

    ConfigReloads: Kind::Counter, "jobgate_config_reloads_total", ["outcome"], "New configurations, by what came of them.";
    ConfigStale: Kind::Gauge, "jobgate_config_stale", [],
        "1 while the newest configuration has a fault and an older one is in force.";
    LogLinesSuppressed: Kind::Counter, "jobgate_log_lines_suppressed_total", [],
        "Lines that the log was spared, because the same had been said a moment before.";
    LogLinesDropped: Kind::ReadCounter, "jobgate_log_lines_dropped_total", [],
        "Lines of the log that were lost, because nobody read standard error in time.";
    TelemetryDropped: Kind::ReadCounter, "jobgate_telemetry_dropped_total", ["signal"],
        "Spans, and exports of metrics, that a collector was to be told and was not.";

    RuntimeWorkers: Kind::Gauge, "jobgate_runtime_workers", [], "Threads that run tasks.";
    RuntimeTasks: Kind::Gauge, "jobgate_runtime_tasks", [], "Tasks that are alive.";
    RuntimeQueue: Kind::Gauge, "jobgate_runtime_queue_depth", [], "Tasks that wait for any thread.";
    RuntimeBusy: Kind::ReadCounter, "jobgate_runtime_busy_seconds_total", [], "Time that threads have spent running tasks.";
    ProcessCpu: Kind::ReadCounter, "process_cpu_seconds_total", [], "User and system time of the process.";
    ProcessResident: Kind::Gauge, "process_resident_memory_bytes", [], "Memory of the process that lies in RAM.";
    ProcessVirtual: Kind::Gauge, "process_virtual_memory_bytes", [], "Address space of the process.";
    ProcessFds: Kind::Gauge, "process_open_fds", [], "File descriptors that are open.";
    ProcessMaxFds: Kind::Gauge, "process_max_fds", [], "File descriptors that may be open.";
    ProcessThreads: Kind::Gauge, "process_threads", [], "Threads of the process.";
    ProcessStart: Kind::Gauge, "process_start_time_seconds", [], "When the process started, in seconds since 1970.";
}

impl Instrument {
    /// Its name, as Prometheus knows it.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// What it is.
    pub const fn kind(self) -> Kind {
        self.row().kind
    }

    /// The names of its labels.
    pub const fn labels(self) -> &'static [&'static str] {
        self.row().labels
    }

    /// What it says, for people.
    pub const fn help(self) -> &'static str {
        self.row().help
    }

    /// Its name without the ending that says that it counts.
    pub(super) fn stem(self) -> &'static str {
        self.name().strip_suffix("_total").unwrap_or_else(|| self.name())
    }

    /// Its unit, as a collector knows it.
    pub(super) fn unit(self) -> &'static str {
        match self.stem() {
            stem if stem.ends_with("_seconds") => "s",
            stem if stem.ends_with("_bytes") => "By",
            _ => "1",
        }
    }
}
