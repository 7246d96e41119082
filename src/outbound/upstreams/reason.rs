//! Builds the failure of a job from the several fields in which an upstream may report it.

use crate::domain::job::Failure;

/// The longest text that is accepted as a code, in bytes.
const CODE_MAX: usize = 100;

/// The failure that a short and a long reason describe; either may be missing.
///
/// If one of the two looks like a code, it is the code and the other one the message. A code alone is the message too,
/// so that a client that shows messages shows it. Two sentences are one message.
pub(super) fn failure(short: Option<String>, long: Option<String>) -> Failure {
    match (short, long) {
        (Some(short), Some(long)) if short != long => {
            if is_code(&short) {
                Failure { code: Some(short), message: Some(long) }
            } else if is_code(&long) {
                Failure { code: Some(long), message: Some(short) }
            } else if long.contains(&short) {
                Failure { code: None, message: Some(long) }
            } else if short.contains(&long) {
                Failure { code: None, message: Some(short) }
            } else {
                Failure { code: None, message: Some(format!("{short}: {long}")) }
            }
        }
        (Some(one), _) | (None, Some(one)) => {
            Failure { code: Some(one.clone()).filter(|one| is_code(one)), message: Some(one) }
        }
        (None, None) => Failure::default(),
    }
}

/// Whether a text looks like a code and not like a sentence: letters, digits, `_`, `-`, `.` and `:` only, and either no
/// lower-case letter or an underscore.
pub(super) fn is_code(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
    (1..=CODE_MAX).contains(&text.len())
        && text.bytes().all(allowed)
        && text.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && (text.contains('_') || !text.bytes().any(|byte| byte.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_code_and_message_are_distinguished() {
        let why = "column 7 of ledger.csv is not a date";
        let cases = [
            (Some("INGESTION_FAILED"), Some(why), Some("INGESTION_FAILED"), Some(why)),
            (Some(why), Some("INGESTION_FAILED"), Some("INGESTION_FAILED"), Some(why)),
            (Some("ingestion_failed"), Some(why), Some("ingestion_failed"), Some(why)),
            (Some("E-42"), Some(why), Some("E-42"), Some(why)),
            (Some("INGESTION_FAILED"), Some("COLUMN_7"), Some("INGESTION_FAILED"), Some("COLUMN_7")),
            (Some("it broke"), Some("in the middle"), None, Some("it broke: in the middle")),
            (Some("it broke"), Some("it broke in the middle"), None, Some("it broke in the middle")),
            (Some("INGESTION_FAILED"), None, Some("INGESTION_FAILED"), Some("INGESTION_FAILED")),
            (Some("X"), Some("X"), Some("X"), Some("X")),
            (None, Some(why), None, Some(why)),
            (Some("Broken"), None, None, Some("Broken")),
            (None, None, None, None),
        ];
        for (short, long, code, message) in cases {
            let failure = failure(short.map(str::to_owned), long.map(str::to_owned));
            assert_eq!(
                (failure.code.as_deref(), failure.message.as_deref()),
                (code, message),
                "{short:?} {long:?}"
            );
        }
    }
}
