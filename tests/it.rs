//! The one integration-test binary: each file below is a part of it, so that the house is linked once.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod architecture;
mod caching;
mod canary;
mod clients_streams;
mod crashes;
mod docs;
mod door;
mod faults;
mod grants;
mod grants_http;
mod hostile;
mod http_audit;
mod identity;
mod job_cli;
mod lookup;
mod matrix;
mod page;
mod processes;
mod query;
mod redis_outage;
mod redis_replicas;
mod redis_tier;
mod redis_topologies;
mod rest;
mod restart;
mod rotation;
mod schema;
mod streams;
mod streams_end;
mod streams_load;
mod streams_plan;
mod streams_quiet;
mod streams_trouble;
mod support;
mod watch;
