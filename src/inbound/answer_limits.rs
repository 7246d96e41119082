//! What the computation of answers may use, in total and for one client: memory and processor time. Not here: how many
//! requests a client may send (`client_limits`), and how large a document may be (`graphql/document/limits`).

pub mod answer_memory;
mod by_client;
pub mod cpu_limiter;
