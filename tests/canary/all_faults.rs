//! Every fault of both upstreams at the same time, each with its own source and jobs.

use std::fmt::Write as _;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate_simulator::{Endpoint, FaultKind, MindBridgeJob, SimFault, SimUpstream, SupermetricsJob};
use serde_json::Value;

use super::Planted;
use crate::faults::table;
use crate::support::server::external;

/// A query for each fault: its own source, so that one whose circuit breaker is open does not hide the next, and its
/// own ids, so that all faults are active together.
pub(super) struct FaultPlan {
    pub(super) faults: Vec<SimFault>,
    /// YAML of the sources, each with its own name.
    sources: String,
    pub(super) refs: Vec<Value>,
    pub(super) mindbridge: Vec<MindBridgeJob>,
    pub(super) supermetrics: Vec<SupermetricsJob>,
}

/// Completed jobs of Supermetrics.
const ROWS: usize = 4;

const MIND: SimUpstream = SimUpstream::MindBridge;
const METRICS: SimUpstream = SimUpstream::Supermetrics;

impl FaultPlan {
    pub(super) fn new(planted: &Planted, token_file: &str, simulator: [&str; 2], proxy: &str) -> Self {
        let mut plan = Self {
            faults: vec![],
            sources: String::new(),
            refs: vec![],
            mindbridge: vec![],
            supermetrics: vec![],
        };
        let bearer = format!("bearer: {{ file: \"{token_file}\" }}");
        let to = |secret: &str| FaultKind::Redirect { to: format!("http://127.0.0.1:1/?api_key={secret}") };
        let mut mindbridge: Vec<FaultKind> = table::mindbridge().into_iter().map(|row| row.fault).collect();
        mindbridge
            .extend([FaultKind::EchoCredential { status: 200 }, FaultKind::EchoCredential { status: 500 }]);
        mindbridge.push(to(&planted.token.secret));
        let mut supermetrics: Vec<FaultKind> =
            table::supermetrics().into_iter().map(|row| row.fault).collect();
        supermetrics
            .extend([FaultKind::EchoCredential { status: 200 }, FaultKind::EchoCredential { status: 500 }]);
        supermetrics.push(to(&planted.api_key.secret));
        for fault in mindbridge {
            plan.row(MIND, simulator[0], &bearer, SimFault::always(MIND, fault).on(Endpoint::One), 1);
        }
        for (_, fault, _, _) in table::mindbridge_query() {
            plan.row(MIND, simulator[0], &bearer, SimFault::always(MIND, fault).on(Endpoint::Query), 2);
        }
        for form in ["api_key", "bearer"].repeat(ROWS / 2) {
            plan.place(METRICS, simulator[1], &format!("{form}: {{ env: METRICS_KEY }}"), 1);
        }
        for form in ["api_key", "bearer"] {
            for fault in supermetrics.clone() {
                let credential = format!("{form}: {{ env: METRICS_KEY }}");
                plan.row(METRICS, simulator[1], &credential, SimFault::always(METRICS, fault), 1);
            }
        }
        // and what needs no upstream fault: rejected, invalid and missing secrets, a closed port, no such host
        for (url, credential) in [
            (simulator[0], "bearer: { env: REFUSED_TOKEN }"),
            (simulator[0], "bearer: { env: BROKEN_TOKEN }"),
            (simulator[0], "bearer: { env: MISSING_TOKEN }"),
            ("http://127.0.0.1:1/api", bearer.as_str()),
            ("https://127.0.0.1:1/api", bearer.as_str()),
            ("https://nowhere.invalid/api", bearer.as_str()),
        ] {
            plan.place(MIND, url, credential, 1);
        }
        let [plain, tunnel, broken] = planted.ways_out(proxy);
        for (url, options) in [
            ("http://upstream.example/api", plain),
            ("https://upstream.example/api", tunnel),
            ("https://upstream.example/api", broken),
        ] {
            plan.place_with(MIND, url, &bearer, 1, &options);
        }
        plan
    }

    fn row(&mut self, upstream: SimUpstream, url: &str, credential: &str, fault: SimFault, jobs: usize) {
        let ids = self.place(upstream, url, credential, jobs);
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.faults.push(fault.for_ids(&ids));
    }

    /// A new source and the ids of its jobs.
    fn place(&mut self, upstream: SimUpstream, url: &str, credential: &str, jobs: usize) -> Vec<String> {
        self.place_with(upstream, url, credential, jobs, "allow_plaintext: false")
    }

    /// The same with more options.
    fn place_with(
        &mut self,
        upstream: SimUpstream,
        url: &str,
        credential: &str,
        jobs: usize,
        options: &str,
    ) -> Vec<String> {
        // a completed job is not fetched again: only the first few, so that there are rows to read
        let word = if self.supermetrics.len() < ROWS { "SUCCESS" } else { "RUNNING" };
        let number = self.refs.len();
        let name = format!("{}{number}", if upstream == MIND { "m" } else { "s" });
        let line = format!(
            "  {name}: {{ upstream: {}, base_url: \"{url}\", credential: {{ {credential} }}, status_timeout: 1s, {options}, \
             budget: {{ per_second: 1000, per_hour: 100000, concurrency: 100 }} }}",
            upstream.as_str()
        );
        writeln!(self.sources, "{line}").unwrap();
        let ids: Vec<String> = (0..jobs).map(|at| format!("job{number}-{at}")).collect();
        for id in &ids {
            self.refs.push(external(&name, id));
            match upstream {
                MIND => self.mindbridge.push(MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])),
                METRICS => self.supermetrics.push(SupermetricsJob::new(id, &[(0, word)])),
            }
        }
        ids
    }
}

/// The configuration with the sources of a plan.
pub(super) fn yaml(planted: &Planted, plan: &FaultPlan, format: &str) -> String {
    let hash = ClientConfig::hex(&keys::hash(&planted.client.secret));
    let mut names: Vec<&str> =
        plan.sources.lines().filter_map(|line| line.trim().split_once(':')).map(|(name, _)| name).collect();
    names.dedup();
    format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0 }}\n\
         store: {{ kind: memory }}\n\
         telemetry: {{ log_level: trace, log_format: {format} }}\n\
         clients: [{{ name: c, key_sha256: \"{hash}\", sources: [{}] }}]\nsources:\n{}",
        names.join(", "),
        plan.sources
    )
}
