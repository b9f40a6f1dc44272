//! Names for files in the making, and what a killed process left under such names.
//!
//! A temporary file or folder lies beside its destination and is locked (`flock`) by the process that writes it; the system lets go of the
//! lock when that process ends, however it ends. So a file with such a name that nobody has locked was left behind:
//!
//! | name | what it is | what becomes of it |
//! | --- | --- | --- |
//! | `.bnkit-XXXXXX.tmp` | a file in the making, or a folder of them | deleted |
//! | `.bnkit-XXXXXX.NAME.old` | a folder: `NAME` and the files it needs, as they were before they were replaced | all of them come back if there is no `NAME`; or else deleted |

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::{Builder, NamedTempFile, TempDir};

use crate::output;
use crate::{Error, Result};

pub(crate) const PREFIX: &str = ".bnkit-";
const MAKING: &str = ".tmp";
pub(crate) const REPLACED: &str = ".old";
/// The random characters of a name.
const RANDOM: usize = 6;

/// A new, empty, locked file beside `path`, once what is left there is cleaned up.
///
/// # Errors
/// If it cannot be created.
pub fn file_beside(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let folder = output::folder(path);
    sweep(folder);
    let mut builder = Builder::new();
    let builder = builder
        .prefix(PREFIX)
        .suffix(MAKING)
        .rand_bytes(RANDOM)
        .permissions(Permissions::from_mode(mode));
    loop {
        let file = builder.tempfile_in(folder)?;
        // Where a file system has no locks, nothing is ever swept: see there.
        let _ = flock(file.as_file(), FlockOperation::LockExclusive);
        // Somebody who swept may have been quicker than the lock.
        if file.as_file().metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
}

/// A locked temporary folder beside an output, for what is needed until the output is there. Deleted when this is dropped.
#[derive(Debug)]
pub struct Folder {
    folder: TempDir,
    _lock: File,
}

impl Folder {
    /// A new folder beside `path`.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn beside(path: &Path) -> Result<Self> {
        let beside = output::folder(path);
        let failed = |error| Error::io(beside, "cannot create a folder in it", error);
        sweep(beside);
        let folder = Builder::new()
            .prefix(PREFIX)
            .suffix(MAKING)
            .rand_bytes(RANDOM)
            .tempdir_in(beside)
            .map_err(failed)?;
        let lock = File::open(folder.path()).map_err(failed)?;
        let _ = flock(&lock, FlockOperation::LockExclusive);
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Cleans up in `folder` what processes that are no more left behind. What cannot be cleaned stays: that is no reason not to
/// write beside it.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if let Some(left) = entry.file_name().to_str().and_then(Left::of) {
            // What is locked, or not ours to open, stays.
            let _ = left.clean(&entry.path(), folder);
        }
    }
}

/// What a name says of a file.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Making,
    /// Its folder's file of this name, and what belongs to it.
    Replaced(PathBuf),
}

impl Left {
    fn of(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let (random, rest) = rest.split_at_checked(RANDOM)?;
        if !random.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        if rest == MAKING {
            return Some(Self::Making);
        }
        let old = rest.strip_prefix('.')?.strip_suffix(REPLACED)?;
        (!old.is_empty()).then(|| Self::Replaced(old.into()))
    }

    fn clean(&self, path: &Path, folder: &Path) -> io::Result<()> {
        const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let left = OpenOptions::new()
            .read(true)
            .custom_flags(NO_FOLLOW)
            .open(path)?;
        let own = left.metadata()?;
        flock(&left, FlockOperation::NonBlockingLockExclusive)?;
        match self {
            Self::Making if own.is_file() => std::fs::remove_file(path),
            Self::Making if own.is_dir() => std::fs::remove_dir_all(path),
            Self::Replaced(name) if own.is_dir() => {
                if !exists(&folder.join(name)) {
                    bring_back(path, folder, name)?;
                }
                std::fs::remove_dir_all(path)
            }
            _ => Ok(()),
        }
    }
}

/// Gives all files that were kept their names again, `last` last.
pub(crate) fn bring_back(kept: &Path, folder: &Path, last: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(kept)? {
        let name = entry?.file_name();
        if name != last {
            move_back(&kept.join(&name), &folder.join(&name))?;
        }
    }
    let last_kept = kept.join(last);
    match exists(&last_kept) {
        true => move_back(&last_kept, &folder.join(last)),
        false => Ok(()),
    }
}

/// Gives a file its name again. Renaming one name of a file to another of its names would do nothing and leave both.
pub(crate) fn move_back(kept: &Path, path: &Path) -> io::Result<()> {
    let place = |path: &Path| path.symlink_metadata().map(|own| (own.dev(), own.ino()));
    match (place(path), place(kept)) {
        (Ok(new), Ok(old)) if new == old => std::fs::remove_file(kept),
        _ => std::fs::rename(kept, path),
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_left_is_cleaned_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [
            ".bnkit-abcDE1.tmp",
            // Not ours.
            ".bnkit-notes.tmp",
            ".bnkit-abcDE1.tmp.txt",
            ".bnkit-abcDE4..old",
            "model.onnx",
        ] {
            std::fs::write(path(name), name).unwrap();
        }
        std::os::unix::fs::symlink(path("model.onnx"), path(".bnkit-abcDE5.tmp")).unwrap();
        std::fs::create_dir(path(".bnkit-abcDE6.tmp")).unwrap();
        let used = file_beside(&path("model.onnx"), 0o600).unwrap();
        let used_folder = Folder::beside(&path("model.onnx")).unwrap();
        sweep(folder.path());
        let mut expected = vec![
            ".bnkit-abcDE1.tmp.txt".to_owned(),
            ".bnkit-abcDE4..old".to_owned(),
            ".bnkit-abcDE5.tmp".to_owned(),
            ".bnkit-notes.tmp".to_owned(),
            "model.onnx".to_owned(),
        ];
        for used in [used.path(), used_folder.path()] {
            expected.push(used.file_name().unwrap().to_str().unwrap().to_owned());
        }
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn what_was_replaced_comes_back_whole_or_not_at_all() {
        for complete in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            let kept = path(".bnkit-abcDE3.m.onnx.old");
            std::fs::create_dir(&kept).unwrap();
            std::fs::write(kept.join("m.onnx"), "old").unwrap();
            std::fs::write(kept.join("m.onnx.data"), "old").unwrap();
            std::fs::write(path("m.onnx.data"), "new").unwrap();
            if complete {
                std::fs::write(path("m.onnx"), "new").unwrap();
            }
            sweep(folder.path());
            let expected = if complete { "new" } else { "old" };
            assert_eq!(names(folder.path()), ["m.onnx", "m.onnx.data"]);
            for name in ["m.onnx", "m.onnx.data"] {
                assert_eq!(std::fs::read_to_string(path(name)).unwrap(), expected);
            }
        }
    }

    #[test]
    fn only_full_names_are_ours() {
        assert_eq!(Left::of(".bnkit-a1B2c3.tmp"), Some(Left::Making));
        assert_eq!(
            Left::of(".bnkit-a1B2c3.m.onnx.old"),
            Some(Left::Replaced("m.onnx".into()))
        );
        for name in [
            "",
            ".bnkit-",
            ".bnkit-a1.tmp",
            ".bnkit-a1B2é3.tmp",
            "bnkit-a1B2c3.tmp",
            ".bnkit-a1B2c3.old",
        ] {
            assert_eq!(Left::of(name), None, "{name}");
        }
    }
}
