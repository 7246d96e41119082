//! `jobgate demo`: the gateway with simulated upstreams in the same process, and no configuration.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use jobgate_client::Terminal;

use super::exit::Exit;
use super::{runtime, serve};
use crate::config::{Config, Environment};
use crate::domain::principal::Principal;
use crate::jobs::Jobs;
use crate::jobs::tracking::Labels;
use crate::jobs::visibility::RequestedRef;
use crate::server::build::Gateway;
use crate::server::lifecycle;
use crate::server::telemetry::Telemetry;
use jobgate_simulator::{Addresses, Handle, Scenario, SimUpstream, Simulator};

/// The environment variables with the simulators' credentials, as an operator would set them.
const CREDENTIALS: [(&str, &str); 2] =
    [("DEMO_MINDBRIDGE_TOKEN", "demo-mindbridge-token"), ("DEMO_SUPERMETRICS_KEY", "demo-supermetrics-key")];

/// The variables of the settings that are options of the command line too.
const LISTEN: &str = "JOBGATE_SERVER__LISTEN";
const ADMIN_LISTEN: &str = "JOBGATE_SERVER__ADMIN_LISTEN";

/// The README's query: a job of each upstream.
const QUERY: &str = r#"{ jobs(refs: [{ external: { source: "audit", externalId: "65f0c0ffee00000000000001" } }, { external: { source: "marketing", externalId: "demo_sales_2026" } }]) { __typename ... on Job { externalId state nativeState progress { completed total } } } }"#;

/// A job that is always running: it starts anew when it has completed.
const ALWAYS_RUNNING: &str = "marketing/demo_always_running";

/// The address that `jobgate job` calls without `--url`.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// The beginnings of the ids of the jobs that no application tracks: only the lists of the upstreams show them.
const UNTRACKED: [&str; 2] = ["65f0c0ffee00000002", "demo_ad_hoc_"];

/// How often the demo checks for new jobs.
const BIRTHS_EVERY: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(super) struct DemoArguments {
    /// Address of the public listener [default: `JOBGATE_SERVER__LISTEN`, otherwise 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address of the admin listener [default: `JOBGATE_SERVER__ADMIN_LISTEN`, otherwise 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
}

impl DemoArguments {
    /// The environment of the gateway: an option of the command line has precedence over the variable of the same
    /// setting.
    fn environment(&self, env: &Environment) -> Environment {
        let mut env = env.clone();
        for (name, value) in CREDENTIALS {
            env = env.with(name, value);
        }
        for (variable, given) in [(LISTEN, self.listen), (ADMIN_LISTEN, self.admin_listen)] {
            if given.is_some() {
                env = env.without(variable);
            }
        }
        env
    }
}

