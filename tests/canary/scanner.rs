//! The scanner: secrets that cannot be confused with anything else, and a search for every form in which one could
//! leak.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// How many characters of a generated secret are random.
const CORE: usize = 20;

/// A planted secret.
#[derive(Debug)]
pub(super) struct Canary {
    name: String,
    pub(super) secret: String,
    /// The forms in which it could appear.
    pub(super) forms: Vec<String>,
}

impl Canary {
    /// Generates one, with characters that each encoding represents differently.
    pub(super) fn new(name: &str, mark: &str) -> Self {
        let random = |length| (0..length).map(|_| fastrand::alphanumeric()).collect::<String>();
        let core = random(CORE);
        Self::of(name, format!("{mark}{core}/+={}%&\"\\~", random(4)), &core)
    }

    /// A token from elsewhere, recognised by its last part: its signature, or the end of a key. The part before may be
    /// no secret.
    pub(super) fn token(name: &str, token: &str) -> Self {
        let (_, end) = token.split_at(token.len() - CORE);
        Self::of(name, token.to_owned(), end)
    }

    /// A secret from elsewhere. The core is the part that is searched for: the rest may be no secret, or depend on its
    /// context.
    pub(super) fn of(name: &str, secret: String, core: &str) -> Self {
        assert!(core.is_ascii() && core.len() >= CORE && secret.contains(core));
        let bytes = core.as_bytes();
        let written = |form: fn(&u8) -> String| bytes.iter().map(form).collect::<String>();
        let list =
            |form: fn(&u8) -> String, between| bytes.iter().map(form).collect::<Vec<_>>().join(between);
        // half of it is a leak as well: a truncated text, or its first characters
        let (first, last) = core.split_at(core.len() / 2);
        let mut forms = vec![
            first.to_owned(),
            last.to_owned(),
            url::form_urlencoded::byte_serialize(bytes).collect(),
            written(|byte| format!("%{byte:02x}")),
            written(|byte| format!("%{byte:02X}")),
            written(|byte| format!("\\u{byte:04x}")),
            written(|byte| format!("{byte:02x}")),
            written(|byte| format!("{byte:02X}")),
            list(|byte| format!("{byte:02x}"), " "),
            // the debug output of bytes in Rust
            list(u8::to_string, ", "),
            list(|byte| format!("{byte:#04x}"), ", "),
        ];
        for shift in 0..3 {
            let text = format!("{}{core}", "x".repeat(shift));
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                // without the ends, which depend on the neighbours
                let encoded = engine.encode(&text);
                forms.push(encoded.chars().skip(4).take(encoded.len() - 8).collect());
            }
        }
        Self { name: name.to_owned(), secret, forms }
    }
}

/// Every canary in a text, with the lines around it.
pub(super) fn found(canaries: &[&Canary], place: &str, text: &str) -> Vec<String> {
    let mut leaks = Vec::new();
    if !contains_start(canaries, text) {
        return leaks;
    }
    for canary in canaries {
        for line in text.lines().filter(|line| canary.forms.iter().any(|form| line.contains(form))) {
            leaks.push(format!("{} in {place}: {line}", canary.name));
        }
    }
    leaks
}

/// Whether a text contains the first eight bytes of a form. It compares each position with all of them together: a log
/// has many megabytes, and a search for each form in each line takes a minute.
fn contains_start(canaries: &[&Canary], text: &str) -> bool {
    let forms = canaries.iter().flat_map(|canary| &canary.forms);
    let mut starts: Vec<u64> =
        forms.map(|form| u64::from_be_bytes(*form.as_bytes().first_chunk().unwrap())).collect();
    starts.sort_unstable();
    // few positions of a text share the upper bits of this product with a form
    let slot = |start: u64| usize::try_from(start.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48).unwrap();
    let mut taken = vec![false; 1 << 16];
    for start in &starts {
        taken[slot(*start)] = true;
    }
    let mut last_eight = 0;
    for byte in text.bytes() {
        last_eight = (last_eight << 8) | u64::from(byte);
        if taken[slot(last_eight)] && starts.binary_search(&last_eight).is_ok() {
            return true;
        }
    }
    false
}

#[test]
fn the_scanner_finds_each_form_of_a_planted_leak() {
    // the core of a random one may be at any offset of its base64
    for mark in ["", "j", "jg", "jg_"] {
        let canary = Canary::new("planted", mark);
        let secret = &canary.secret;
        let percent: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let each = |form: fn(u8) -> String| secret.bytes().map(form).collect::<String>();
        let plants = [
            secret.clone(),
            format!("authorization: Bearer {secret}"),
            format!("http://h/query/status?json=%7B%22api_key%22%3A%22{percent}%22%7D"),
            percent,
            each(|byte| format!("%{byte:02X}")),
            each(|byte| format!("%{byte:02x}")),
            each(|byte| format!("\\u{byte:04x}")),
            serde_json::json!({ "key": secret }).to_string(),
            format!("{secret:?}"),
            format!("{:?}", secret.as_bytes()),
            format!("{:02x?}", secret.as_bytes()).replace(',', ""),
            format!("{:#04x?}", secret.as_bytes()).replace('\n', " ").replace(",     ", ", "),
            secret.chars().take(mark.len() + 12).collect(),
            format!("…{}", secret.chars().skip(mark.len() + 9).collect::<String>()),
            STANDARD_NO_PAD.encode(secret),
            STANDARD_NO_PAD.encode(format!("user:{secret}")),
            URL_SAFE_NO_PAD.encode(format!("Bearer {secret}")),
            each(|byte| format!("{byte:02x}")),
            each(|byte| format!("{byte:02X}")),
        ];
        for plant in plants {
            let leaks = found(&[&canary], "a log", &format!("one line\nbefore {plant} after\nanother"));
            assert_eq!(leaks.len(), 1, "{plant}");
        }
        assert_eq!(found(&[&canary], "a log", "nothing\nhere"), Vec::<String>::new());
    }
}
