//! Takes our own secret out of what an upstream says, should it echo it. Not a general redactor.

use bytes::Bytes;
use url::form_urlencoded::byte_serialize;

/// What stands in the secret's place.
const MASK: &[u8] = b"[redacted]";

/// The shortest secret that is looked for. A shorter one protects nothing, and taking every `a` or `id` out of a body
/// would destroy it.
const SHORTEST: usize = 8;

/// The same bytes with every occurrence of the secret replaced: as it is, as JSON writes it, and as a URL writes it.
pub(super) fn mask(text: Bytes, secret: &str) -> Bytes {
    if secret.len() < SHORTEST {
        return text;
    }
    let in_json = serde_json::Value::from(secret).to_string();
    let in_json = in_json.trim_matches('"').to_owned();
    let in_url: String = byte_serialize(secret.as_bytes()).collect();
    let mut forms = vec![secret.to_owned(), in_json, in_url];
    forms.dedup();
    forms.iter().fold(text, |text, form| replace(text, form.as_bytes()))
}

fn replace(text: Bytes, needle: &[u8]) -> Bytes {
    let Some(first) = find(&text, needle) else { return text };
    let mut masked = Vec::with_capacity(text.len());
    let (mut rest, mut next) = (&text[..], Some(first));
    while let Some(at) = next {
        masked.extend_from_slice(&rest[..at]);
        masked.extend_from_slice(MASK);
        rest = &rest[at + needle.len()..];
        next = find(rest, needle);
    }
    masked.extend_from_slice(rest);
    masked.into()
}

/// A plain search that skips along the needle's first byte, which is fast enough for 64 MiB of rows.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(step) = text.get(from..)?.iter().position(|byte| *byte == first) {
        let at = from + step;
        if text[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_secret_is_taken_out_in_every_spelling() {
        let cases = [
            ("no secret here", "s3cr3t-s3cr3t", "no secret here"),
            (r#"{"m":"bad key s3cr3t-s3cr3t"}"#, "s3cr3t-s3cr3t", r#"{"m":"bad key [redacted]"}"#),
            ("s3cr3t-s3cr3ts3cr3t-s3cr3t", "s3cr3t-s3cr3t", "[redacted][redacted]"),
            (r#"{"m":"a\"b\\cdefgh"}"#, r#"a"b\cdefgh"#, r#"{"m":"[redacted]"}"#),
            ("?key=a%2Fb%3Dc%2Bdefgh&x=1", "a/b=c+defgh", "?key=[redacted]&x=1"),
            ("s3cr3t-s3cr3", "s3cr3t-s3cr3t", "s3cr3t-s3cr3"),
            ("a short one stays", "short", "a short one stays"),
        ];
        for (text, secret, expected) in cases {
            assert_eq!(mask(Bytes::from(text), secret), expected, "{text}");
        }
    }
}
