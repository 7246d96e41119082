//! The page names every span and what it says: made from the code's own list.

use std::fmt::Write as _;

use jobgate::telemetry::trace::{Key, SPANS};

const PAGE: &str = include_str!("../../docs/telemetry.md");

#[test]
fn the_page_says_of_spans_what_the_code_does() {
    let mut spans =
        String::from("| span | kind | stands below | linked to | what it is |\n|---|---|---|---|---|\n");
    let mut keys: Vec<Key> = Vec::new();
    for sort in SPANS {
        let links = if sort.links.is_empty() { "–" } else { sort.links };
        let name = sort.name.split(", ").map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        writeln!(spans, "| {name} | {} | {} | {links} | {} |", sort.kind, sort.below, sort.about).unwrap();
        for key in sort.keys {
            if !keys.contains(key) {
                keys.push(*key);
            }
        }
    }
    let mut attributes = String::from("| attribute | on | what it says |\n|---|---|---|\n");
    for key in keys {
        let (name, says) = key.row();
        let on = SPANS.iter().filter(|sort| sort.keys.contains(&key));
        let on = on
            .map(|sort| format!("`{}`", sort.name.split(", ").next().unwrap()))
            .collect::<Vec<_>>()
            .join(", ");
        writeln!(attributes, "| `{name}` | {on} | {says} |").unwrap();
    }
    for table in [spans, attributes] {
        assert!(PAGE.contains(&table), "docs/telemetry.md must hold:\n{table}");
    }
}
