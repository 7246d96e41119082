//! The two forms of a refusal: problem details for REST, a GraphQL response for everything else.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};
use serde_json::{Map, Value};

use super::error::HttpRefusal;
use super::route::Route;

/// The response to a refused request, in the form of the handler of its route.
pub(in crate::inbound) fn refuse(route: Option<Route>, refusal: HttpRefusal) -> Response {
    if route.is_some_and(Route::is_rest) { refusal.into_problem() } else { refusal.into_response() }
}

impl HttpRefusal {
    /// The refusal as problem details (RFC 9457).
    pub(crate) fn into_problem(self) -> Response {
        let mut body = Map::new();
        body.insert("type".to_owned(), "about:blank".into());
        body.insert("status".to_owned(), self.kind().status().as_u16().into());
        body.insert("title".to_owned(), self.kind().status().canonical_reason().unwrap_or_default().into());
        body.insert("code".to_owned(), self.kind().code().into());
        let mut response = self.into_response_with(|message| {
            body.insert("detail".to_owned(), message.into());
            Value::Object(body).to_string()
        });
        let media = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        response
    }
}
