//! The first rows of a completed query are served after its upstream has removed them, also after a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use jobgate::domain::error::ProblemCode;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::outbound::stores::embedded::{EmbeddedSettings, EmbeddedStore, RowLimits};
use jobgate::outbound::stores::rows::{KeptRows, MemoryRows};
use jobgate::ports::ledger::Ledger;
use jobgate::ports::store::JobStore;
use jobgate::ports::upstream::FetchError;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{FOLLOW, RuntimeClock, TestGateway, gateway_with, reference, retention};
use crate::support::scratch::ScratchFolder;

fn open(folder: &ScratchFolder) -> TestGateway {
    let clock = Arc::new(RuntimeClock::default());
    let rows = RowLimits { per_job: 64 << 10, max_bytes: 1 << 20 };
    let settings = EmbeddedSettings {
        path: folder.path().to_owned(),
        max_bytes: 64 << 20,
        rows,
        retention: retention(),
    };
    let store = Arc::new(EmbeddedStore::open(settings, Arc::clone(&clock) as Arc<_>).unwrap());
    let memory = MemoryRows::new(1 << 20, Duration::from_mins(10));
    let rows = Arc::new(KeptRows::new(memory, Arc::clone(&store)));
    let ledger = Arc::clone(&store) as Arc<dyn Ledger>;
    gateway_with(FOLLOW, clock, store as Arc<dyn JobStore>, ledger, |mut ports| {
        ports.rows = rows;
        ports
    })
}

#[tokio::test]
async fn stored_rows_survive_upstream_expiry_and_a_restart() {
    let folder = ScratchFolder::new();
    let (local, query) = (Principal::local(), reference("metrics", "q"));
    let gateway = open(&folder);
    let stop = CancellationToken::new();
    gateway.jobs.start_following(stop.clone());
    gateway.supermetrics.respond_with(|_| Ok(Life::Succeeded));
    gateway.jobs.watch(local.clone(), vec![query.clone()], None).collect::<Vec<_>>().await;
    stop.cancel();
    gateway.spawner.idle().await;
    assert_eq!(
        gateway.supermetrics.rows_requests.load(Ordering::Relaxed),
        1,
        "read as soon as it had succeeded"
    );
    gateway.jobs.close().await;
    drop(gateway);

    let gateway = open(&folder);
    gateway.supermetrics.respond_with(|_| Err(FetchError::NotFound));
    gateway.supermetrics.rows_gone.store(true, Ordering::Relaxed);
    let seen = gateway.jobs.lookup_one(&local, query, None).await.unwrap().observation;
    let rows =
        async |first, after: Option<String>| gateway.jobs.rows(&local, &seen, first, after.as_deref()).await;
    let page = rows(900, None).await.unwrap().unwrap();
    assert_eq!((page.rows.len(), page.has_next), (900, true));
    assert_eq!(page.rows[7].1[0].get(), "7", "cells keep their bytes");
    let behind = page.rows.last().map(|(cursor, _)| cursor.clone());
    let rest = rows(100, behind).await.unwrap().unwrap();
    assert_eq!(rest.rows.len(), 100);
    assert_eq!(
        gateway.supermetrics.rows_requests.load(Ordering::Relaxed),
        1,
        "fetched once, then cached in memory"
    );
    let beyond = rest.rows.last().map(|(cursor, _)| cursor.clone());
    assert_eq!(rows(100, beyond).await.unwrap_err().code, ProblemCode::Expired, "no more was stored");
}
