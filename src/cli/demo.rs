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
             live page:  http://{address}/\n\n\
             query one job of each upstream:\n\n  curl -s http://{address}/graphql -H 'content-type: application/json' -d '{body}'\n"
        ))?;
        let births = track_births(gateway.jobs(), simulator.handle());
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

/// Does what the internal applications of a company would do: tracks each of their jobs as soon as it exists.
async fn track_births(jobs: Jobs, upstreams: Handle) -> Infallible {
    let mut known = HashSet::new();
    let mut due = tokio::time::interval(BIRTHS_EVERY);
    loop {
        due.tick().await;
        let of = |source: &'static str, upstream| {
            let ids = upstreams.job_ids(upstream).into_iter();
            ids.filter(|id| is_tracked(id))
                .map(move |external_id| RequestedRef::External { source: source.to_owned(), external_id })
        };
        let alive = of("audit", SimUpstream::MindBridge).chain(of("marketing", SimUpstream::Supermetrics));
        let born: Vec<RequestedRef> = alive.filter(|job| known.insert(job.clone())).collect();
        if let Err(problem) = jobs.track(&Principal::local(), &born, &Labels::new()).await {
            tracing::warn!(problem = %problem.message, "demo jobs not tracked");
        }
    }
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
    writeln!(yaml, "sources:")?;
    let sources = [
        ("audit", "mindbridge", simulator.mindbridge_url(), "bearer"),
        ("marketing", "supermetrics", simulator.supermetrics_url(), "api_key"),
    ];
    for ((name, upstream, url, form), (variable, _)) in sources.into_iter().zip(CREDENTIALS) {
        writeln!(
            yaml,
            "  {name}: {{ upstream: {upstream}, base_url: \"{url}\", credential: {{ {form}: {{ env: {variable} }} }} }}"
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
