//! How the file is read: at most so much of it, and no other text than UTF-8. While the gateway serves it must also be a
//! regular file: a pipe or a device could make it wait for ever.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use super::fault::Faults;

/// The longest file, in bytes: four times what a `ConfigMap` of Kubernetes can hold.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Reads the file at `path`, whatever it is. Blocks on it.
pub(super) fn read(path: &Path) -> Result<String, Faults> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > LONGEST => {
            fault(path, "is larger than 4MiB, which no configuration is: name the right file")
        }
        Ok(_) => String::from_utf8(bytes).or_else(|_| fault(path, "is not text in UTF-8: save it as UTF-8")),
        Err(reason) => fault(path, format!("cannot be read: {reason}")),
    }
}

/// The same, if it is a regular file. Blocks on the disk alone.
pub(super) fn read_regular(path: &Path) -> Result<String, Faults> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            fault(path, "is not a regular file: put the configuration in its place")
        }
        Ok(_) => read(path),
        Err(reason) => fault(path, format!("cannot be read: {reason}")),
    }
}

fn fault<T>(path: &Path, message: impl Into<String>) -> Result<T, Faults> {
    let mut faults = Faults::default();
    faults.add(path.display().to_string(), message);
    Err(faults)
}
