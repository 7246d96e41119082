//! The table of error codes: what each of Supermetrics' codes means for the job, the source and the credential.
//! `docs/upstreams.md` shows the same table; a test compares the two.

/// What an error code means, whatever the HTTP status beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeMeaning {
    /// There is no such query, or not any more.
    NotFound,
    /// The query has failed.
    JobFailed,
    /// The query has failed if another job of the source can be read at the same time; else the source has a problem.
    JobFailedIfOthersRead,
    /// No call is made to the source for a while.
    SourcePaused,
    /// The source rejects the credential.
    CredentialRejected,
    /// The source refuses the call, and neither the job nor the credential is the reason.
    UpstreamError,
}

impl CodeMeaning {
    /// The text of the table in the documentation.
    #[cfg(test)]
    const fn words(self) -> &'static str {
        match self {
            Self::NotFound => "job not found",
            Self::JobFailed => "job failed",
            Self::JobFailedIfOthersRead => "job failed, if another job can be read; otherwise upstream error",
            Self::SourcePaused => "source paused",
            Self::CredentialRejected => "credential rejected",
            Self::UpstreamError => "upstream error",
        }
    }
}

/// Codes, `*` for any text, and their meaning. The first row that matches applies; a code in no row is classified by
/// the HTTP status.
const TABLE: [(&str, CodeMeaning); 13] = [
    ("STATUS_NOT_FOUND", CodeMeaning::NotFound),
    ("QUERY_*", CodeMeaning::JobFailed),
    ("ACCOUNT_NOT_FOUND", CodeMeaning::JobFailed),
    ("API_KEY_*", CodeMeaning::CredentialRejected),
    ("ACCESS_TOKEN_INVALID", CodeMeaning::CredentialRejected),
    ("LICENSE_EXPIRED", CodeMeaning::CredentialRejected),
    ("LICENSE_DAILY_*", CodeMeaning::SourcePaused),
    ("LICENSE_*", CodeMeaning::JobFailedIfOthersRead),
    ("*_LIMIT_EXCEEDED", CodeMeaning::SourcePaused),
    ("PERMISSION_DENIED", CodeMeaning::JobFailedIfOthersRead),
    ("ACCOUNT_ID_INVALID", CodeMeaning::JobFailedIfOthersRead),
    ("SETTING_KEY_INVALID", CodeMeaning::JobFailedIfOthersRead),
    ("ACCESS_DENIED_IP", CodeMeaning::UpstreamError),
];

/// The meaning of a code in capitals; `None` for one that is in no row.
pub(super) fn meaning(code: &str) -> Option<CodeMeaning> {
    TABLE.iter().find(|(pattern, _)| fits(pattern, code)).map(|(_, meaning)| *meaning)
}

fn fits(pattern: &str, code: &str) -> bool {
    match pattern.split_once('*') {
        Some((begin, end)) => {
            code.len() > begin.len() + end.len() && code.starts_with(begin) && code.ends_with(end)
        }
        None => pattern == code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_documented_error_code_maps_to_its_meaning() {
        for (code, expected) in [
            ("STATUS_NOT_FOUND", Some(CodeMeaning::NotFound)),
            ("QUERY_ERROR", Some(CodeMeaning::JobFailed)),
            ("QUERY_ACCOUNT_UNAVAILABLE", Some(CodeMeaning::JobFailed)),
            ("ACCOUNT_NOT_FOUND", Some(CodeMeaning::JobFailed)),
            ("API_KEY_INVALID", Some(CodeMeaning::CredentialRejected)),
            ("API_KEY_REQUIRED", Some(CodeMeaning::CredentialRejected)),
            ("API_KEY_DISABLED", Some(CodeMeaning::CredentialRejected)),
            ("ACCESS_TOKEN_INVALID", Some(CodeMeaning::CredentialRejected)),
            ("LICENSE_EXPIRED", Some(CodeMeaning::CredentialRejected)),
            ("LICENSE_DAILY_QUERY_LIMIT_EXCEEDED", Some(CodeMeaning::SourcePaused)),
            ("LICENSE_ROW_LIMIT_EXCEEDED", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("LICENSE_ACCOUNT_LIMIT_EXCEEDED", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("LICENSE_FIELD_LIMIT_EXCEEDED", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("API_RATE_LIMIT_EXCEEDED", Some(CodeMeaning::SourcePaused)),
            ("LICENSE_HISTORICAL_RANGE_EXCEEDED", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("LICENSE_QUERIES_SUSPENDED", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("LICENSE_NOT_FOUND", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("LICENSE_ACCESS_DATA_SOURCE", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("PERMISSION_DENIED", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("ACCOUNT_ID_INVALID", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("SETTING_KEY_INVALID", Some(CodeMeaning::JobFailedIfOthersRead)),
            ("ACCESS_DENIED_IP", Some(CodeMeaning::UpstreamError)),
            ("INTERNAL_ERROR", None),
            ("QUERY_", None),
            ("", None),
        ] {
            assert_eq!(meaning(code), expected, "{code}");
        }
    }

    #[test]
    fn documentation_contains_the_same_code_table() {
        let page = include_str!("../../../../docs/upstreams.md");
        let shown: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> =
            TABLE.iter().map(|(code, meaning)| format!("| `{code}` | {} |", meaning.words())).collect();
        assert!(shown == expected, "the table of docs/upstreams.md should be:\n{}", expected.join("\n"));
    }
}
