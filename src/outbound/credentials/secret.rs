//! Reads one secret from its file or variable, and reports what is wrong with it without printing it.

use std::io::Read as _;
use std::path::Path;
use std::{fs, io};

use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{Environment, NotUnicode, SecretRef};

/// The longest secret, in bytes: the limit of what fits into request headers.
const LONGEST: usize = 8 * 1024;

/// Header schemes that are often copied together with a token.
const SCHEMES: [&str; 2] = ["Bearer", "Basic"];
/// Quotes that an editor or a template puts around a text.
const QUOTES: [char; 2] = ['"', '\''];

/// What is wrong with a secret.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    File(io::Error),
    /// The variable is not valid Unicode.
    #[error("{0}")]
    Variable(NotUnicode),
    /// Only white space.
    #[error("is empty: put the secret there")]
    Empty,
    /// More than 8 KiB.
    #[error("holds more than 8KiB: put the secret there and nothing else")]
    TooLong,
    /// A header scheme precedes the secret.
    #[error("begins with the word \"{0}\": put the secret there without it, since the gateway adds it")]
    Scheme(&'static str),
    /// Quotes around the secret.
    #[error("has quotes around the secret: put the secret there without them")]
    Quoted,
    /// A character that no header can contain, such as a line break.
    #[error("holds a character that is not printable ASCII: put the secret there and nothing else")]
    NotPrintable,
}

/// Reads a secret and trims white space. Blocks on the disk.
///
/// # Errors
/// Returns an error if the secret cannot be read or is not usable as a secret.
pub fn read(reference: &SecretRef, env: &Environment) -> Result<SecretString, BadSecret> {
    match reference {
        SecretRef::File(path) => file(path),
        SecretRef::Env(name) => checked(env.get(name).map_err(BadSecret::Variable)?),
    }
}

/// Reads one byte more than the limit: a device or a log file that is configured as a secret must not fill the memory.
pub(super) fn file(path: &Path) -> Result<SecretString, BadSecret> {
    let mut text = String::with_capacity(LONGEST + 3);
    let limit = LONGEST as u64 + 3;
    match fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text)) {
        Ok(_) => checked(SecretString::from(text).expose_secret()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(BadSecret::NotPrintable),
        Err(error) => Err(BadSecret::File(error)),
    }
}

fn checked(text: &str) -> Result<SecretString, BadSecret> {
    let text = text.trim();
    if text.is_empty() {
        Err(BadSecret::Empty)
    } else if text.len() > LONGEST {
        Err(BadSecret::TooLong)
    } else if let Some(scheme) = SCHEMES.into_iter().find(|scheme| begins_with_word(text, scheme)) {
        Err(BadSecret::Scheme(scheme))
    } else if QUOTES
        .into_iter()
        .any(|quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote))
    {
        Err(BadSecret::Quoted)
    } else if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        Ok(SecretString::from(text))
    } else {
        Err(BadSecret::NotPrintable)
    }
}

fn begins_with_word(text: &str, word: &str) -> bool {
    text.split_once(' ').is_some_and(|(first, _)| first.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_trimmed_or_refused_without_being_shown() {
        let dir = std::env::temp_dir().join(format!("jobgate-secrets-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let long = "cAnaRy".repeat(2_000);
        let cases: [(&str, &[u8], Result<&str, &str>); 15] = [
            ("plain", b"cAnaRy", Ok("cAnaRy")),
            ("newline", b" cAnaRy\r\n", Ok("cAnaRy")),
            ("empty", b" \n", Err("is empty")),
            ("lines", b"cAnaRy\nx", Err("not printable ASCII")),
            ("nul", b"cAnaRy\0", Err("not printable ASCII")),
            ("accent", "cAnaRyé".as_bytes(), Err("not printable ASCII")),
            ("binary", b"cAnaRy\xff", Err("not printable ASCII")),
            ("long", long.as_bytes(), Err("more than 8KiB")),
            ("bearer", b"Bearer cAnaRy\n", Err("begins with the word \"Bearer\"")),
            ("lower", b"bearer cAnaRy", Err("begins with the word \"Bearer\"")),
            ("basic", b"Basic cAnaRy", Err("begins with the word \"Basic\"")),
            ("word", b"Bearer", Ok("Bearer")),
            ("quoted", b"\"cAnaRy\"\n", Err("has quotes around")),
            ("single", b"'cAnaRy'", Err("has quotes around")),
            ("inside", b"cAn\"aRy", Ok("cAn\"aRy")),
        ];
        for (name, content, expected) in cases {
            let path = dir.join(name);
            fs::write(&path, content).unwrap();
            let taken = read(&SecretRef::File(path), &Environment::default());
            same(name, taken, expected);
            if let Ok(text) = std::str::from_utf8(content) {
                let env = [("SECRET", text)].into_iter().collect();
                same(name, read(&SecretRef::Env("SECRET".to_owned()), &env), expected);
            }
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    fn same(name: &str, read: Result<SecretString, BadSecret>, expected: Result<&str, &str>) {
        match (read, expected) {
            (Ok(secret), Ok(expected)) => assert_eq!(secret.expose_secret(), expected, "{name}"),
            (Err(error), Err(expected)) => {
                let text = format!("{error} {error:?}");
                assert!(text.contains(expected) && !text.contains("cAnaRy"), "{name}: {text}");
            }
            (read, expected) => panic!("{name}: {:?} instead of {expected:?}", read.map(drop)),
        }
    }
}
