//! A file in the making: written beside its destination under a temporary name, and put in place when it is complete.
//!
//! Long ranges are copied inside the kernel (some file systems then only share the blocks); short ones and what was
//! computed go through buffers to a thread that writes while the next are computed (see [`writer`]). Until [`Output::persist`], dropping it leaves nothing behind; what a killed process leaves, the next one in that folder cleans.

use std::fs::{File, Permissions};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::NamedTempFile;

use self::writer::Writer;
use crate::source::Source;
use crate::temporary;
use crate::{Error, Result};

mod writer;

/// Told how many bytes are written.
pub(crate) type Progress<'p> = dyn Fn(u64) + 'p;

/// A file that is being written.
pub(crate) struct Output<'p> {
    /// Started with the first full buffer: small files need no threads. Dropped before the file.
    writer: Option<Writer>,
    file: Arc<NamedTempFile>,
    path: PathBuf,
    buffer: Vec<u8>,
    progress: &'p Progress<'p>,
}

/// What is collected before it is written, and the shortest range that is copied inside the kernel.
const BUFFER: usize = 256 * 1024;

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
            writer: None,
            file: Arc::new(file),
            path: path.to_owned(),
            buffer: Vec::new(),
            progress,
        })
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        (self.progress)(bytes.len() as u64);
        while self.buffer.len() + bytes.len() >= BUFFER {
            let (now, later) = bytes.split_at(BUFFER - self.buffer.len());
            self.buffer.extend_from_slice(now);
            self.flush()?;
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
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
    pub(crate) fn copy(&mut self, source: &Arc<Source>, range: Range<u64>) -> Result<()> {
        if source.file().is_some() && range.end - range.start >= BUFFER as u64 {
            self.flush()?;
            (self.progress)(range.end - range.start);
            let outcome = self.writer()?.append_range(source, range);
            return writer::about(outcome, |error| self.cannot_write(error));
        }
        let mut buffer = Vec::new();
        let mut at = range.start;
        while at < range.end {
            buffer.resize((range.end - at).min(BUFFER as u64) as usize, 0);
            source.read_at(at, &mut buffer)?;
            self.write(&buffer)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    /// Completes the file on the disk.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.buffer);
        let outcome = match &mut self.writer {
            Some(writer) => writer.append(rest).and_then(|()| writer.finish()),
            None => writer::append(self.file.as_file(), &rest).map_err(Into::into),
        };
        writer::about(outcome, |error| self.cannot_write(error))?;
        let synced = self.file.as_file().sync_all();
        synced.map_err(|error| self.cannot_write(error))
    }

    /// Gives the file its name; `force` replaces one that has it.
    pub(crate) fn persist(mut self, force: bool) -> Result<()> {
        // Its threads have the file, too.
        self.writer = None;
        let in_place = |error| Error::io(&self.path, "cannot put the file in place", error);
        let file = Arc::try_unwrap(self.file)
            .map_err(|_| in_place(std::io::Error::other("it is still being written")))?;
        let result = match force {
            true => file.persist(&self.path),
            false => file.persist_noclobber(&self.path),
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(exists(&self.path))
            }
            Err(error) => Err(in_place(error.error)),
        }
    }

    /// Hands the buffer over.
    fn flush(&mut self) -> Result<()> {
        let next = self.writer()?.buffer();
        let full = std::mem::replace(&mut self.buffer, next);
        let outcome = self.writer()?.append(full);
        writer::about(outcome, |error| self.cannot_write(error))
    }

    fn writer(&mut self) -> Result<&mut Writer> {
        if self.writer.is_none() {
            let started = Writer::start(&self.file);
            self.writer = Some(started.map_err(|error| self.cannot_write(error))?);
        }
        Ok(self.writer.as_mut().expect("it was started"))
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
