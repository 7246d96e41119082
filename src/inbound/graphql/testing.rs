//! A schema with subscriptions, behind an endpoint of its own: shared by the tests of all transports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_graphql::{Context, Object, Schema, Subscription};
use axum::Router;
use axum::routing::any;
use futures_util::stream::{self, Stream, StreamExt as _};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::document::admission::Admission;
use super::document::coercion::InputTypes;
use super::document::limits::DocumentLimits;
use super::execution::endpoint::GraphqlEndpoint;
use super::schema::costs;
use super::transport;
use crate::domain::id::SourceName;
use crate::domain::principal::{CredentialInfo, Principal};
use crate::inbound::auth::authenticator::Authenticator;
use crate::inbound::http::error::HttpRefusal;
use crate::inbound::http::layers;
use crate::inbound::http::layers::LayerSettings;
use crate::inbound::http::request_facts::RequestFacts;
use crate::inbound::streams::{StreamRegistry, StreamSettings};

/// The data of the resolvers.
#[derive(Clone)]
struct World {
    running: Arc<AtomicUsize>,
    value: watch::Receiver<usize>,
}

struct TestQuery;

#[Object(name = "Query")]
impl TestQuery {
    async fn hello(&self, ctx: &Context<'_>) -> String {
        format!("hello {}", ctx.data_unchecked::<Principal>().name())
    }
}

struct TestMutation;

#[Object(name = "Mutation")]
impl TestMutation {
    async fn touch(&self) -> bool {
        true
    }
}

struct Watch;

/// The authenticated client.
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
    /// Emits nothing.
    async fn quiet(&self, ctx: &Context<'_>) -> impl Stream<Item = i32> {
        let running = running(ctx);
        stream::pending().inspect(move |_: &i32| _ = &running)
    }
    /// The newest value whenever it is polled, padded to a kilobyte; ends at a thousand.
    async fn newest(&self, ctx: &Context<'_>) -> impl Stream<Item = String> {
        let running = running(ctx);
        let value = ctx.data_unchecked::<World>().value.clone();
        stream::unfold((value, running), async |(mut value, running)| {
            if *value.borrow() == 1000 && matches!(value.has_changed(), Ok(false)) {
                return None;
            }
            value.changed().await.ok()?;
            let text = format!("{:>1000}", *value.borrow_and_update());
            Some((text, (value, running)))
        })
    }
    /// Emits the name of the client once, and stays open.
    async fn me(&self, ctx: &Context<'_>, about: Option<String>) -> impl Stream<Item = Me> {
        drop(about);
        let running = running(ctx);
        stream::iter([Me]).chain(stream::pending()).inspect(move |_| _ = &running)
    }
    /// Its resolver returns an error.
    async fn refused(&self) -> async_graphql::Result<stream::Empty<i32>> {
        std::future::ready(Err(async_graphql::Error::new("n is odd"))).await
    }
    /// One value and one error.
    async fn half(&self) -> impl Stream<Item = async_graphql::Result<i32>> {
        stream::iter([Ok(1), Err(async_graphql::Error::new("n is odd"))])
    }
}

/// The known clients. `key` is the client `ui` and `other` the client `other`, for ever; `key-60` and `more-60` are
/// `ui` until a minute after the fixture was built, `more` with another grant; a request without a credential is
/// `local`.
#[derive(Clone, Debug)]
pub(super) struct TestClients {
    built: Instant,
    shut: Arc<AtomicBool>,
}

impl TestClients {
    /// Keeps authenticating, and makes every credential invalid.
    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }
}

impl Authenticator for TestClients {
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, HttpRefusal> {
        let unknown = || HttpRefusal::unauthenticated("unknown client key");
        let (word, seconds) = match presented.map(ExposeSecret::expose_secret) {
            None => return Ok(Principal::local()),
            Some(text) => match text.split_once('-') {
                None => (text, None),
                Some((word, seconds)) => (word, Some(seconds.parse::<u64>().map_err(|_| unknown())?)),
            },
        };
        let client = match word {
            "key" => Principal::new("ui", []),
            "more" => Principal::new("ui", SourceName::parse("audit")),
            "other" => Principal::new("other", []),
            _ => return Err(unknown()),
        };
        let expires = seconds.map(|seconds| Timestamp::UNIX_EPOCH + Duration::from_secs(seconds));
        Ok(client.with_credential(CredentialInfo { expires, ..CredentialInfo::default() }))
    }

    fn expires_in(&self, principal: &Principal) -> Option<Duration> {
        let now = Timestamp::UNIX_EPOCH + self.built.elapsed();
        Some(Duration::try_from(principal.credential().expires?.duration_since(now)).unwrap_or_default())
    }

    fn is_valid(&self, _: &Principal) -> bool {
        !self.shut.load(Ordering::SeqCst)
    }
}

/// An endpoint with everything that a test inspects.
pub(super) struct TestGraphql {
    pub(super) app: Router,
    pub(super) endpoint: GraphqlEndpoint,
    pub(super) streams: StreamRegistry,
    pub(super) tasks: TaskTracker,
    pub(super) running: Arc<AtomicUsize>,
    pub(super) value: watch::Sender<usize>,
    pub(super) guests: TestClients,
}

/// Admits the clients of [`TestClients`].
pub(super) fn fixture(settings: StreamSettings) -> TestGraphql {
    let running = Arc::new(AtomicUsize::new(0));
    let (value, receiver) = watch::channel(0);
    let world = World { running: Arc::clone(&running), value: receiver };
    let schema = Schema::build(TestQuery, TestMutation, Watch).data(world).finish();
    let guests = TestClients { built: Instant::now(), shut: Arc::default() };
    let tasks = TaskTracker::new();
    let spawner = tasks.clone();
    let streams = StreamRegistry::new(settings, move |task| drop(spawner.spawn(task)));
    let types = InputTypes::from_sdl(&schema.sdl(), &[]).unwrap().with_costs(costs::all());
    let wait = Duration::from_secs(10);
    let endpoint = GraphqlEndpoint::new(
        schema,
        types,
        guests.clone(),
        DocumentLimits::default(),
        Admission::default(),
        wait,
        streams.clone(),
    );
    let routes = router(endpoint.clone());
    let app = layers::around(routes, &LayerSettings::default());
    TestGraphql { app, endpoint, streams, tasks, running, value, guests }
}

/// A router with nothing but an endpoint.
pub(super) fn router(endpoint: GraphqlEndpoint) -> Router {
    let serve =
        async move |facts: RequestFacts, request| transport::http::serve(&endpoint, request, &facts).await;
    Router::new().route("/graphql", any(serve))
}
