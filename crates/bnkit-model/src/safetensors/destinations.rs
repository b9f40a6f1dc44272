//! Where checkpoints go: what an output may replace.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::state_dict::StateDict;
use crate::output::{behind_links, exists, folder};
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
