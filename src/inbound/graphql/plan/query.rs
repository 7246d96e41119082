//! The plan of a query: its root fields with their arguments and compiled selections. It resolves them with the
//! functions of the engine's resolvers, and writes the answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_graphql::parser::types::{OperationDefinition, OperationType};
use async_graphql::{ID, PathSegment, ServerError, Variables};
use futures_util::future::try_join_all;

use super::arguments::DeclaredVariables;
use super::compile::{Compiler, NotCovered};
use super::output;
use super::root::PlannedRoot;
use super::writer::{AnswerClient, AnswerWriter, WriteJson as _, WrittenJson};
use crate::inbound::graphql::schema::job::{JobResult, Node};
use crate::inbound::graphql::schema::job_connection::JobConnection;
use crate::inbound::graphql::schema::query::{self, AWAIT_FOR, JobListCall};
use crate::inbound::graphql::schema::reference::JobRefInput;
use crate::inbound::graphql::schema::scalars::Duration;
use crate::inbound::graphql::schema::source::GqlSource;
use crate::inbound::graphql::schema::viewer::GqlViewer;
use crate::jobs::visibility::RequestedRef;

/// The most bytes that an answer has room for before it is written.
const EXPECTED_MAX: usize = 256 * 1024;

/// The plan of a query for certain values of the variables in its directives.
pub(in crate::inbound::graphql) struct QueryPlan {
    roots: Vec<PlannedRoot<QueryRootField>>,
    /// The bytes of the last answer for each of its jobs: the next one is mostly as long, and need not grow.
    bytes_a_job: AtomicUsize,
}

#[derive(Clone, Copy)]
enum QueryRootField {
    TypeName,
    Node,
    Nodes,
    Job,
    Jobs,
    JobAwait,
    JobList,
    Sources,
    Viewer,
}

/// A root field with its arguments in a request.
#[derive(Debug)]
pub(in crate::inbound::graphql) enum QueryCall {
    TypeName,
    Node(RequestedRef),
    Nodes(Vec<RequestedRef>),
    Job(RequestedRef, Option<Duration>),
    Jobs(Vec<RequestedRef>, Option<Duration>),
    JobAwait(RequestedRef, Duration),
    JobList(Box<JobListCall>),
    Sources,
    Viewer,
}

/// The value of a root field.
enum QueryValue {
    TypeName,
    Node(Option<Box<async_graphql::Result<Node>>>),
    Nodes(Vec<Option<async_graphql::Result<Node>>>),
    Job(Box<JobResult>),
    Jobs(Vec<JobResult>),
    JobList(Box<JobConnection>),
    Sources(Vec<GqlSource>),
    Viewer(Box<GqlViewer>),
}

/// A query with its arguments in a request.
#[derive(Clone, Debug)]
pub(in crate::inbound::graphql) struct BoundQuery {
    pub(in crate::inbound::graphql) plan: Arc<QueryPlan>,
    pub(in crate::inbound::graphql) calls: Arc<[QueryCall]>,
}

/// What a query is executed with.
#[derive(Clone, Copy)]
pub(in crate::inbound::graphql) struct QueryScope<'a> {
    pub(in crate::inbound::graphql) client: AnswerClient<'a>,
    /// The size at which writing stops.
    pub(in crate::inbound::graphql) max: usize,
}

/// The answer of a plan.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct PlannedAnswer {
    /// The answer without its errors, as JSON: `{"data":…}`.
    pub(in crate::inbound::graphql) written: WrittenJson,
    pub(in crate::inbound::graphql) errors: Vec<ServerError>,
}

impl QueryPlan {
    /// A plan without a root field.
    #[cfg(test)]
    pub(in crate::inbound::graphql) const fn empty() -> Self {
        Self { roots: Vec::new(), bytes_a_job: AtomicUsize::new(0) }
    }

