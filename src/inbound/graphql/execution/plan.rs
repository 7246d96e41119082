//! Plans for the updates of a subscription, shared by equal subscriptions: the selection of a root field, ready to be
//! executed repeatedly. Not here: the stream of updates, which is each subscriber's own.
//!
//! The engine would keep a copy of the document, of the variables and of all derived data for every subscriber.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_graphql::extensions::Extensions;
use async_graphql::parser::types::{
    Directive, ExecutableDocument, Field, FragmentDefinition, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::{
    Context, Data, Name, OutputType, Pos, Positioned, QueryEnv, QueryEnvInner, QueryPathNode,
    QueryPathSegment, Response, SchemaEnv, Value, Variables,
};

use crate::inbound::graphql::plan::document::ParsedDocument;

/// Environments of one plan that are kept for the next update: as many as are in use at once on a large machine.
const IDLE_MAX: usize = 16;

/// The plans in use. A clone is cheap and shares them.
#[derive(Clone, Default)]
pub(in crate::inbound::graphql) struct UpdatePlans(Arc<Mutex<HashMap<PlanKey, Weak<UpdatePlan>>>>);

/// The key by which two subscriptions share a plan, whichever jobs they follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PlanKey {
    /// The address of the document. A plan holds the document, so the address is unique while the plan is in use.
    document: usize,
    operation: Option<String>,
    /// The position of the root field in the document.
    field: Pos,
    /// The variables that are used outside of the arguments of root fields, serialized.
    variables: String,
}

/// The execution plan for the updates of one root field.
pub(in crate::inbound::graphql) struct UpdatePlan {
    _document: Arc<ParsedDocument>,
    schema: SchemaEnv,
    field: Positioned<Field>,
    template: PlanTemplate,
    idle: Mutex<Vec<QueryEnv>>,
}

/// The template of an environment.
struct PlanTemplate {
    extensions: Extensions,
    operation_name: Option<String>,
    operation: Positioned<OperationDefinition>,
    fragments: HashMap<Name, Positioned<FragmentDefinition>>,
    variables: Variables,
}

impl UpdatePlans {
    /// The plan for the root field that the engine resolves in this context, of this document.
    pub(in crate::inbound::graphql) fn of(
        &self,
        ctx: &Context<'_>,
        document: &Arc<ParsedDocument>,
    ) -> Arc<UpdatePlan> {
        let name = ctx.query_env.operation_name.as_deref();
        let variables = variables_below(&document.executable, name, &ctx.query_env.variables);
        let key = PlanKey {
            document: Arc::as_ptr(document).addr(),
            operation: name.map(ToOwned::to_owned),
            field: ctx.item.pos,
            variables: variables.to_string(),
        };
        let mut held = lock(&self.0);
        if let Some(plan) = held.get(&key).and_then(Weak::upgrade) {
            return plan;
        }
        if held.len() == held.capacity() {
            // before it grows: unused plans are removed
            held.retain(|_, plan| plan.strong_count() > 0);
        }
        let plan = Arc::new(UpdatePlan::new(ctx, Arc::clone(document), variables));
        held.insert(key, Arc::downgrade(&plan));
        plan
    }

    #[cfg(test)]
    pub(in crate::inbound::graphql) fn in_use(&self) -> usize {
        lock(&self.0).values().filter(|plan| plan.strong_count() > 0).count()
    }
}

impl UpdatePlan {
    fn new(ctx: &Context<'_>, document: Arc<ParsedDocument>, variables: Variables) -> Self {
        let env = ctx.query_env;
        // its arguments have been used already
        let item = &ctx.item.node;
        let field = Field {
            alias: item.alias.clone(),
            name: item.name.clone(),
            arguments: Vec::new(),
            directives: item.directives.clone(),
            selection_set: item.selection_set.clone(),
        };
        let operation = &env.operation.node;
        let operation = OperationDefinition {
            ty: operation.ty,
            variable_definitions: operation.variable_definitions.clone(),
            directives: Vec::new(),
            selection_set: Positioned::new(SelectionSet::default(), operation.selection_set.pos),
        };
        let template = PlanTemplate {
            extensions: env.extensions.clone(),
            operation_name: env.operation_name.clone(),
            operation: Positioned::new(operation, env.operation.pos),
            fragments: env.fragments.clone(),
            variables,
        };
        let field = Positioned::new(field, ctx.item.pos);
        let schema = ctx.schema_env.clone();
        Self { _document: document, schema, field, template, idle: Mutex::default() }
    }

