//! The generated tables of `docs/tracing.md`, `docs/metrics.md` and `docs/logs.md` match the code. This command rewrites them:
//!
//!     JOBGATE_WRITE_DOCS=1 cargo test --test it generated_docs::

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use jobgate::telemetry::meters::{Group, Instrument, InstrumentKind};
use jobgate::telemetry::trace::{SPANS, SpanAttribute};

use crate::log_events::{PROMISED, events};
use crate::support::scale::scale;

const END: &str = "<!-- end of generated table -->";

/// Compares the generated tables of a page with the code, or writes them where `JOBGATE_WRITE_DOCS` is 1.
fn compare(page: &str, tables: impl IntoIterator<Item = (String, String)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let before = fs::read_to_string(&path).unwrap();
    let mut text = before.clone();
    for (name, table) in tables {
        let start = format!("<!-- generated table: {name} -->\n");
        assert!(text.contains(&start), "{page} lacks {start}");
        let (head, rest) = text.split_once(&start).unwrap();
        assert!(rest.contains(END), "{page}: the table {name} has no end");
        let (_, tail) = rest.split_once(END).unwrap();
        text = format!("{head}{start}\n{table}\n{END}{tail}");
    }
    if scale("JOBGATE_WRITE_DOCS", 0) == 1 {
        fs::write(path, text).unwrap();
    } else {
        let command = "JOBGATE_WRITE_DOCS=1 cargo test --test it generated_docs::";
        assert!(text == before, "{page} differs from the code; run: {command}");
    }
}

#[test]
fn tracing_page_lists_spans_and_attributes() {
    let names = |name: &str| name.split(", ").map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut spans = String::from("| span | kind | parent | links | description |\n|---|---|---|---|---|\n");
    let mut keys: Vec<SpanAttribute> = Vec::new();
    for sort in SPANS {
        let links = if sort.links.is_empty() { "none" } else { sort.links };
        writeln!(
            spans,
            "| {} | {} | {} | {links} | {} |",
            names(sort.name),
            sort.kind,
            sort.below,
            sort.about
        )
        .unwrap();
        for key in sort.keys {
            if !keys.contains(key) {
                keys.push(*key);
            }
        }
    }
    let mut attributes = String::from("| attribute | spans | value |\n|---|---|---|\n");
    for key in keys {
        let (name, value) = key.row();
        let on = SPANS.iter().filter(|sort| sort.keys.contains(&key));
        let on: Vec<String> = on.map(|sort| names(sort.name)).collect();
        writeln!(attributes, "| `{name}` | {} | {value} |", on.join(", ")).unwrap();
    }
    let tables = [("spans", spans), ("attributes", attributes)];
    compare("docs/tracing.md", tables.map(|(name, table)| (name.to_owned(), table)));
}

#[test]
fn metrics_page_lists_instruments_by_group() {
    let row = |one: &Instrument| {
        let kind = match one.kind() {
            InstrumentKind::Counter | InstrumentKind::ReadCounter => "counter",
            InstrumentKind::Gauge => "gauge",
            InstrumentKind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = one.labels().iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {kind} | {} | {} |\n", one.name(), labels.join(", "), one.help())
    };
    let tables = Group::ALL.map(|group| {
        let rows: String = Instrument::ALL.iter().filter(|one| one.group() == group).map(row).collect();
        assert!(!rows.is_empty(), "{group:?}");
        let table = format!("| metric | type | labels | description |\n|---|---|---|---|\n{rows}");
        (format!("metrics {}", group.name()), table)
    });
    compare("docs/metrics.md", tables);
}

/// Level, message and fields are those of the code; the meaning is written in the page and kept.
#[test]
fn logs_page_lists_events_with_a_meaning_each() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md")).unwrap();
    let mut meanings: BTreeMap<(String, &str), &str> = BTreeMap::new();
    for level in PROMISED {
        let table = page.split(&format!("<!-- generated table: events {level} -->")).nth(1).unwrap();
        let rows = table.split(END).next().unwrap().lines().filter_map(|line| line.strip_prefix("| `"));
        for (message, rest) in rows.filter_map(|row| row.split_once("` |")) {
            let meaning = rest.trim_end_matches('|').rsplit('|').next().unwrap().trim();
            meanings.insert((level.to_owned(), message), meaning);
        }
    }
    let events = events();
    let lacking: Vec<_> = events
        .keys()
        .filter(|(level, message)| {
            meanings.get(&(level.clone(), message.as_str())).is_none_or(|meaning| meaning.is_empty())
        })
        .collect();
    let tables = PROMISED.map(|level| {
        let mut table = String::from("| message | fields | meaning and action |\n|---|---|---|\n");
        for ((_, message), fields) in events.iter().filter(|((of, _), _)| of == level) {
            let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
            let meaning = meanings.get(&(level.to_owned(), message.as_str())).unwrap_or(&"");
            writeln!(table, "| `{message}` | {} | {meaning} |", fields.join(" ")).unwrap();
        }
        (format!("events {level}"), table)
    });
    compare("docs/logs.md", tables);
    assert!(lacking.is_empty(), "docs/logs.md: write the meaning of {lacking:#?}");
}