    /// Compiles a query of a valid document.
    ///
    /// # Errors
    /// Returns an error if only the engine can execute it.
    pub(in crate::inbound::graphql) fn compile<'a>(
        compiler: &mut Compiler<'a>,
        operation: &'a OperationDefinition,
    ) -> Result<Self, NotCovered> {
        let types = compiler.types;
        let query = types.root(OperationType::Query).ok_or(NotCovered)?;
        let declared = DeclaredVariables::of(operation);
        let mut roots: Vec<PlannedRoot<QueryRootField>> = Vec::new();
        for group in compiler.collect(&[&operation.selection_set.node], query, query)? {
            let root = PlannedRoot::compile(
                compiler,
                query,
                &group,
                roots.is_empty(),
                &declared,
                QueryRootField::of,
            )?;
            // the engine reports an error of a node for each of its fields
            if matches!(root.field, QueryRootField::Node | QueryRootField::Nodes) && group.fields.len() > 1 {
                return Err(NotCovered);
            }
            roots.push(root);
        }
        Ok(Self { roots, bytes_a_job: AtomicUsize::new(0) })
    }

    /// The root fields with their arguments; `None` if one is not valid, which the engine then reports.
    pub(in crate::inbound::graphql) fn bind(&self, variables: &Variables) -> Option<Arc<[QueryCall]>> {
        self.roots.iter().map(|root| root.call(variables)).collect()
    }

    /// Executes the query; `None` if the source of a job was removed from the configuration meanwhile, which the engine
    /// then reports.
    pub(in crate::inbound::graphql) async fn execute(
        &self,
        calls: &[QueryCall],
        scope: QueryScope<'_>,
    ) -> Option<PlannedAnswer> {
        let resolved = match calls {
            [only] => only.resolve(scope).await.map_err(|error| (0, error)).map(|only| vec![only]),
            calls => {
                let resolve = async |(index, call): (usize, &QueryCall)| {
                    call.resolve(scope).await.map_err(|error| (index, error))
                };
                try_join_all(calls.iter().enumerate().map(resolve)).await
            }
        };
        let values = match resolved {
            Ok(values) => values.into_iter(),
            // no root field of a list or a page is nullable
            Err((index, error)) => {
                let errors = self.roots.get(index).map(|root| root.error(error)).into_iter().collect();
                let written =
                    WrittenJson { json: "{\"data\":null}".to_owned(), texts: 0, is_for_any_client: false };
                return Some(PlannedAnswer { written, errors });
            }
        };
        self.write(calls, values.map(Some), scope)
    }

    /// Executes the query without waiting; `None` if it has to wait, or as [`QueryPlan::execute`].
    pub(in crate::inbound::graphql) fn execute_held(
        &self,
        calls: &[QueryCall],
        scope: QueryScope<'_>,
    ) -> Option<PlannedAnswer> {
        self.write(calls, calls.iter().map(|call| call.resolve_held(scope)), scope)
    }

    /// Writes the values of the root fields; `None` if one is missing, or the source of a job was removed.
    fn write(
        &self,
        calls: &[QueryCall],
        values: impl Iterator<Item = Option<QueryValue>>,
        scope: QueryScope<'_>,
    ) -> Option<PlannedAnswer> {
        let jobs = calls.iter().map(QueryCall::jobs).sum::<usize>().max(1);
        let expected = self.bytes_a_job.load(Ordering::Relaxed).saturating_mul(jobs);
        let mut out = AnswerWriter::with_capacity(expected.min(EXPECTED_MAX), scope.max, scope.client);
        let mut errors = Vec::new();
        out.raw("{\"data\":");
        for (root, value) in self.roots.iter().zip(values) {
            let value = value?;
            out.raw(&root.selected.prefix);
            root.write(value, &mut out, &mut errors);
        }
        out.raw(if self.roots.is_empty() { "{}}" } else { "}}" });
        let written = out.finish()?;
        self.bytes_a_job.store(written.json.len().div_ceil(jobs), Ordering::Relaxed);
        Some(PlannedAnswer { written, errors })
    }
}

impl QueryRootField {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "__typename" => Self::TypeName,
            "node" => Self::Node,
            "nodes" => Self::Nodes,
            "job" => Self::Job,
            "jobs" => Self::Jobs,
            "jobAwait" => Self::JobAwait,
            "jobList" => Self::JobList,
            "sources" => Self::Sources,
            "viewer" => Self::Viewer,
            _ => return None,
        })
    }
}

impl PlannedRoot<QueryRootField> {
    /// Its arguments in a request; `None` if one is not valid.
    fn call(&self, variables: &Variables) -> Option<QueryCall> {
        Some(match self.field {
            QueryRootField::TypeName => QueryCall::TypeName,
            QueryRootField::Sources => QueryCall::Sources,
            QueryRootField::Viewer => QueryCall::Viewer,
            QueryRootField::Node => QueryCall::Node(by_id(self.arguments.get(variables, "id")?)),
            QueryRootField::Nodes => QueryCall::Nodes(all(self.arguments.get(variables, "ids")?, by_id)),
            QueryRootField::Job => QueryCall::Job(
                by_ref(self.arguments.get(variables, "ref")?),
                self.arguments.get(variables, "maxStaleness")?,
            ),
            QueryRootField::Jobs => QueryCall::Jobs(
                all(self.arguments.get(variables, "refs")?, by_ref),
                self.arguments.get(variables, "maxStaleness")?,
            ),
            QueryRootField::JobAwait => {
                let given = self.arguments.is_given("timeout");
                let timeout = if given { self.arguments.get(variables, "timeout")? } else { AWAIT_FOR };
                QueryCall::JobAwait(by_ref(self.arguments.get(variables, "ref")?), timeout)
            }
            QueryRootField::JobList => QueryCall::JobList(Box::new(JobListCall {
                filter: self.arguments.get(variables, "filter")?,
                order_by: self.arguments.get(variables, "orderBy")?,
                first: self.arguments.get(variables, "first")?,
                after: self.arguments.get(variables, "after")?,
                counts: output::selects::<JobConnection>(&self.selected.below, "total_count"),
            })),
        })
    }

