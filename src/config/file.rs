//! Reads the configuration file: bounded in size, and UTF-8 only. A running gateway reads regular files only, because a
//! pipe or a device can block forever.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use super::validation::ValidationErrors;

/// Maximum size of the file, in bytes: four times the maximum of a Kubernetes `ConfigMap`.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Reads the file at `path`, whatever it is. Blocks on it.
pub(super) fn read(path: &Path) -> Result<String, ValidationErrors> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > LONGEST => {
            fault(path, "is larger than 4MiB: check the path of the configuration file")
        }
        Ok(_) => String::from_utf8(bytes).or_else(|_| fault(path, "is not valid UTF-8: save it as UTF-8")),
        Err(reason) => fault(path, format!("cannot be read: {reason}")),
    }
}

/// The same, if it is a regular file. Blocks on the disk only.
pub(super) fn read_regular(path: &Path) -> Result<String, ValidationErrors> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            fault(path, "is not a regular file: replace it with the configuration file")
        }
        Ok(_) => read(path),
        Err(reason) => fault(path, format!("cannot be read: {reason}")),
    }
}

fn fault<T>(path: &Path, message: impl Into<String>) -> Result<T, ValidationErrors> {
    let mut faults = ValidationErrors::default();
    faults.add(path.display().to_string(), message);
    Err(faults)
}
