//! Reads an event stream as it arrives, by the rules of the HTML standard (§9.2.6): lines end in LF, CR or CRLF, a
//! blank one ends an event, a line that starts with `:` is a comment. Independent of GraphQL and of connections.

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// Its name; empty if it has none.
    pub(super) name: String,
    /// Its data; several lines of it are joined by LF.
    pub(super) data: String,
}

/// An event exceeds the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventTooLong;

/// A decoder: takes chunks that are split at any byte, and returns complete events.
#[derive(Debug)]
pub(super) struct SseReader {
    longest: usize,
    line: Vec<u8>,
    event: SseEvent,
    /// Data lines so far: an event whose data is one empty line is an event.
    lines: usize,
    after_cr: bool,
    first: bool,
}

impl SseReader {
    /// A reader that fails on an event with more than `longest` bytes.
    pub(super) fn new(longest: usize) -> Self {
        Self { longest, line: Vec::new(), event: SseEvent::default(), lines: 0, after_cr: false, first: true }
    }

    /// Reads a chunk, and returns the events that it completes.
    ///
    /// # Errors
    /// Returns an error if an event is too long; the reader must not be used after that.
    pub(super) fn read(&mut self, piece: &[u8]) -> Result<Vec<SseEvent>, EventTooLong> {
        let mut events = Vec::new();
        for byte in piece {
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                other => {
                    self.line.push(*other);
                    if self.line.len() + self.event.data.len() > self.longest {
                        return Err(EventTooLong);
                    }
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let mut line = line.as_ref();
        if std::mem::take(&mut self.first) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if self.lines > 0 {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.lines += 1;
            }
            // comments, whose field is empty; `id` and `retry`, which GraphQL-SSE does not use; and unknown fields
            _ => {}
        }
        None
    }

    /// Browsers drop an event without data; here a name alone is enough, since some servers send `complete` without
    /// data.
    fn end_event(&mut self) -> Option<SseEvent> {
        let event = std::mem::take(&mut self.event);
        let lines = std::mem::take(&mut self.lines);
        (lines > 0 || !event.name.is_empty()).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = SseReader::new(1_000);
        let events = pieces.iter().flat_map(|piece| reader.read(piece).unwrap());
        events.map(|event| (event.name, event.data)).collect()
    }

    #[test]
    fn event_stream_is_parsed_by_the_html_standard() {
        let cases: [(&str, &[(&str, &str)]); 14] = [
            (":\n\n", &[]),
            ("event: next\ndata: {\"a\":1}\n\n", &[("next", "{\"a\":1}")]),
            ("event: complete\ndata:\n\n", &[("complete", "")]),
            ("event: complete\n\n", &[("complete", "")]),
            ("data: a\ndata: b\n\n", &[("", "a\nb")]),
            ("data\ndata\n\n", &[("", "\n")]),
            ("data:no blank\n\n", &[("", "no blank")]),
            ("data:  two blanks\n\n", &[("", " two blanks")]),
            ("event: next\r\ndata: a\r\n\r\nevent: next\rdata: b\r\r", &[("next", "a"), ("next", "b")]),
            ("\u{feff}data: a\n\n", &[("", "a")]),
            ("data: \u{feff}a\n\n", &[("", "\u{feff}a")]),
            (": ping\n\n\n\ndata: a:b\n\nid: 7\nretry: 5\nother\n\n", &[("", "a:b")]),
            ("event: a\nevent: b\ndata: c\n\ndata: d\n\n", &[("b", "c"), ("", "d")]),
            ("event: next\ndata: cut off", &[]),
        ];
        for (text, expected) in cases {
            let events = read(&[text.as_bytes()]);
            let events: Vec<_> = events.iter().map(|(name, data)| (name.as_str(), data.as_str())).collect();
            assert_eq!(events, expected, "{text:?}");
        }
    }

    #[test]
    fn oversized_event_is_refused() {
        let mut reader = SseReader::new(10);
        assert_eq!(reader.read(b"data: 1234"), Ok(Vec::new()));
        assert_eq!(reader.read(b"5"), Err(EventTooLong));
        let mut reader = SseReader::new(10);
        assert_eq!(reader.read(b"data: 1\ndata: 2\ndata: 3\ndata: 4\n"), Err(EventTooLong));
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_change_the_events(
            text in "((event|data|id|: |é|\u{feff}|x)(:|: |)[a-zé:]{0,5}(\n|\r|\r\n|\n\n|\r\n\r\n)){0,12}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes = text.as_bytes();
            let mut positions: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            positions.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for position in positions {
                pieces.push(&bytes[from..position]);
                from = position;
            }
            pieces.push(&bytes[from..]);
            prop_assert_eq!(read(&pieces), read(&[bytes]));
        }
    }
}