    fn write(&self, value: QueryValue, out: &mut AnswerWriter<'_>, errors: &mut Vec<ServerError>) {
        let of = &self.selected;
        match value {
            QueryValue::TypeName => out.text("Query"),
            QueryValue::Job(result) => result.write(of, out),
            QueryValue::Jobs(results) => results.write(of, out),
            QueryValue::JobList(page) => page.write(of, out),
            QueryValue::Sources(sources) => sources.write(of, out),
            QueryValue::Viewer(viewer) => viewer.write(of, out),
            QueryValue::Node(node) => self.node(node.map(|node| *node), None, out, errors),
            QueryValue::Nodes(nodes) => {
                let nodes = nodes.into_iter().enumerate();
                out.list(nodes, |out, (index, node)| self.node(node, Some(index), out, errors));
            }
        }
    }

    /// Writes a node, or null and its error.
    fn node(
        &self,
        node: Option<async_graphql::Result<Node>>,
        index: Option<usize>,
        out: &mut AnswerWriter<'_>,
        errors: &mut Vec<ServerError>,
    ) {
        match node {
            Some(Ok(node)) => node.write(&self.selected, out),
            Some(Err(error)) => {
                let mut error = self.error(error);
                error.path.extend(index.map(PathSegment::Index));
                errors.push(error);
                out.raw("null");
            }
            None => out.raw("null"),
        }
    }
}

impl QueryCall {
    /// The number of jobs that it names.
    fn jobs(&self) -> usize {
        match self {
            Self::TypeName | Self::Viewer | Self::JobList(_) | Self::Sources => 0,
            Self::Node(_) | Self::Job(..) | Self::JobAwait(..) => 1,
            Self::Nodes(refs) | Self::Jobs(refs, _) => refs.len(),
        }
    }

    /// Resolves the field, if it does not have to wait.
    fn resolve_held(&self, QueryScope { client, .. }: QueryScope<'_>) -> Option<QueryValue> {
        let AnswerClient { jobs, principal, .. } = client;
        match self {
            Self::Job(reference, max) => {
                query::held_job(jobs, principal, reference, *max).map(|job| QueryValue::Job(Box::new(job)))
            }
            Self::Jobs(refs, max) => query::held_jobs(jobs, principal, refs, *max).map(QueryValue::Jobs),
            Self::TypeName
            | Self::Viewer
            | Self::Node(_)
            | Self::Nodes(_)
            | Self::JobAwait(..)
            | Self::JobList(_)
            | Self::Sources => None,
        }
    }

    /// Resolves the field.
    ///
    /// # Errors
    /// Returns an error if an argument is out of its bounds, or the store does not respond.
    async fn resolve(&self, QueryScope { client, .. }: QueryScope<'_>) -> async_graphql::Result<QueryValue> {
        let AnswerClient { jobs, principal, .. } = client;
        Ok(match self {
            Self::TypeName => QueryValue::TypeName,
            Self::Node(id) => QueryValue::Node(query::node(jobs, principal, id).await.map(Box::new)),
            Self::Nodes(ids) => QueryValue::Nodes(query::nodes(jobs, principal, ids).await?),
            Self::Job(reference, max) => {
                QueryValue::Job(Box::new(query::job(jobs, principal, reference, *max).await?))
            }
            Self::Jobs(refs, max) => QueryValue::Jobs(query::jobs(jobs, principal, refs, *max).await?),
            Self::JobAwait(reference, timeout) => {
                QueryValue::Job(Box::new(query::job_await(jobs, principal, reference, *timeout).await))
            }
            Self::JobList(call) => QueryValue::JobList(Box::new(
                query::job_list(jobs, principal, JobListCall::clone(call)).await?,
            )),
            Self::Sources => QueryValue::Sources(query::sources(jobs, principal)),
            Self::Viewer => QueryValue::Viewer(Box::new(GqlViewer::of(principal))),
        })
    }
}

fn by_id(id: ID) -> RequestedRef {
    RequestedRef::id(id.0)
}

fn by_ref(reference: JobRefInput) -> RequestedRef {
    reference.into()
}

fn all<T>(list: Vec<T>, one: fn(T) -> RequestedRef) -> Vec<RequestedRef> {
    list.into_iter().map(one).collect()
}

impl fmt::Debug for QueryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryPlan").field("root_fields", &self.roots.len()).finish_non_exhaustive()
    }
}
