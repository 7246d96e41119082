//! What happens to a document before it is executed: it is resolved, parsed, limited, and its variables are coerced. Not
//! here: execution, and anything of a transport.

pub mod admission;
pub mod coercion;
mod generations;
pub mod known_requests;
pub mod limits;
pub mod operation;
mod parse_cache;
pub mod persisted;
pub mod request;