pub(super) fn run(
    arguments: &DemoArguments,
    program: &str,
    env: &Environment,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<Exit> {
    let runtime = runtime::start()?;
    let ended = runtime.block_on(async {
        let simulator = Simulator::start(Scenario::demo(), Addresses::ephemeral()).await?;
        let env = arguments.environment(env);
        let config = Config::from_yaml(&configuration(&simulator, arguments)?, &env)?;
        let telemetry = Telemetry::new(&config, &env)?;
        let _log = serve::start_log(&config.telemetry, &telemetry)?;
        let telemetry_guard = telemetry.start()?;
        let gateway = Gateway::build(&config, &env).await?;
        let address = gateway.public_addr();
        let body = serde_json::json!({ "query": QUERY });
        terminal.say(&format!(
            "jobgate demo: a gateway with two simulated upstreams\n\n{simulator}\n\
             live page:  http://{address}/\n\
             GraphiQL:   http://{address}/graphiql\n\n\
             watch a job that is always running:\n\n  {}\n\n\
             query one job of each upstream:\n\n  curl -s http://{address}/graphql -H 'content-type: application/json' -d '{body}'\n",
            watch_command(program, address)
        ))?;
        let births = run_applications(gateway.jobs(), simulator.handle());
        let ended = tokio::select! {
            ended = lifecycle::run(gateway, config.server.drain_timeout, None) => ended?,
            never = births => match never {},
        };
        telemetry_guard.end().await;
        simulator.stop().await;
        Ok(ended.into())
    });
    // as for `serve`: a blocked task must not delay the exit
    runtime.shutdown_background();
    ended
}

/// Does what the internal applications of a company would do: tracks each of their jobs as soon as it exists, and reads
/// the one that is always running, which shows the gateway that it has started anew. A new run is tracked like a new job.
async fn run_applications(jobs: Jobs, upstreams: Handle) -> Infallible {
    let mut known = HashSet::new();
    let (source, external_id) = ALWAYS_RUNNING.split_once('/').unwrap_or_default();
    let running = RequestedRef::external(source.to_owned(), external_id.to_owned());
    let mut due = tokio::time::interval(BIRTHS_EVERY);
    loop {
        due.tick().await;
        let of = |source: &'static str, upstream| {
            let ids = upstreams.job_ids(upstream).into_iter();
            ids.filter(|id| is_tracked(id))
                .map(move |external_id| RequestedRef::external(source.to_owned(), external_id))
        };
        let alive = of("audit", SimUpstream::MindBridge).chain(of("marketing", SimUpstream::Supermetrics));
        let born: Vec<RequestedRef> = alive.filter(|job| known.insert(job.clone())).collect();
        if let Err(problem) = jobs.track(&Principal::local(), &born, &Labels::new()).await {
            tracing::warn!(problem = %problem.message, "demo jobs not tracked");
        }
        // while it runs it is followed anyway: nothing is fetched for this
        let seen = jobs.lookup_one(&Principal::local(), running.clone(), Some(Duration::MAX)).await;
        if seen.is_ok_and(|seen| !seen.observation.job.is_terminal() && seen.next_poll.is_none()) {
            known.remove(&running);
        }
    }
}

/// The command that watches the job that is always running, as the user started this program.
fn watch_command(program: &str, address: SocketAddr) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    let program = if !program.is_empty() && program.chars().all(plain) { program } else { "jobgate" };
    let mut command = format!("{program} job watch {ALWAYS_RUNNING}");
    if address.to_string() != DEFAULT_LISTEN {
        write!(command, " --url http://{address}").ok();
    }
    command
}

/// Whether an application tracks the job with this id.
fn is_tracked(id: &str) -> bool {
    !UNTRACKED.iter().any(|beginning| id.starts_with(beginning))
}

