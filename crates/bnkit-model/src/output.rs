//! A file in the making: written beside its destination under a temporary name, and put in place when it is complete.
//!
//! Long ranges are copied inside the kernel (some file systems then only share the blocks); short ones and what was
//! computed go through a buffer. Until [`Output::persist`], dropping it leaves nothing behind; what a killed process leaves, the next one in that folder cleans.

use std::fs::{File, Permissions};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::copy_file_range;
use rustix::io::Errno;
use tempfile::NamedTempFile;

use crate::source::Source;
use crate::temporary;
use crate::{Error, Result};

/// Told how many bytes are written.
pub(crate) type Progress<'p> = dyn Fn(u64) + 'p;

/// A file that is being written.
pub(crate) struct Output<'p> {
    file: NamedTempFile,
    path: PathBuf,
    buffer: Vec<u8>,
    progress: &'p Progress<'p>,
}

/// What is collected before it is written, and the shortest range that is copied inside the kernel.
const BUFFER: usize = 256 * 1024;
/// The longest range that is copied in one go, so that progress is seen.
const STRIDE: u64 = 16 * 1024 * 1024;

impl<'p> Output<'p> {
    /// A new file that will be `path`.
    pub(crate) fn create(path: &Path, progress: &'p Progress<'p>) -> Result<Self> {
        let cannot_create = |error| Error::io(path, "cannot create a file beside it", error);
        // Temporary files are private by default; this one becomes what it replaces, or else an ordinary file, as the
        // umask has it.
        let replaced = path.metadata().ok();
        let mode = replaced.map(|replaced| replaced.permissions().mode() & 0o777);
        let file = temporary::file_beside(path, mode.unwrap_or(0o666)).map_err(cannot_create)?;
        if let Some(mode) = mode {
            file.as_file()
                .set_permissions(Permissions::from_mode(mode))
                .map_err(cannot_create)?;
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            buffer: Vec::new(),
            progress,
        })
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() < BUFFER {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_through(bytes)
    }

    /// Appends zeros.
    pub(crate) fn pad(&mut self, mut count: u64) -> Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while count > 0 {
            let now = count.min(ZEROS.len() as u64);
            self.write(&ZEROS[..now as usize])?;
            count -= now;
        }
        Ok(())
    }

    /// Appends a range of a source.
    pub(crate) fn copy(&mut self, source: &Source, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        if let Some(file) = source.file()
            && range.end - range.start >= BUFFER as u64
        {
            self.flush()?;
            at = self.copy_in_kernel(file, range.clone())?;
        }
        let mut buffer = Vec::new();
        while at < range.end {
            buffer.resize((range.end - at).min(BUFFER as u64) as usize, 0);
            source.read_at(at, &mut buffer)?;
            self.write(&buffer)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    /// Copies as much of `range` as the kernel is willing to, and returns where it stopped.
    fn copy_in_kernel(&mut self, file: &File, range: Range<u64>) -> Result<u64> {
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(STRIDE) as usize;
            match copy_file_range(file, Some(&mut at), self.file.as_file(), None, length) {
                // An end of the file where there should be none: reading it will say so.
                Ok(0) => break,
                Ok(copied) => (self.progress)(copied as u64),
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                    return Err(self.cannot_write(error.into()));
                }
                // Not between these file systems, or not on this one.
                Err(_) => break,
            }
        }
        Ok(at)
    }

    /// Completes the file on the disk.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.flush()?;
        self.file
            .as_file()
            .sync_all()
            .map_err(|error| self.cannot_write(error))
    }

    /// Gives the file its name; `force` replaces one that has it.
    pub(crate) fn persist(self, force: bool) -> Result<()> {
        let result = match force {
            true => self.file.persist(&self.path),
            false => self.file.persist_noclobber(&self.path),
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(exists(&self.path))
            }
            Err(error) => Err(Error::io(
                &self.path,
                "cannot put the file in place",
                error.error,
            )),
        }
    }

    fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.write_through(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        result
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .as_file_mut()
            .write_all(bytes)
            .map_err(|error| self.cannot_write(error))?;
        (self.progress)(bytes.len() as u64);
        Ok(())
    }

    fn cannot_write(&self, error: std::io::Error) -> Error {
        Error::io(&self.path, "cannot write", error)
    }
}

/// The error for an output that is there already.
pub(crate) fn exists(path: &Path) -> Error {
    Error::invalid("the file exists already, and is only replaced by force").in_file(path)
}

/// Where writing to `path` ends up: behind all links that bear its name.
pub(crate) fn behind_links(path: &Path) -> Result<PathBuf> {
    const MAX_LINKS: usize = 40;
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        match at.read_link() {
            Ok(target) => at = folder(&at).join(target),
            // No link, or nothing at all.
            Err(_) => return Ok(at),
        }
    }
    Err(Error::invalid("too many links").in_file(path))
}

/// The folder of a file.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes the names in the folder of `path` last.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = folder(path);
    let result = File::open(folder).and_then(|folder| folder.sync_all());
    result.map_err(|error| Error::io(folder, "cannot write", error))
}
