//! Where bytes come from: a file that is read at offsets, or memory.
//!
//! Files are not mapped. A mapped file that another process shortens kills the reader with SIGBUS, and every page
//! touched counts as memory; reading the structure through one small [`Window`] and payloads in chunks has neither
//! trouble, needs no `unsafe`, and was measured to be as fast (see `docs/architecture.md`).

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::OFlags;

use crate::{Error, Result};

/// A readable sequence of bytes of known length.
#[derive(Debug)]
pub struct Source {
    kind: Kind,
    len: u64,
}

#[derive(Debug)]
enum Kind {
    File {
        file: File,
        path: PathBuf,
        modified: Option<SystemTime>,
    },
    Memory(Bytes),
}

impl Source {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// If it cannot be opened or is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        // Opening a named pipe would wait for its writer; with this flag it is opened, and refused below.
        let flags = OFlags::NONBLOCK.bits() as i32;
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(path)
            .map_err(|error| Error::io(path, "cannot open", error))?;
        let metadata = file
            .metadata()
            .map_err(|error| Error::io(path, "cannot open", error))?;
        if !metadata.is_file() {
            return Err(Error::invalid("not a regular file").in_file(path));
        }
        Ok(Self {
            len: metadata.len(),
            kind: Kind::File {
                file,
                path: path.to_owned(),
                modified: metadata.modified().ok(),
            },
        })
    }

    /// Bytes in memory.
    pub fn memory(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            len: bytes.len() as u64,
            kind: Kind::Memory(bytes),
        }
    }

    /// The number of bytes, as it was when the source was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file's path, if this is a file.
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            Kind::File { path, .. } => Some(path),
            Kind::Memory(_) => None,
        }
    }

    /// The open file, if this is one; for copying ranges inside the kernel.
    pub fn file(&self) -> Option<&File> {
        match &self.kind {
            Kind::File { file, .. } => Some(file),
            Kind::Memory(_) => None,
        }
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// If the range reaches past the end, or the file became shorter since it was opened.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.kind {
            Kind::File { file, path, .. } => file
                .read_exact_at(buffer, offset)
                .map_err(|error| Error::io(path, "cannot read", error)),
            Kind::Memory(bytes) => {
                let range = usize::try_from(offset)
                    .ok()
                    .and_then(|start| Some(start..start.checked_add(buffer.len())?));
                let part = range.and_then(|range| bytes.get(range));
                buffer.copy_from_slice(
                    part.ok_or_else(|| Error::invalid("a range reaches past the end"))?,
                );
                Ok(())
            }
        }
    }

    /// The bytes of `range`.
    ///
    /// # Errors
    /// As [`Source::read_at`]. Nothing is allocated for a range that the source does not have.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::invalid("a range reaches past the end"));
        }
        if let Kind::Memory(bytes) = &self.kind {
            return Ok(bytes.slice(range.start as usize..range.end as usize));
        }
        let mut buffer = vec![0; (range.end - range.start) as usize];
        self.read_at(range.start, &mut buffer)?;
        Ok(buffer.into())
    }

    /// Checks that the file is still the one that was opened: same length, same time of modification.
    ///
    /// # Errors
    /// If it changed meanwhile: offsets found earlier may then point anywhere.
    pub fn check_unchanged(&self) -> Result<()> {
        let Kind::File {
            file,
            path,
            modified,
        } = &self.kind
        else {
            return Ok(());
        };
        let now = file
            .metadata()
            .map_err(|error| Error::io(path, "cannot read", error))?;
        if now.len() != self.len || now.modified().ok() != *modified {
            return Err(
                Error::invalid("the file changed while it was being read; try again").in_file(path),
            );
        }
        Ok(())
    }
}

/// A file of at most `most` bytes.
///
/// # Errors
/// If it cannot be read, is no regular file, or is longer; with the file.
pub fn read_bytes(path: &Path, most: u64) -> Result<Bytes> {
    let source = Source::open(path)?;
    if source.len() > most {
        let message = format!(
            "the file has {} bytes; more than {most} are not read",
            source.len()
        );
        return Err(Error::invalid(message).in_file(path));
    }
    source.read(0..source.len())
}

/// The text of a file of at most `most` bytes.
///
/// # Errors
/// As [`read_bytes`]; also if it is no UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    String::from_utf8(read_bytes(path, most)?.to_vec())
        .map_err(|_| Error::invalid("the file is no UTF-8 text").in_file(path))
}

/// A small read-ahead over a [`Source`], for walking through the structure of a file.
#[derive(Debug)]
pub struct Window<'s> {
    source: &'s Source,
    start: u64,
    buffer: Vec<u8>,
}

/// How much is read at once; a node is a few hundred bytes, so most reads are served from the window.
const WINDOW: u64 = 64 * 1024;

impl<'s> Window<'s> {
    /// A window over `source`; nothing is read yet.
    pub fn new(source: &'s Source) -> Self {
        Self {
            source,
            start: 0,
            buffer: Vec::new(),
        }
    }

    /// The source.
    pub fn source(&self) -> &'s Source {
        self.source
    }

    /// `N` bytes from `offset`, which must lie before `end`.
    ///
    /// # Errors
    /// If they reach past `end` or cannot be read.
    pub fn array<const N: usize>(&mut self, offset: u64, end: u64) -> Result<[u8; N]> {
        let stop = offset.checked_add(N as u64).filter(|&stop| stop <= end);
        let stop = stop.ok_or_else(|| crate::wire::malformed(offset, "a value is cut off"))?;
        let buffered = self.start..self.start + self.buffer.len() as u64;
        if offset < buffered.start || stop > buffered.end {
            let until = (offset + WINDOW.max(N as u64)).min(self.source.len());
            if stop > until {
                return Err(crate::wire::malformed(offset, "a value is cut off"));
            }
            self.buffer.resize((until - offset) as usize, 0);
            self.start = offset;
            self.source.read_at(offset, &mut self.buffer)?;
        }
        let at = (offset - self.start) as usize;
        Ok(self.buffer[at..at + N].try_into().expect("the length is N"))
    }

    /// The bytes of `range`.
    ///
    /// # Errors
    /// If the source does not have them.
    pub fn bytes(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        let buffered = self.start..self.start + self.buffer.len() as u64;
        if range.start >= buffered.start && range.end <= buffered.end {
            let at = (range.start - self.start) as usize;
            return Ok(self.buffer[at..at + (range.end - range.start) as usize].to_vec());
        }
        Ok(self.source.read(range)?.to_vec())
    }

    /// The UTF-8 text of `range`.
    ///
    /// # Errors
    /// If it is no UTF-8 or cannot be read.
    pub fn text(&mut self, range: Range<u64>) -> Result<String> {
        let start = range.start;
        String::from_utf8(self.bytes(range)?)
            .map_err(|_| crate::wire::malformed(start, "a name is not UTF-8"))
    }
}
