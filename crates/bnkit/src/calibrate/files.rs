//! Small files that appear complete or not at all.

use std::io::Write;
use std::path::Path;

use bnkit_model::{Error as ModelError, temporary};

use crate::{Error, Result};

/// Refuses to replace a file without `force`.
///
/// # Errors
/// If it exists.
pub(crate) fn check_free(path: &Path, force: bool) -> Result<()> {
    if !force && path.exists() {
        return Err(Error::Request(format!(
            "{}: exists already; --force replaces it",
            path.display()
        )));
    }
    Ok(())
}

/// Writes a file beside its place, and moves it there.
///
/// # Errors
/// If it cannot be written, or exists (without `force`).
pub(crate) fn write(path: &Path, force: bool, bytes: &[u8]) -> Result<()> {
    check_free(path, force)?;
    let failed = |error| Error::from(ModelError::io(path, "cannot write", error));
    let mut file = temporary::file_beside(path, 0o666).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    let placed = if force {
        file.persist(path)
    } else {
        file.persist_noclobber(path)
    };
    placed.map(drop).map_err(|error| failed(error.error))
}
