//! The bare handler: reads the request, and returns prepared bytes. It shows the cost of HTTP itself in this stack.

use std::net::Ipv4Addr;
use std::path::Path;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::net::TcpListener;

use super::client;
use super::servers::announce;

/// Serves until it is killed. The file contains an answer as it was on the wire, head and body.
pub(crate) async fn serve(answer: &Path) -> anyhow::Result<()> {
    let answer = std::fs::read(answer)?;
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4);
    let (head, body) = answer.split_at(head);
    let mut headers = HeaderMap::new();
    for (name, value) in client::fields(head)? {
        let name = HeaderName::try_from(name)?;
        // the server writes these itself
        if ![header::CONTENT_LENGTH, header::DATE].contains(&name) {
            headers.insert(name, HeaderValue::try_from(value)?);
        }
    }
    let routes =
        Router::new().route("/graphql", post(respond)).with_state((headers, Bytes::copy_from_slice(body)));
    // nodelay on both sides of the comparison
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    announce(listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| {
        stream.set_nodelay(true).ok();
    });
    axum::serve(listener, routes).await?;
    Ok(())
}

async fn respond(State(ready): State<(HeaderMap, Bytes)>, _request: Bytes) -> (HeaderMap, Bytes) {
    ready
}
