//! What polls of each job need for a replayed batch, without a call: at a fixed interval, and as the Supermetrics client
//! polls.

use std::ops::RangeInclusive;

use super::{JobRun, LATENCY, LagQuantiles};

/// Fixed intervals are compared in steps of a tenth of a second, from half a second to two minutes: the gateway polls at
/// intervals from one second to 30.
const STEP: f64 = 0.1;
const STEPS: RangeInclusive<u32> = 5..=1_200;

/// The polls after the first reads, and how late ends are detected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polled {
    pub(crate) calls: usize,
    pub(crate) lags: LagQuantiles,
}

/// Polls each job by a call of its own; `interval` is the time to the next poll, in seconds, by the age of the job.
pub(crate) fn one_by_one(batches: &[Vec<JobRun>], interval: impl Fn(f64) -> f64) -> Polled {
    let latency = LATENCY.as_secs_f64();
    let (mut calls, mut lags) = (0, Vec::new());
    for run in batches.iter().flatten() {
        let lasts = run.lasts.as_secs_f64();
        let mut sent = 0.0;
        // The first read is not counted: every schedule makes it.
        while sent + latency / 2.0 < lasts {
            sent += interval(sent);
            calls += 1;
        }
        lags.push(sent + latency - lasts);
    }
    Polled { calls, lags: LagQuantiles::of(lags) }
}

/// Polls all unfinished jobs together every so many seconds, up to `ids` of them with one call.
fn together(batch: &[JobRun], every: f64, ids: usize) -> (usize, Vec<f64>) {
    let latency = LATENCY.as_secs_f64();
    let (mut begun, mut detected, mut lags) = (Vec::new(), Vec::new(), Vec::new());
    for run in batch {
        let (began, lasts) = (run.begins.as_secs_f64(), run.lasts.as_secs_f64());
        // The first round after the first read, and the first that finds the job ended.
        let first = (began / every).floor() + 1.0;
        let last = ((began + lasts - latency / 2.0) / every).ceil().max(first);
        begun.push(first);
        detected.push(last);
        lags.push(last * every + latency - began - lasts);
    }
    begun.sort_by(f64::total_cmp);
    detected.sort_by(f64::total_cmp);
    let (mut round, mut calls) = (0.0, 0);
    let (mut open, mut over) = (0, 0);
    while over < batch.len() {
        open += begun[open..].iter().take_while(|first| **first <= round).count();
        over += detected[over..].iter().take_while(|last| **last < round).count();
        calls += (open - over).div_ceil(ids);
        round += 1.0;
    }
    (calls, lags)
}

/// Polls at a fixed interval, with up to `ids` jobs of a batch a call.
fn every(batches: &[Vec<JobRun>], interval: f64, ids: usize) -> Polled {
    if ids == 1 {
        return one_by_one(batches, |_| interval);
    }
    let polled = batches.iter().map(|batch| together(batch, interval, ids));
    let (calls, lags): (Vec<usize>, Vec<Vec<f64>>) = polled.unzip();
    Polled { calls: calls.into_iter().sum(), lags: LagQuantiles::of(lags.concat()) }
}

/// The longest fixed interval whose median lag is not longer than this, and what it needs.
pub(crate) fn longest(batches: &[Vec<JobRun>], median: f64, ids: usize) -> Option<(f64, Polled)> {
    let intervals = STEPS.rev().map(|steps| f64::from(steps) * STEP);
    let mut polled = intervals.map(|interval| (interval, every(batches, interval, ids)));
    polled.find(|(_, polled)| polled.lags.median <= median)
}

/// The schedule of the Supermetrics client: 1 s for 5 s, 2 s to 20 s, then 5 s.
pub(crate) fn supermetrics_client(age: f64) -> f64 {
    if age < 5.0 {
        1.0
    } else if age < 20.0 {
        2.0
    } else {
        5.0
    }
}
