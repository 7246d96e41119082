//! The HTTP client of the upstreams and its only send: `client` sends an [`UpstreamCall`] and returns an
//! [`UpstreamReply`]. Not here: budgets, retries, the interpretation of a response.

mod body;
mod builder;
mod call;
mod client;
mod clients;
mod egress;
mod error;
mod fetch;
mod mask;
mod reply;

pub use self::builder::CONNECT_TIMEOUT;
pub(super) use self::builder::strict_client;
pub use self::call::{BaseUrl, BaseUrlError, CallQuery, UpstreamCall, UrlSegment};
pub use self::client::{HttpClientError, UpstreamHttpClient};
pub use self::clients::HttpClients;
pub use self::egress::Egress;
pub(super) use self::error::chain;
pub use self::error::{EgressError, RedactedError, SendError};
pub use self::mask::SecretMask;
pub use self::reply::UpstreamReply;
