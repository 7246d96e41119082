//! Counts the tokens and the nesting of a GraphQL text without parsing it, in one scan and without recursion. It
//! validates nothing: an ill-formed text is counted to its end, and the parser reports what is wrong with it.

/// The deepest nesting of brackets that is passed to the parser, which is recursive.
pub(super) const MAX_NESTING: usize = 64;

/// The counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenCounts {
    /// Tokens: names, numbers, strings, punctuators, the spread.
    pub(super) tokens: usize,
    /// The deepest nesting of `(`, `[` and `{`.
    pub(super) nesting: usize,
}

/// Counts until the end, or until there are more than `enough` tokens.
///
/// Strings and comments end exactly where the engine's grammar ends them (an unterminated block string is an empty
/// string followed by another), so every token that the parser would read is counted.
pub(super) fn count(text: &[u8], enough: usize) -> TokenCounts {
    let mut counted = TokenCounts::default();
    let (mut rest, mut open) = (text, 0_usize);
    while let [first, after @ ..] = rest {
        rest = match first {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => {
                rest = after;
                continue;
            }
            0xEF if after.starts_with(&[0xBB, 0xBF]) => {
                rest = after.get(2..).unwrap_or_default();
                continue;
            }
            b'#' => {
                rest = skip_while(after, |byte| !matches!(byte, b'\r' | b'\n'));
                continue;
            }
            b'"' => string(rest),
            b'{' | b'[' | b'(' => {
                open += 1;
                counted.nesting = counted.nesting.max(open);
                after
            }
            b'}' | b']' | b')' => {
                open = open.saturating_sub(1);
                after
            }
            b'.' if after.starts_with(b"..") => after.get(2..).unwrap_or_default(),
            b'0'..=b'9' | b'-' => skip_while(after, |byte| is_word(byte) || byte == b'.'),
            byte if is_word(*byte) => skip_while(after, is_word),
            _ => after,
        };
        counted.tokens += 1;
        if counted.tokens > enough {
            break;
        }
    }
    counted
}

/// Returns the text after the string at the start of `text`.
fn string(text: &[u8]) -> &[u8] {
    if let Some(after) = text.strip_prefix(b"\"\"\"".as_slice()) {
        // if it is unterminated it is not a block string but an empty one, and the next quote opens another string
        return block_string(after).unwrap_or_else(|| text.get(2..).unwrap_or_default());
    }
    let mut rest = text.get(1..).unwrap_or_default();
    while let [first, after @ ..] = rest {
        rest = match first {
            b'"' => return after,
            b'\r' | b'\n' => return rest,
            b'\\' => after.get(1..).unwrap_or_default(),
            _ => after,
        };
    }
    rest
}

fn block_string(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        if let Some(after) = rest.strip_prefix(b"\\\"\"\"".as_slice()) {
            rest = after;
        } else if let Some(after) = rest.strip_prefix(b"\"\"\"".as_slice()) {
            return Some(after);
        } else {
            rest = rest.get(1..)?;
        }
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn skip_while(text: &[u8], keep: impl Fn(u8) -> bool) -> &[u8] {
    let end = text.iter().position(|byte| !keep(*byte)).unwrap_or(text.len());
    text.get(end..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use async_graphql::Value;
    use async_graphql::parser::types::Selection;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_are_counted_by_the_graphql_grammar() {
        for (text, tokens, nesting) in [
            ("", 0, 0),
            ("{ a }", 3, 1),
            ("# { { {\n{a}", 3, 1),
            ("\u{feff}query Q($a:[Int!]=[-1,2]){a(x:$a)...F}", 27, 2),
            (r#"{a(s:"{ \" } b")}"#, 8, 2),
            (r#"{a(s:"""x \""" { y""")}"#, 8, 2),
            ("\"\"\" a \" b c", 4, 0),
            ("\"\"\"\"\"\" b", 2, 0),
            ("\"open { \n b", 2, 0),
            ("}}}}{", 5, 1),
            ("\\ \u{1F600} ?", 6, 0),
        ] {
            assert_eq!(count(text.as_bytes(), 1000), TokenCounts { tokens, nesting }, "{text}");
        }
    }

    /// The stack of a worker thread is 2 MiB; a test's thread has the same.
    #[test]
    fn parser_handles_the_maximum_allowed_nesting() {
        for (open, close) in [("[", "]"), ("{a:", "}")] {
            let depth = MAX_NESTING - 2;
            let text = format!("{{a(x:{}1{})}}", open.repeat(depth), close.repeat(depth));
            assert_eq!(count(text.as_bytes(), 2000).nesting, MAX_NESTING);
            async_graphql::parser::parse_query(&text).unwrap();
        }
    }

    proptest! {
        #[test]
        fn token_counter_accepts_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let counted = count(&bytes, usize::MAX);
            prop_assert!(counted.tokens <= bytes.len() && counted.nesting <= counted.tokens);
        }

        /// A text that the parser accepts has at least as many tokens here as it has words: every token is counted.
        #[test]
        fn every_token_the_parser_accepts_is_counted(parts in proptest::collection::vec(
            prop_oneof![Just("\"\"\""), Just("\""), Just("\\"), Just("#"), Just("\n"), Just(" a ")], 0..14)
        ) {
            let text = format!("{{f(x:[{}])}}", parts.concat());
            if let Ok(document) = async_graphql::parser::parse_query(&text) {
                let operation = document.operations.iter().next().unwrap().1;
                let Selection::Field(field) = &operation.node.selection_set.node.items[0].node else {
                    panic!("{text}")
                };
                let Some(Value::List(values)) = field.node.arguments[0].1.node.clone().into_const() else {
                    panic!("{text}")
                };
                let values = values.len();
                prop_assert_eq!(count(text.as_bytes(), usize::MAX).tokens, 9 + values);
            }
        }
    }
}
