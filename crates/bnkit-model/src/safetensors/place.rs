//! Where checkpoints go: what an output may replace, and how several files appear together.
//!
//! A rename replaces one file at once, never several. So what several files replace is kept under temporary names until
//! the last of them is in place, and comes back if one cannot be. A machine that stops between two renames can leave new
//! files beside old ones; each is whole, and the index is the last.

use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::state_dict::StateDict;
use crate::output::{Output, behind_links, exists, folder, sync_folder};
use crate::{Error, Result};

/// The files behind `paths`, if all of them may be written.
///
/// # Errors
/// If one is there (without `force`), is no regular file, belongs to a sharded input, or is the same as another.
pub(super) fn destinations(
    paths: &[PathBuf],
    force: bool,
    input: Option<&StateDict>,
) -> Result<Vec<PathBuf>> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for path in paths {
        check(path, force, input)?;
        let target = behind_links(path)?;
        // A folder that is not there is an error later on, of the system.
        let real = folder(&target).canonicalize();
        let real = real.unwrap_or_else(|_| folder(&target).to_owned());
        if !seen.insert((real, target.file_name().map(ToOwned::to_owned))) {
            let message = "two files of the checkpoint would be this one";
            return Err(Error::invalid(message).in_file(path));
        }
        found.push(target);
    }
    Ok(found)
}

/// Refuses an output that must not be replaced: without `force` any, and always a file of a sharded input, whose other
/// files would no longer fit.
fn check(path: &Path, force: bool, input: Option<&StateDict>) -> Result<()> {
    let there = path.metadata();
    if let Ok(there) = &there
        && !there.is_file()
    {
        let message = match there.is_dir() {
            true => "this is a folder",
            false => "this is no regular file (a device or pipe, say)",
        };
        return Err(Error::invalid(message).in_file(path));
    }
    if !force && path.symlink_metadata().is_ok() {
        return Err(exists(path));
    }
    let (Ok(there), Some(input)) = (there, input.filter(|input| input.is_sharded())) else {
        return Ok(());
    };
    let is_there = |own: Metadata| (own.dev(), own.ino()) == (there.dev(), there.ino());
    let shards = input.shards().iter();
    let mut shards = shards.filter_map(|shard| shard.source.file()?.metadata().ok());
    let index = input.path().and_then(|path| path.metadata().ok());
    if shards.any(is_there) || index.is_some_and(is_there) {
        let message = "this file belongs to the input, whose other files would no longer fit; choose another output";
        return Err(Error::invalid(message).in_file(path));
    }
    Ok(())
}

/// Gives complete files their names, the last one when all others last.
///
/// # Errors
/// If one cannot get its name; then all names are what they were.
pub(super) fn put_in_place(outputs: Vec<(PathBuf, Output<'_>)>, force: bool) -> Result<()> {
    let mut replaced = Replaced::default();
    let last = outputs.len().saturating_sub(1);
    for (number, (path, output)) in outputs.into_iter().enumerate() {
        if number == last {
            replaced.sync()?;
        }
        // The last one needs no way back: it replaces at once, or not at all.
        let before = match force && number < last {
            true => keep(&path)?,
            false => None,
        };
        match output.persist(force) {
            Ok(()) => replaced.files.push((path, before)),
            Err(error) => {
                restore(&path, before);
                return Err(error);
            }
        }
    }
    let folder = replaced.files.last().map(|(path, _)| path.clone());
    replaced.files.clear();
    folder.map_or(Ok(()), |path| sync_folder(&path))
}

/// What was replaced so far; comes back when this is dropped.
#[derive(Default)]
struct Replaced {
    /// The names, and what had them before.
    files: Vec<(PathBuf, Option<NamedTempFile<()>>)>,
}

impl Replaced {
    /// Makes the names last.
    fn sync(&self) -> Result<()> {
        let paths = self.files.iter().map(|(path, _)| (folder(path), path));
        let one_each: BTreeMap<&Path, &PathBuf> = paths.collect();
        one_each.values().try_for_each(|path| sync_folder(path))
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        for (path, before) in self.files.drain(..).rev() {
            if before.is_none() {
                let _ = std::fs::remove_file(&path);
            }
            restore(&path, before);
        }
    }
}

/// A second name for what is at `path`, if there is something.
fn keep(path: &Path) -> Result<Option<NamedTempFile<()>>> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".bnkit-");
    let linked = builder.make_in(folder(path), |name| std::fs::hard_link(path, name));
    // Some file systems have no second names: there the file is moved away.
    let is_file = || path.symlink_metadata().is_ok_and(|there| there.is_file());
    let kept = linked.or_else(|error| match error.kind() {
        ErrorKind::NotFound => Err(error),
        _ if !is_file() => Err(error),
        _ => builder.make_in(folder(path), |name| std::fs::rename(path, name)),
    });
    match kept {
        Ok(kept) => Ok(Some(kept)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "cannot replace", error)),
    }
}

/// Gives what was kept its name again.
fn restore(path: &Path, before: Option<NamedTempFile<()>>) {
    let Some(before) = before else {
        return;
    };
    let place = |path: &Path| path.symlink_metadata().map(|own| (own.dev(), own.ino()));
    // Renaming one name of a file to another of its names would do nothing and leave both.
    if matches!((place(path), place(before.path())), (Ok(new), Ok(old)) if new == old) {
        return;
    }
    if let Err(failed) = before.persist(path) {
        // What cannot come back is not deleted either.
        let _ = failed.file.keep();
    }
}
