//! Finds the files of GraphiQL: in `share/jobgate/graphiql` beside the folder of the binary, where the container image and
//! `graphiql/build.sh` put them. They are read once, at the start.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::inbound::graphiql::Explorer;

/// The largest file that is read. The largest one of the package has a quarter of it.
const MAX_FILE: u64 = 8 << 20;

/// The explorer for this configuration: off without introspection, whose answer it shows.
pub(super) fn open(config: &Config) -> Explorer {
    if !config.allows_introspection() {
        return Explorer::Off;
    }
    folder().filter(|folder| folder.is_dir()).map_or(Explorer::Missing, |folder| read(&folder))
}

/// Where the files of the running binary are.
fn folder() -> Option<PathBuf> {
    let binary = std::env::current_exe().ok()?;
    Some(binary.parent()?.parent()?.join("share/jobgate/graphiql"))
}

/// The explorer with the files of a folder, all of them or none.
fn read(folder: &Path) -> Explorer {
    let opened = Explorer::installed(|name| {
        let file = folder.join(format!("{name}.gz"));
        read_bounded(&file).map_err(|fault| (file, fault))
    });
    opened.unwrap_or_else(|(file, fault)| {
        tracing::warn!(file = %file.display(), error = %fault, "file of GraphiQL cannot be read; run graphiql/build.sh");
        Explorer::Missing
    })
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 8 MiB"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::Environment;
    use crate::inbound::graphiql::FILES;

    use super::*;

    fn config(sections: &str) -> Config {
        let yaml = format!(
            "sources: {{ a: {{ upstream: mindbridge, base_url: 'https://a.example', credential: {{ bearer: {{ env: T }} }} }} }}\n{sections}"
        );
        Config::from_yaml(&yaml, &Environment::default()).unwrap()
    }

    #[test]
    fn explorer_is_off_without_introspection() {
        assert!(matches!(open(&config("graphql: { introspection: off }")), Explorer::Off));
        assert!(!matches!(open(&config("graphql: { introspection: on }")), Explorer::Off));
        assert!(!matches!(open(&config("")), Explorer::Off), "auto, on loopback");
    }

    #[test]
    fn explorer_needs_every_file_in_bounded_size() {
        let folder = std::env::temp_dir().join(format!("jobgate-explorer-{:x}", fastrand::u64(..)));
        fs::create_dir(&folder).unwrap();
        let [(last, _), others @ ..] = FILES;
        for (name, _) in others {
            fs::write(folder.join(format!("{name}.gz")), name).unwrap();
        }
        assert!(matches!(read(&folder), Explorer::Missing), "{last} is not there");
        let last = folder.join(format!("{last}.gz"));
        fs::write(&last, "it is").unwrap();
        assert!(matches!(read(&folder), Explorer::Installed(_)));
        File::create(&last).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(matches!(read(&folder), Explorer::Missing), "it is too large");
        fs::remove_dir_all(folder).unwrap();
    }
}
