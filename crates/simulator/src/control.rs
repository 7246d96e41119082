//! The control endpoints under `/_sim/` on each listener, for tests in another process.
//!
//! They answer loopback peers only and require no credential: a simulator has no data worth one.

use std::sync::Arc;

use http::Method;
use jiff::SignedDuration;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Handle, MindBridgeJob, MindBridgeStep, SimFault, SimJob, SimList, SimStep, SimUpstream, SupermetricsJob,
    SupermetricsStep,
};

use super::request::{Incoming, decode};

use super::reply::SimReply;

use super::world::SimWorld;

/// The prefix of every control path.
pub(super) const PREFIX: &str = "/_sim/";

/// Answers a control request.
pub(super) fn answer(world: &Arc<SimWorld>, upstream: SimUpstream, incoming: &Incoming) -> SimReply {
    if !incoming.peer.ip().to_canonical().is_loopback() {
        return refusal(403, "control is for loopback clients only").into_reply();
    }
    let handle = Handle::new(Arc::clone(world));
    let path = incoming.path().strip_prefix(PREFIX).unwrap_or_default();
    let segments: Vec<&str> = path.split('/').collect();
    let outcome = match (&incoming.method, segments.as_slice()) {
        (&Method::GET, ["requests"]) => Ok(json!({
            "requests": handle.record_as_json(upstream),
            "max_in_flight": handle.max_in_flight(upstream),
            "received": handle.received_as_json(upstream),
        })),
        (&Method::DELETE, ["requests"]) => {
            handle.world().ledger.clear(Some(upstream));
            Ok(Value::Null)
        }
        (&Method::GET, ["jobs"]) => Ok(json!({ "ids": handle.job_ids(upstream) })),
        (&Method::POST, ["jobs"]) => job(upstream, incoming).map(|job| {
            handle.add_job(job);
            Value::Null
        }),
        (&Method::DELETE, ["jobs", id]) => {
            handle.forget(upstream, &decode(id));
            Ok(Value::Null)
        }
        (&Method::POST, ["jobs", id, "state"]) => step(upstream, incoming).and_then(|step| {
            let set = handle.set_state(&decode(id), step);
            set.map(|()| Value::Null).map_err(|error| refusal(404, &error.to_string()))
        }),
        (&Method::POST, ["faults"]) => fault(upstream, incoming).map(|fault| {
            handle.push_fault(fault);
            Value::Null
        }),
        (&Method::DELETE, ["faults"]) => {
            handle.clear_faults(Some(upstream));
            Ok(Value::Null)
        }
        (&Method::PUT, ["list"]) => list(upstream, incoming).map(|list| {
            handle.set_list(upstream, list);
            Value::Null
        }),
        (&Method::PUT, ["clock"]) => read::<ClockSetting>(incoming).map(|ClockSetting { skew }| {
            handle.set_clock_skew(upstream, skew);
            Value::Null
        }),
        (&Method::POST, ["release"]) => {
            handle.release();
            Ok(Value::Null)
        }
        _ => Err(refusal(404, "there is no such control endpoint: see docs/simulator.md")),
    };
    match outcome {
        Ok(Value::Null) => SimReply::empty(204),
        Ok(document) => SimReply::json(200, document),
        Err(refusal) => refusal.into_reply(),
    }
}

fn job(upstream: SimUpstream, incoming: &Incoming) -> Result<SimJob, ControlError> {
    let job = match upstream {
        SimUpstream::MindBridge => SimJob::from(read::<MindBridgeJob>(incoming)?),
        SimUpstream::Supermetrics => SimJob::from(read::<SupermetricsJob>(incoming)?),
    };
    // The same checks as for a scenario file, so that an invalid job is rejected with the path of its field.
    let mut scenario = super::Scenario::default();
    match job.clone() {
        SimJob::MindBridge(job) => scenario.mindbridge.jobs.push(*job),
        SimJob::Supermetrics(job) => scenario.supermetrics.jobs.push(*job),
    }
    scenario.check().map_err(|error| refusal(400, &error.to_string()))?;
    Ok(job)
}

fn list(upstream: SimUpstream, incoming: &Incoming) -> Result<SimList, ControlError> {
    let list: SimList = read(incoming)?;
    let mut scenario = super::Scenario::default();
    match upstream {
        SimUpstream::MindBridge => scenario.mindbridge.list = list.clone(),
        SimUpstream::Supermetrics => scenario.supermetrics.list = list.clone(),
    }
    scenario.check().map_err(|error| refusal(400, &error.to_string()))?;
    Ok(list)
}

fn step(upstream: SimUpstream, incoming: &Incoming) -> Result<SimStep, ControlError> {
    Ok(match upstream {
        SimUpstream::MindBridge => read::<MindBridgeStep>(incoming)?.into(),
        SimUpstream::Supermetrics => read::<SupermetricsStep>(incoming)?.into(),
    })
}

/// Reads a fault; its `upstream` may be omitted, since the listener determines it.
fn fault(upstream: SimUpstream, incoming: &Incoming) -> Result<SimFault, ControlError> {
    let mut document: Value = read(incoming)?;
    if let Some(map) = document.as_object_mut() {
        map.entry("upstream").or_insert_with(|| upstream.as_str().into());
    }
    let fault: SimFault = serde_path_to_error::deserialize(document).map_err(|error| bad(&error))?;
    if fault.upstream == upstream {
        Ok(fault)
    } else {
        Err(refusal(400, "upstream: is the other one: post the fault to its own listener"))
    }
}

fn read<T: DeserializeOwned>(incoming: &Incoming) -> Result<T, ControlError> {
    let mut deserializer = serde_json::Deserializer::from_slice(&incoming.body);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| bad(&error))
}

fn bad(error: &serde_path_to_error::Error<serde_json::Error>) -> ControlError {
    refusal(400, &format!("{}: {}", error.path(), error.inner()))
}

/// The setting of an upstream's clock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockSetting {
    skew: SignedDuration,
}

/// Why a control request is rejected.
struct ControlError {
    status: u16,
    problem: String,
}

impl ControlError {
    fn into_reply(self) -> SimReply {
        SimReply::json(self.status, json!({ "problem": self.problem }))
    }
}

fn refusal(status: u16, problem: &str) -> ControlError {
    ControlError { status, problem: problem.to_owned() }
}
