//! Small files that appear complete or not at all.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bnkit_model::Error as ModelError;

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
    let mut file = tempfile::Builder::new()
        .prefix(".bnkit-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder(path))
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    let placed = if force {
        file.persist(path)
    } else {
        file.persist_noclobber(path)
    };
    placed.map(drop).map_err(|error| failed(error.error))
}

/// The folder that a file is in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
