//! A schema with something to stream, behind a door of its own: what the tests of all transports share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_graphql::{Context, Object, Schema, Subscription};
use axum::Router;
use futures_util::stream::{self, Stream, StreamExt as _};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::coerce::InputTypes;
use super::handover::tell;
use super::http::Door;
use super::limits::Limits;
use crate::domain::principal::Principal;
use crate::inbound::error::Refusal;
use crate::inbound::layers::{self, Settings};
use crate::inbound::streams::{StreamSettings, Streams};

/// What the resolvers are given.
#[derive(Clone)]
struct World {
    running: Arc<AtomicUsize>,
    value: watch::Receiver<usize>,
}

struct Query;

#[Object]
impl Query {
    async fn hello(&self, ctx: &Context<'_>) -> String {
        format!("hello {}", ctx.data_unchecked::<Principal>().name())
    }
}

struct Mutation;

#[Object]
impl Mutation {
    async fn touch(&self) -> bool {
        true
    }
}

struct Watch;

/// Whoever asks.
struct Me;

#[Object]
impl Me {
    async fn name(&self, ctx: &Context<'_>) -> String {
        ctx.data_unchecked::<Principal>().name().to_owned()
    }
    async fn echo(&self, text: Option<String>) -> Option<String> {
        text
    }
    async fn fault(&self) -> Option<async_graphql::Result<i32>> {
        Some(Err(async_graphql::Error::new("n is odd")))
    }
}

/// Counts an operation as running for as long as it is held.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn running(ctx: &Context<'_>) -> Running {
    let counter = Arc::clone(&ctx.data_unchecked::<World>().running);
    counter.fetch_add(1, Ordering::SeqCst);
    Running(counter)
}

#[Subscription]
impl Watch {
    /// Counts and ends.
    async fn count(&self, to: i32) -> impl Stream<Item = i32> {
        stream::iter(1..=to)
    }
    /// Never says anything.
    async fn quiet(&self, ctx: &Context<'_>) -> impl Stream<Item = i32> {
        let running = running(ctx);
        tell(ctx, stream::pending().inspect(move |_: &i32| _ = &running))
    }
    /// The newest value each time somebody can take it, padded to a kilobyte; ends at a thousand.
    async fn newest(&self, ctx: &Context<'_>) -> impl Stream<Item = String> {
        let running = running(ctx);
        let value = ctx.data_unchecked::<World>().value.clone();
        let newest = stream::unfold((value, running), async |(mut value, running)| {
            if *value.borrow() == 1000 && matches!(value.has_changed(), Ok(false)) {
                return None;
            }
            value.changed().await.ok()?;
            let text = format!("{:>1000}", *value.borrow_and_update());
            Some((text, (value, running)))
        });
        tell(ctx, newest)
    }
    /// Says who asks, once, and stays.
    async fn me(&self, ctx: &Context<'_>, about: Option<String>) -> impl Stream<Item = Me> {
        drop(about);
        let running = running(ctx);
        tell(ctx, stream::iter([Me]).chain(stream::pending()).inspect(move |_| _ = &running))
    }
    /// Is refused by its resolver.
    async fn refused(&self) -> async_graphql::Result<stream::Empty<i32>> {
        std::future::ready(Err(async_graphql::Error::new("n is odd"))).await
    }
    /// One good answer and one that is an error.
    async fn half(&self, ctx: &Context<'_>) -> impl Stream<Item = async_graphql::Result<i32>> {
        tell(ctx, stream::iter([Ok(1), Err(async_graphql::Error::new("n is odd"))]))
    }
}

/// A door with all that a test wants to look at.
pub(super) struct House {
    pub(super) app: Router,
    pub(super) door: Door,
    pub(super) streams: Streams,
    pub(super) tasks: TaskTracker,
    pub(super) running: Arc<AtomicUsize>,
    pub(super) value: watch::Sender<usize>,
}

/// Knows two keys, `key` of the client `ui` and `other` of the client `other`; whoever brings none is `local`.
pub(super) fn house(settings: StreamSettings) -> House {
    let running = Arc::new(AtomicUsize::new(0));
    let (value, receiver) = watch::channel(0);
    let world = World { running: Arc::clone(&running), value: receiver };
    let schema = Schema::build(Query, Mutation, Watch).data(world).finish();
    let authenticate = |token: Option<&SecretString>| match token.map(ExposeSecret::expose_secret) {
        None => Ok(Principal::local()),
        Some("key") => Ok(Principal::new("ui", [])),
        Some("other") => Ok(Principal::new("other", [])),
        Some(_) => Err(Refusal::unauthenticated("the presented client key is not known here")),
    };
    let tasks = TaskTracker::new();
    let spawner = tasks.clone();
    let streams = Streams::new(settings, move |task| drop(spawner.spawn(task)));
    let types = InputTypes::from_sdl(&schema.sdl(), &[]).unwrap();
    let wait = Duration::from_secs(10);
    let door = Door::new(schema, types, authenticate, Limits::default(), wait, streams.clone());
    let routes = Router::new().route("/graphql", door.clone().route());
    let app = layers::around(routes, Settings::default());
    House { app, door, streams, tasks, running, value }
}
