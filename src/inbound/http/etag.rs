//! Entity tags (RFC 9110): weak ones of a content, and the comparison with those that a client knows.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};

/// A weak tag of a content.
pub(in crate::inbound) fn weak(content: &[u8]) -> HeaderValue {
    let hash = digest(&SHA256, content);
    let (short, _) = hash.as_ref().split_at(hash.as_ref().len() / 2);
    let tag = format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(short));
    HeaderValue::try_from(tag).unwrap_or_else(|_| unreachable!("base64 is visible ASCII"))
}

/// Whether `If-None-Match` names this state, or any: compared weakly, as RFC 9110 requires.
pub(in crate::inbound) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let etag = etag.to_str().unwrap_or_default();
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(entity_tags).any(|one| one == "*" || one == etag.trim_start_matches("W/"))
}

/// The tags of a list, without the prefix of weak ones. A comma inside quotes belongs to the tag.
fn entity_tags(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let each = list.split(move |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    });
    each.map(|one| one.trim().trim_start_matches("W/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_weakly() {
        for (sent, known) in [
            (&[r#"W/"a""#][..], true),
            (&[r#""a""#], true),
            (&[r#""x", W/"y",W/"a""#], true),
            (&[r#""x""#, r#""a""#], true),
            (&["*"], true),
            (&[], false),
            (&["a"], false),
            (&[r#"w/"a""#], false),
            (&[r#"W/"A""#], false),
            (&[r#""x,W/"a","#], false),
            (&[r#""x, "a", y""#], false),
        ] {
            let headers = sent.iter().map(|value| (header::IF_NONE_MATCH, HeaderValue::from_static(value)));
            assert_eq!(
                is_known(&headers.collect(), &HeaderValue::from_static(r#"W/"a""#)),
                known,
                "{sent:?}"
            );
        }
    }
}
