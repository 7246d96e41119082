//! How a request arrives and its answers leave: HTTP, event streams, multipart and WebSocket. Not here: what a document
//! may do, and how it is executed.

mod event_stream;
pub mod http;
mod multipart;
mod sse;
mod stream_refusal;
mod ws;
