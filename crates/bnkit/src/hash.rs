//! SHA-256 of files, on a thread of its own: hashing takes longer than copying.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn of_file(path: &Path) -> Result<String> {
    let failed =
        |error: std::io::Error| Error::Model(bnkit_model::Error::io(path, "cannot read", error));
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// A hash that is being computed.
#[derive(Debug)]
pub(crate) struct Hashing(JoinHandle<Result<String>>);

/// Starts hashing a file.
pub(crate) fn in_background(path: &Path) -> Hashing {
    let path: PathBuf = path.to_owned();
    Hashing(std::thread::spawn(move || of_file(&path)))
}

impl Hashing {
    /// Waits for the hash.
    ///
    /// # Errors
    /// If the file could not be read.
    pub(crate) fn finish(self) -> Result<String> {
        self.0
            .join()
            .map_err(|_| Error::Request("the hash was not computed".to_owned()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_hash_of_abc() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        // FIPS 180-4, the example of appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(in_background(file.path()).finish().unwrap(), expected);
    }
}
