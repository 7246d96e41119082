//! What every HTTP request passes through, whichever handler serves it: the layers, the table of routes, and the form of
//! a refusal. Not here: handlers, and what is specific to one.

mod access_log;
pub(in crate::inbound) mod body_limit;
pub mod concurrency_limit;
mod cors;
pub(in crate::inbound) mod deadline;
pub mod error;
pub(in crate::inbound) mod etag;
pub(in crate::inbound) mod fixed_headers;
mod host;
pub mod layers;
mod load_shed;
pub mod min_rate_body;
pub mod origins;
pub mod peer;
pub(in crate::inbound) mod refusal_form;
pub mod request_facts;
mod request_id;
mod request_metrics;
mod request_span;
pub(in crate::inbound) mod route;
