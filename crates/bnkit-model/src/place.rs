//! How several files appear together.
//!
//! A rename replaces one file at once, never several. The last of the files is the one that readers open and that names the
//! others (the model, the index), so an old one must not stand beside new files: it goes first, and the new one comes last.
//! What was replaced is kept in a temporary folder until then, and comes back if a file cannot be put in place. After a kill in
//! between there is no file to open, rather than one that does not fit its data; the next run brings the old files back
//! (see [`temporary`]).

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::output::{Output, folder, sync_folder};
use crate::temporary::{self, PREFIX, REPLACED};
use crate::{Error, Result};

/// Gives complete files their names, the last one when all others last. `force` replaces what is there.
///
/// # Errors
/// If one cannot get its name; then all names are what they were.
pub(crate) fn put_in_place(mut outputs: Vec<(PathBuf, Output<'_>)>, force: bool) -> Result<()> {
    let Some((last, output)) = outputs.pop() else {
        return Ok(());
    };
    let mut before = Before::default();
    let mut folders = BTreeSet::new();
    if force && !outputs.is_empty() {
        let paths = outputs.iter().map(|(path, _)| path).chain([&last]);
        before.keep(paths, &last)?;
    }
    for (path, output) in outputs {
        output.persist(force)?;
        before.put.push(path.clone());
        folders.insert(folder(&path).to_owned());
    }
    folders.iter().try_for_each(|folder| sync_folder(folder))?;
    output.persist(force)?;
    before.done();
    sync_folder(folder(&last))
}

/// What was there before; comes back when this is dropped before all is done.
#[derive(Default)]
struct Before {
    /// The folder with what is replaced, locked as long as it is needed; and the names of its files.
    kept: Option<(TempDir, File)>,
    files: Vec<PathBuf>,
    /// The names that new files have got.
    put: Vec<PathBuf>,
}

impl Before {
    /// Takes a second name for each of the files that is there, and the first one from `last`.
    fn keep<'p>(&mut self, paths: impl Iterator<Item = &'p PathBuf>, last: &Path) -> Result<()> {
        let there: Vec<&PathBuf> = paths
            .filter(|path| path.symlink_metadata().is_ok())
            .collect();
        if there.is_empty() {
            return Ok(());
        }
        let together = there.iter().all(|path| folder(path) == folder(last));
        let name = last.file_name().unwrap_or_default().to_string_lossy();
        // Files of several folders (by way of links) cannot be brought back by their names alone.
        let suffix = if together { REPLACED } else { ".kept" };
        let failed =
            |path: &Path, error| Error::io(path, "cannot be kept until it is replaced", error);
        let kept = tempfile::Builder::new()
            .prefix(PREFIX)
            .suffix(&format!(".{name}{suffix}"))
            .tempdir_in(folder(last))
            .map_err(|error| failed(last, error))?;
        let lock = File::open(kept.path()).map_err(|error| failed(last, error))?;
        // Where a file system has no locks, nothing is swept either.
        let _ = flock(&lock, FlockOperation::LockExclusive);
        let folder = kept.path().to_owned();
        self.kept = Some((kept, lock));
        for path in there {
            second_name(path, &folder).map_err(|error| failed(path, error))?;
            self.files.push(path.clone());
        }
        if last.symlink_metadata().is_ok() {
            std::fs::remove_file(last).map_err(|error| failed(last, error))?;
        }
        Ok(())
    }
}

impl Before {
    /// Nothing has to come back.
    fn done(&mut self) {
        self.files.clear();
        self.put.clear();
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        for path in self.put.drain(..) {
            if !self.files.contains(&path) {
                let _ = std::fs::remove_file(path);
            }
        }
        let Some((kept, _lock)) = &mut self.kept else {
            return;
        };
        // The one that readers open is the last in the list.
        for path in self.files.drain(..) {
            let name = path.file_name().unwrap_or_default();
            if temporary::move_back(&kept.path().join(name), &path).is_err() {
                // What cannot come back is not deleted either.
                kept.disable_cleanup(true);
            }
        }
    }
}

/// A second name in `folder` for the file at `path`; where the file system has none, the file is moved there.
fn second_name(path: &Path, folder: &Path) -> std::io::Result<()> {
    if !path.symlink_metadata()?.is_file() {
        return Err(std::io::Error::other("no regular file any more"));
    }
    let name = folder.join(path.file_name().unwrap_or_default());
    std::fs::hard_link(path, &name).or_else(|_| std::fs::rename(path, &name))
}
