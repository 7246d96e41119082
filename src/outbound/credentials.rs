//! The secrets that sources want to see, read once from the files and variables that the configuration names. Does not yet
//! follow a file that changes.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::{fmt, fs, io};

use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{CredentialRef, Environment, NoText, SecretRef, SourceConfig};
use crate::domain::id::SourceName;
use crate::ports::credentials::{Credential, Credentials};

/// The longest secret, in bytes: what still fits into a request's headers.
const LONGEST: usize = 8 * 1024;

/// The secrets as they were when they were read.
pub struct SecretFiles {
    held: BTreeMap<SourceName, Credential>,
}

/// A secret that could not be read, so that its source is not asked. Names the reference and never the secret.
#[derive(Debug, thiserror::Error)]
#[error("sources.{source_name}.credential: {reference} {reason}")]
pub struct Unreadable {
    /// The source that goes without.
    pub source_name: SourceName,
    /// Where the secret should have been.
    pub reference: SecretRef,
    /// What was wrong there.
    pub reason: BadSecret,
}

/// What is wrong with a secret.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    File(io::Error),
    /// The variable has no text.
    #[error("{0}")]
    Variable(NoText),
    /// Nothing but white space.
    #[error("is empty: put the secret there")]
    Empty,
    /// More than 8 KiB.
    #[error("holds more than 8KiB: put the secret there and nothing else")]
    TooLong,
    /// A character that no header can carry, such as a second line.
    #[error("holds a character that is not printable ASCII: put the secret there and nothing else")]
    NotPrintable,
}

impl SecretFiles {
    /// Reads the secret of every source. Blocks on the disk. Sources whose secret is bad go without, and are listed.
    pub fn read<'a>(
        sources: impl IntoIterator<Item = (&'a SourceName, &'a SourceConfig)>,
        env: &Environment,
    ) -> (Self, Vec<Unreadable>) {
        let mut held = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (name, source) in sources {
            match secret(source.credential.secret(), env) {
                Ok(secret) => drop(held.insert(name.clone(), credential(&source.credential, secret))),
                Err(reason) => unreadable.push(Unreadable {
                    source_name: name.clone(),
                    reference: source.credential.secret().clone(),
                    reason,
                }),
            }
        }
        (Self { held }, unreadable)
    }
}

impl Credentials for SecretFiles {
    fn current(&self, source: &SourceName) -> Option<Credential> {
        self.held.get(source).cloned()
    }
}

impl fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFiles({} sources)", self.held.len())
    }
}

fn credential(form: &CredentialRef, secret: SecretString) -> Credential {
    match form {
        CredentialRef::Bearer(_) => Credential::Bearer(secret),
        CredentialRef::ApiKey(_) => Credential::ApiKey(secret),
    }
}

/// Reads one secret. Blocks on the disk.
///
/// # Errors
/// When there is none that could be used; never with the secret in it.
pub fn secret(reference: &SecretRef, env: &Environment) -> Result<SecretString, BadSecret> {
    match reference {
        SecretRef::File(path) => checked(file(path)?.expose_secret()),
        SecretRef::Env(name) => checked(env.get(name).map_err(BadSecret::Variable)?),
    }
}

/// Reads one byte more than is allowed at most: a device or a log in the place of a secret must not fill the memory.
fn file(path: &Path) -> Result<SecretString, BadSecret> {
    let mut text = String::with_capacity(LONGEST + 3);
    let limit = LONGEST as u64 + 3;
    match fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text)) {
        Ok(_) => Ok(SecretString::from(text)),
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
    } else if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        Ok(SecretString::from(text))
    } else {
        Err(BadSecret::NotPrintable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_secret_is_taken_without_its_white_space_or_refused_without_being_shown() {
        let dir = std::env::temp_dir().join(format!("jobgate-secrets-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let long = "cAnaRy".repeat(2_000);
        let cases: [(&str, &[u8], Result<&str, &str>); 8] = [
            ("plain", b"cAnaRy", Ok("cAnaRy")),
            ("newline", b" cAnaRy\r\n", Ok("cAnaRy")),
            ("empty", b" \n", Err("is empty")),
            ("lines", b"cAnaRy\nx", Err("not printable ASCII")),
            ("nul", b"cAnaRy\0", Err("not printable ASCII")),
            ("accent", "cAnaRyé".as_bytes(), Err("not printable ASCII")),
            ("binary", b"cAnaRy\xff", Err("not printable ASCII")),
            ("long", long.as_bytes(), Err("more than 8KiB")),
        ];
        for (name, content, expected) in cases {
            let path = dir.join(name);
            fs::write(&path, content).unwrap();
            let read = secret(&SecretRef::File(path), &Environment::default());
            same(name, read, expected);
            if let Ok(text) = std::str::from_utf8(content) {
                let env = [("SECRET", text)].into_iter().collect();
                same(name, secret(&SecretRef::Env("SECRET".to_owned()), &env), expected);
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

    #[test]
    fn one_bad_secret_leaves_the_other_sources_with_theirs() {
        let yaml = "sources:
  audit: { upstream: mindbridge, base_url: 'https://a.example', credential: { bearer: { env: AUDIT } } }
  gone: { upstream: mindbridge, base_url: 'https://a.example', credential: { bearer: { file: ./no/such/file } } }
  sales: { upstream: supermetrics, base_url: 'https://a.example', credential: { api_key: { env: SALES } } }
  unset: { upstream: mindbridge, base_url: 'https://a.example', credential: { bearer: { env: UNSET } } }";
        let env = [("AUDIT", "cAnaRy1"), ("SALES", "cAnaRy2")].into_iter().collect();
        let config = Config::from_yaml(yaml, &env).unwrap();
        let (secrets, unreadable) = SecretFiles::read(&config.sources, &env);
        let shown = format!("{env:?} {secrets:?} {config:?}");
        assert!(!shown.contains("cAnaRy"), "{shown}");
        let held: Vec<_> = config.sources.keys().map(|name| secrets.current(name)).collect();
        assert!(matches!(&held[0], Some(Credential::Bearer(secret)) if secret.expose_secret() == "cAnaRy1"));
        assert!(matches!(&held[2], Some(Credential::ApiKey(secret)) if secret.expose_secret() == "cAnaRy2"));
        assert!(held[1].is_none() && held[3].is_none());
        let lines: Vec<_> = unreadable.iter().map(ToString::to_string).collect();
        assert!(
            lines[0].starts_with("sources.gone.credential: file ./no/such/file cannot be read: "),
            "{lines:?}"
        );
        assert_eq!(lines[1..], ["sources.unset.credential: environment variable UNSET is not set"]);
    }
}