    /// Executes the selection for one update, as the engine would. `data` is that of the subscriber's request: the
    /// environment has none.
    ///
    /// No extension of the engine is run, since none is registered.
    pub(in crate::inbound::graphql) async fn execute<T: OutputType>(
        self: Arc<Self>,
        data: Arc<Data>,
        update: T,
    ) -> Response {
        let env = lock(&self.idle).pop().unwrap_or_else(|| self.template.environment());
        let name = &self.field.node.response_key().node;
        let node = QueryPathNode { parent: None, segment: QueryPathSegment::Name(name) };
        let selection = &self.field.node.selection_set;
        let ctx = env.create_context(&self.schema, Some(node), selection, Some(&data));
        let mut response = match update.resolve(&ctx, &self.field).await {
            Ok(value) => Response::new(Value::Object([(name.clone(), value)].into_iter().collect())),
            Err(error) => Response::from_errors(vec![error]),
        };
        // an environment that is dropped meanwhile is not reused, so no error is left over for another subscriber
        response.errors.append(&mut lock(&env.errors));
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_MAX {
            idle.push(env);
        }
        response
    }
}

impl PlanTemplate {
    fn environment(&self) -> QueryEnv {
        QueryEnv::new(QueryEnvInner {
            extensions: self.extensions.clone(),
            variables: self.variables.clone(),
            operation_name: self.operation_name.clone(),
            operation: self.operation.clone(),
            fragments: self.fragments.clone(),
            uploads: Vec::new(),
            session_data: Arc::default(),
            query_data: Arc::default(),
            http_headers: Mutex::default(),
            introspection_mode: async_graphql::IntrospectionMode::Enabled,
            errors: Mutex::default(),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The variables that are used elsewhere than in the arguments of a root field. Only those affect an answer once the
/// root field has been resolved; the followed jobs are among the others.
fn variables_below(document: &ExecutableDocument, operation: Option<&str>, given: &Variables) -> Variables {
    let mut used = UsedVariables::default();
    let mut operations = document.operations.iter();
    if let Some((_, found)) = operations.find(|(name, _)| name.map(Name::as_str) == operation) {
        for selection in &found.node.selection_set.node.items {
            match &selection.node {
                Selection::Field(field) => {
                    used.directives(&field.node.directives);
                    used.set(&field.node.selection_set.node);
                }
                Selection::FragmentSpread(_) | Selection::InlineFragment(_) => {
                    used.selection(&selection.node);
                }
            }
        }
    }
    for fragment in document.fragments.values() {
        used.directives(&fragment.node.directives);
        used.set(&fragment.node.selection_set.node);
    }
    let mut variables = Variables::default();
    for name in used.0 {
        if let Some(value) = given.get(&name) {
            variables.insert(name, value.clone());
        }
    }
    variables
}

/// Names of variables. The document is within the limits, so its levels are few.
#[derive(Default)]
struct UsedVariables(BTreeSet<Name>);

impl UsedVariables {
    fn set(&mut self, set: &SelectionSet) {
        for selection in &set.items {
            self.selection(&selection.node);
        }
    }

    fn selection(&mut self, selection: &Selection) {
        match selection {
            Selection::Field(field) => {
                for (_, value) in &field.node.arguments {
                    let Ok(_) =
                        value.node.clone().into_const_with(|name| Ok::<_, Infallible>(self.saw(name)));
                }
                self.directives(&field.node.directives);
                self.set(&field.node.selection_set.node);
            }
            Selection::FragmentSpread(spread) => self.directives(&spread.node.directives),
            Selection::InlineFragment(inline) => {
                self.directives(&inline.node.directives);
                self.set(&inline.node.selection_set.node);
            }
        }
    }

    fn directives(&mut self, directives: &[Positioned<Directive>]) {
        for (_, value) in directives.iter().flat_map(|directive| &directive.node.arguments) {
            let Ok(_) = value.node.clone().into_const_with(|name| Ok::<_, Infallible>(self.saw(name)));
        }
    }

    /// A variable in a value; nothing else is read from the value.
    fn saw(&mut self, name: Name) -> Value {
        self.0.insert(name);
        Value::Null
    }
}

impl fmt::Debug for UpdatePlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdatePlans").finish_non_exhaustive()
    }
}

impl fmt::Debug for UpdatePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdatePlan").field("field", &self.field.node.name.node).finish_non_exhaustive()
    }
}