/// An operator's configuration for the two simulators.
fn configuration(simulator: &Simulator, arguments: &DemoArguments) -> Result<String, std::fmt::Error> {
    let address = |given: Option<SocketAddr>, port| given.unwrap_or_else(|| ([127, 0, 0, 1], port).into());
    let (listen, admin_listen) = (address(arguments.listen, 8080), address(arguments.admin_listen, 9090));
    let mut yaml = String::new();
    writeln!(yaml, "server: {{ listen: \"{listen}\", admin_listen: \"{admin_listen}\" }}")?;
    writeln!(yaml, "store: {{ kind: memory }}")?;
    // short, so that the job that is always running is seen to start anew
    writeln!(yaml, "cache: {{ terminal_revalidate_interval: 2s }}")?;
    writeln!(yaml, "sources:")?;
    let sources = [
        ("audit", "mindbridge", simulator.mindbridge_url(), "bearer", ""),
        // the data sources of the scenario's queries
        ("marketing", "supermetrics", simulator.supermetrics_url(), "api_key", ", data_sources: [GAWA, AW]"),
    ];
    for ((name, upstream, url, form, listed), (variable, _)) in sources.into_iter().zip(CREDENTIALS) {
        writeln!(
            yaml,
            "  {name}: {{ upstream: {upstream}, base_url: \"{url}\", credential: {{ {form}: {{ env: {variable} }} }}, \
             discovery: {{ enabled: true{listed} }} }}"
        )?;
    }
    Ok(yaml)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The configuration of a demo with these options and variables.
    async fn configured(arguments: DemoArguments, env: &Environment) -> Config {
        let simulator = Simulator::start(Scenario::demo(), Addresses::ephemeral()).await.unwrap();
        let env = arguments.environment(env);
        let config = Config::from_yaml(&configuration(&simulator, &arguments).unwrap(), &env).unwrap();
        simulator.stop().await;
        config
    }

    #[test]
    fn demo_has_untracked_jobs_of_each_upstream() {
        let demo = Scenario::demo();
        assert!(demo.mindbridge.jobs.iter().any(|job| !is_tracked(&job.id)));
        assert!(demo.supermetrics.jobs.iter().any(|job| !is_tracked(&job.id)));
        assert!(is_tracked("65f0c0ffee00000000000001") && is_tracked("demo_sales_2026"));
    }

    #[test]
    fn demo_prints_a_command_that_can_be_run_as_printed() {
        for (program, listen, expected) in [
            ("jobgate", "127.0.0.1:8080", "jobgate job watch marketing/demo_always_running"),
            (
                "target/debug/jobgate",
                "127.0.0.1:9",
                "target/debug/jobgate job watch marketing/demo_always_running --url http://127.0.0.1:9",
            ),
            ("/my tools/$(x)", "127.0.0.1:8080", "jobgate job watch marketing/demo_always_running"),
            ("", "127.0.0.1:8080", "jobgate job watch marketing/demo_always_running"),
        ] {
            assert_eq!(watch_command(program, address(listen)), expected);
        }
    }

    #[test]
    fn job_that_is_always_running_starts_anew_soon_after_its_end() {
        let (source, id) = ALWAYS_RUNNING.split_once('/').unwrap();
        let demo = Scenario::demo();
        let job = demo.supermetrics.jobs.iter().find(|job| job.id == id).unwrap();
        let end = job.steps.last().unwrap().at;
        let pause = job.rerun_every.unwrap().checked_sub(end).unwrap();
        assert!(source == "marketing" && is_tracked(id) && job.runs.is_none());
        assert!(pause <= Duration::from_secs(5) && end >= Duration::from_mins(1), "{end:?} {pause:?}");
    }

    /// Whatever the lists of the upstreams show is discovered: no data source of the scenario is left out.
    #[tokio::test]
    async fn demo_discovers_the_jobs_of_both_upstreams() {
        let plain =
            configured(DemoArguments { listen: None, admin_listen: None }, &Environment::default()).await;
        assert_eq!(plain.sources.len(), 2);
        for (name, source) in &plain.sources {
            assert!(source.discovery.enabled, "{name}");
        }
        let listed: HashSet<String> =
            plain.sources.values().flat_map(|source| source.discovery.data_sources.clone()).collect();
        let used: HashSet<String> =
            Scenario::demo().supermetrics.jobs.iter().map(|job| job.ds_id.clone()).collect();
        assert_eq!(listed, used);
    }

    #[tokio::test]
    async fn demo_listens_on_loopback_by_default() {
        let arguments = DemoArguments { listen: None, admin_listen: None };
        let plain = configured(arguments, &Environment::default()).await;
        assert_eq!(plain.server.listen, address("127.0.0.1:8080"));
        assert_eq!(plain.server.admin_listen, address("127.0.0.1:9090"));
    }

    #[tokio::test]
    async fn demo_options_override_the_environment() {
        let env: Environment =
            [(LISTEN, "127.0.0.1:1"), (ADMIN_LISTEN, "127.0.0.1:2"), ("JOBGATE_GRAPHQL__MAX_COST", "7")]
                .into_iter()
                .collect();
        let arguments = DemoArguments { listen: Some(address("127.0.0.1:3")), admin_listen: None };
        let given = configured(arguments, &env).await;
        assert_eq!(given.server.listen, address("127.0.0.1:3"));
        assert_eq!(given.server.admin_listen, address("127.0.0.1:2"));
        assert_eq!(given.graphql.max_cost, 7);
    }
}
