//! The log events of the code: a message is a fixed text, so a search or an alert on it is reliable. `generated_docs` compares
//! `docs/logs.md` with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Level and message, with the fields.
pub(crate) type Events = BTreeMap<(String, String), BTreeSet<String>>;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// The levels whose events are part of the contract.
pub(crate) const PROMISED: [&str; 3] = ["error", "warn", "info"];

#[derive(Default)]
struct Found {
    events: Events,
    faults: Vec<String>,
}

impl Found {
    fn read(&mut self, file: &str, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let rest = tokens.get(at..).unwrap();
            if is_test(rest) {
                // skips the attribute and its item
                at += 2;
                while tokens.get(at).is_some_and(|token| !ends_item(token)) {
                    at += 1;
                }
            } else if let Some((level, inside)) = event(rest) {
                self.take(file, &level, inside);
            } else if let TokenTree::Group(group) = token {
                self.read(file, group.stream());
            }
            at += 1;
        }
    }

    fn take(&mut self, file: &str, level: &str, inside: TokenStream) {
        let mut items: Vec<Vec<TokenTree>> = vec![Vec::new()];
        for token in inside {
            if matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',') {
                items.push(Vec::new());
            } else {
                items.last_mut().unwrap().push(token);
            }
        }
        items.retain(|item| !item.is_empty());
        let message = match items.pop().as_deref() {
            Some([TokenTree::Literal(literal)]) => syn::parse_str::<syn::LitStr>(&literal.to_string()).ok(),
            _ => None,
        };
        let Some(message) = message.map(|message| message.value()).filter(|text| !text.contains(['{', '}']))
        else {
            self.faults.push(format!("{file}: a message of {level} is not a fixed text"));
            return;
        };
        let fields = items.iter().filter_map(|item| field(item));
        self.events.entry((level.to_owned(), message)).or_default().extend(fields);
    }
}

/// `#[cfg(test)]`
fn is_test(tokens: &[TokenTree]) -> bool {
    match tokens {
        [TokenTree::Punct(hash), TokenTree::Group(group), ..] => {
            hash.as_char() == '#' && group.stream().to_string().replace(' ', "") == "cfg(test)"
        }
        _ => false,
    }
}

fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    }
}

/// `tracing::warn!(…)`
fn event(tokens: &[TokenTree]) -> Option<(String, TokenStream)> {
    let [name, _, _, level, bang, TokenTree::Group(inside), ..] = tokens else { return None };
    let level = level.to_string();
    (name.to_string() == "tracing" && bang.to_string() == "!" && LEVELS.contains(&level.as_str()))
        .then(|| (level, inside.stream()))
}

/// The name of a field, if it is one.
fn field(item: &[TokenTree]) -> Option<String> {
    let text: Vec<String> = item.iter().map(ToString::to_string).collect();
    if text.first().is_some_and(|first| first == "target") && text.get(1).is_some_and(|colon| colon == ":") {
        return None;
    }
    let name = text.iter().take_while(|token| *token != "=");
    Some(name.filter(|token| !matches!(token.as_str(), "%" | "?")).map(String::as_str).collect())
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !matches!(name, "tests.rs" | "testing.rs")
        {
            files.push(path);
        }
    }
    files
}

/// Every event of the code at level `info` and above.
pub(crate) fn events() -> Events {
    let mut found = Found::default();
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let tokens = TokenStream::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        found.read(&path.display().to_string(), tokens);
    }
    assert_eq!(found.faults, Vec::<String>::new());
    found.events.retain(|(level, _), _| PROMISED.contains(&level.as_str()));
    assert!(found.events.len() > 40, "the code was read");
    found.events
}

#[test]
fn no_field_has_a_reserved_name() {
    let reserved = ["timestamp", "level", "target", "message", "repeats", "trace_id", "span_id"];
    let events = events();
    let taken = events.values().flatten().find(|field| reserved.contains(&field.as_str()));
    assert_eq!(taken, None);
}

#[test]
fn an_interpolated_log_message_is_detected() {
    let mut found = Found::default();
    let text = r#"fn f() { tracing::warn!(a, "of {b}"); select! { x => tracing::info!(%c.d, e = 1, "fixed") } }
                  #[cfg(test)] mod tests { fn g() { tracing::error!("of {h}"); } } fn i() { tracing::error!(text); }"#;
    found.read("f.rs", TokenStream::from_str(text).unwrap());
    assert_eq!(found.faults.len(), 2);
    let fixed = found.events[&("info".to_owned(), "fixed".to_owned())].iter().map(String::as_str);
    assert_eq!(fixed.collect::<Vec<_>>(), ["c.d", "e"]);
}
