//! Why a stream ends: one closed list, and the one table from it to the close code of a WebSocket and the label of the
//! log. No other module uses a close code.

/// Why a stream ended. A new variant does not compile until the table has a row for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its operation is complete.
    Completed,
    /// The client closed it, or its connection broke.
    ClientLeft,
    /// The process is draining.
    Drained,
    /// It reached the maximum age of a stream.
    TooOld,
    /// The client has reached its limit of streams, or the gateway is full.
    Overload,
    /// The credential that it was opened with has expired.
    CredentialExpired,
    /// The client's access was revoked.
    Revoked,
    /// The client presented no credential, and one is required.
    CredentialMissing,
    /// The client presented something that is not one bearer token.
    CredentialMalformed,
    /// The credential of the client is unknown.
    CredentialUnknown,
    /// The token that the client presented cannot be checked yet, or is not valid yet.
    CredentialUnverified,
    /// The credential is valid, but not for this request.
    Forbidden,
    /// The peer did not respond to a ping.
    DeadPeer,
    /// The peer did not read the data that was sent to it.
    SlowPeer,
    /// No `connection_init` came in time.
    InitTimeout,
    /// A second `connection_init`.
    SecondInit,
    /// A `subscribe` before the `connection_ack`.
    NotAcknowledged,
    /// A `subscribe` with the id of a running operation.
    DuplicateId,
    /// A message that is not JSON.
    NotJson,
    /// A message that is not an object with a `type`.
    NoType,
    /// A message of the legacy protocol.
    LegacyProtocol,
    /// A message of a type that a client does not send.
    UnknownType,
    /// A message with the wrong members for its type.
    WrongShape,
    /// A binary message.
    Binary,
    /// A message that is longer than the limit.
    MessageTooBig,
    /// A text message that is not UTF-8.
    NotUtf8,
    /// Invalid WebSocket frames.
    BrokenFrames,
}

/// The meaning of one reason.
struct EndReasonRow {
    word: &'static str,
    close: Option<(u16, &'static str)>,
}

const fn quiet(word: &'static str) -> EndReasonRow {
    EndReasonRow { word, close: None }
}

const fn text(word: &'static str, code: u16, reason: &'static str) -> EndReasonRow {
    EndReasonRow { word, close: Some((code, reason)) }
}

impl EndReason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 27] = [
        Self::Completed,
        Self::ClientLeft,
        Self::Drained,
        Self::TooOld,
        Self::Overload,
        Self::CredentialExpired,
        Self::Revoked,
        Self::CredentialMissing,
        Self::CredentialMalformed,
        Self::CredentialUnknown,
        Self::CredentialUnverified,
        Self::Forbidden,
        Self::DeadPeer,
        Self::SlowPeer,
        Self::InitTimeout,
        Self::SecondInit,
        Self::NotAcknowledged,
        Self::DuplicateId,
        Self::NotJson,
        Self::NoType,
        Self::LegacyProtocol,
        Self::UnknownType,
        Self::WrongShape,
        Self::Binary,
        Self::MessageTooBig,
        Self::NotUtf8,
        Self::BrokenFrames,
    ];

    /// The whole table. Clients of `graphql-transport-ws` reconnect after 1012, 1013, 4403 and 4408, and stop for good
    /// at 1002, 1007, 1009 and the other 44xx: so a policy of the gateway never uses one of those, and neither does a
    /// credential that may be valid at the next attempt.
    const fn row(self) -> EndReasonRow {
        match self {
            Self::Completed => quiet("completed"),
            Self::ClientLeft => quiet("client_left"),
            Self::Drained => text("drained", 1012, "the gateway is shutting down; reconnect"),
            Self::TooOld => text("too_old", 1012, "the stream reached its maximum age; reconnect"),
            Self::Overload => {
                text("overload", 1013, "stream or rate limit reached for this client; reconnect later")
            }
            Self::CredentialExpired => {
                text("credential_expired", 4403, "Forbidden: the credential has expired")
            }
            Self::Revoked => text("revoked", 4403, "Forbidden: the credential or its grant was revoked"),
            Self::CredentialMissing => text(
                "credential_missing",
                4401,
                "Unauthorized: no credential; set \"authorization\": \"Bearer <key>\" in the \
                    payload of connection_init",
            ),
            Self::CredentialMalformed => text(
                "credential_malformed",
                4401,
                "Unauthorized: authorization must be one string, \"Bearer <client key or token>\"",
            ),
            Self::CredentialUnknown => {
                text("credential_unknown", 4401, "Unauthorized: unknown client key or token")
            }
            Self::CredentialUnverified => text(
                "credential_unverified",
                4403,
                "Forbidden: the token cannot be verified yet, or is not valid yet; reconnect",
            ),
            Self::Forbidden => text(
                "forbidden",
                4403,
                "Forbidden: a credential can be renewed only by the same client with the same grant",
            ),
            Self::DeadPeer => quiet("dead_peer"),
            Self::SlowPeer => quiet("slow_peer"),
            Self::InitTimeout => text("init_timeout", 4408, "Connection initialisation timeout"),
            Self::SecondInit => text("second_init", 4429, "Too many initialisation requests"),
            Self::NotAcknowledged => text("not_acknowledged", 4401, "Unauthorized"),
            Self::DuplicateId => text("duplicate_id", 4409, "Subscriber for this id already exists"),
            Self::NotJson => text("not_json", 4400, "the message is not JSON"),
            Self::NoType => text("no_type", 4400, "the message must be an object with a string \"type\""),
            Self::LegacyProtocol => text(
                "legacy_protocol",
                4400,
                "the legacy protocol subscriptions-transport-ws is not supported; use graphql-transport-ws",
            ),
            Self::UnknownType => text("unknown_type", 4400, "the message type is not one that clients send"),
            Self::WrongShape => text("wrong_shape", 4400, "the message has missing or invalid members"),
            Self::Binary => text("binary", 4400, "messages must be text, not binary"),
            Self::MessageTooBig => {
                text("message_too_big", 1009, "the message exceeds the size limit (max_message)")
            }
            Self::NotUtf8 => text("not_utf8", 1007, "text messages must be UTF-8"),
            Self::BrokenFrames => text("broken_frames", 1002, "invalid WebSocket frame"),
        }
    }

    /// The label in logs and metrics.
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    /// The close code of a WebSocket with its text; none if no peer can read it.
    pub const fn close(self) -> Option<(u16, &'static str)> {
        self.row().close
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn label_of_each_end_reason_is_unique() {
        let words: BTreeSet<_> = EndReason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), EndReason::ALL.len());
    }

    /// A control frame contains at most 125 bytes, two of them the code.
    #[test]
    fn close_text_fits_a_control_frame() {
        for reason in EndReason::ALL {
            assert!(reason.close().is_none_or(|(_, text)| text.len() <= 123), "{reason:?}");
        }
    }

    #[test]
    fn end_by_a_policy_lets_clients_reconnect() {
        for reason in [
            EndReason::Drained,
            EndReason::TooOld,
            EndReason::Overload,
            EndReason::CredentialExpired,
            EndReason::CredentialUnverified,
            EndReason::Revoked,
        ] {
            assert!(matches!(reason.close(), Some((1012 | 1013 | 4403, _))), "{reason:?}");
        }
    }
}
