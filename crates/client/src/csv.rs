//! Rows as lines of text: CSV by RFC 4180 with LF as the line break, or JSON arrays. Cells stay as the upstream wrote
//! them: `1.10` is not `1.1`, and a cell that a spreadsheet would take for a formula is not changed.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// The form of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowForm {
    /// Comma-separated values.
    Csv,
    /// A JSON array for each row.
    Json,
}

/// The line of a row, without its line break.
pub(super) fn line(form: RowForm, cells: &[Box<RawValue>]) -> String {
    match form {
        RowForm::Csv if cells.len() == 1 && cells.iter().all(|cell| cell.get() == "null") => {
            // an empty line would not be a row
            "\"\"".to_owned()
        }
        RowForm::Csv => {
            let cells: Vec<String> = cells.iter().map(|cell| csv_cell(cell).into_owned()).collect();
            cells.join(",")
        }
        RowForm::Json => {
            let cells: Vec<Cow<'_, str>> = cells.iter().map(|cell| compact(cell)).collect();
            format!("[{}]", cells.join(","))
        }
    }
}

/// A cell of CSV. Null is empty, and an empty text is `""`, so that they can be distinguished.
fn csv_cell(cell: &RawValue) -> Cow<'_, str> {
    let text = match serde_json::from_str::<Option<String>>(cell.get()) {
        Ok(None) => return Cow::Borrowed(""),
        Ok(Some(text)) => Cow::Owned(text),
        // a number, true, false, an array or an object
        Err(_) => compact(cell),
    };
    if text.is_empty()
        || text.contains([',', '"', '\r', '\n'])
        || text.starts_with(' ')
        || text.ends_with(' ')
    {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text
    }
}

/// A JSON value on one line: outside of texts, where it is escaped, a line break is white space.
fn compact(cell: &RawValue) -> Cow<'_, str> {
    let text = cell.get();
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Vec<Box<RawValue>> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn csv_quotes_by_rfc_4180_and_keeps_values() {
        for (cells, expected) in [
            (r#"["a", 1, 1.10, true, null, ""]"#, r#"a,1,1.10,true,,"""#),
            (
                r#"["a,b", "say \"hi\"", "two\nlines", "cr\r"]"#,
                "\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",\"cr\r\"",
            ),
            (r#"["=1+1", "+1", "-1", "@SUM(A1)", "Höst"]"#, "=1+1,+1,-1,@SUM(A1),Höst"),
            (r#"[" a", "b "]"#, "\" a\",\"b \""),
            (
                r#"[{"a": 1}, [1,2], 12345678901234567890123]"#,
                r#""{""a"": 1}","[1,2]",12345678901234567890123"#,
            ),
            ("[]", ""),
            ("[null]", "\"\""),
            ("[null, null]", ","),
            (r#"["\ud800"]"#, "\"\"\"\\ud800\"\"\""),
        ] {
            assert_eq!(line(RowForm::Csv, &row(cells)), expected, "{cells}");
        }
    }

    #[test]
    fn json_row_is_one_line_and_keeps_values() {
        let cells = row("[\"a\\nb\", 1.10, {\n\"a\":\r\n1}, null]");
        assert_eq!(line(RowForm::Json, &cells), "[\"a\\nb\",1.10,{ \"a\":  1},null]");
    }
}
