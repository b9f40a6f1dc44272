//! Elements that lie in some source as they are, read in parts.

use std::ops::Range;
use std::sync::Arc;

use crate::Result;
use crate::source::Source;

/// Elements in a chunk: large enough for the disk, small enough for the second-level cache.
pub const CHUNK: usize = 32 * 1024;

/// The elements of a stored tensor: little-endian, row-major.
#[derive(Debug, Clone)]
pub struct Stored {
    /// What they are in.
    pub source: Arc<Source>,
    /// Where they are in it, in bytes.
    pub range: Range<u64>,
}

impl Stored {
    /// How many bytes they take.
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether both are the same bytes of the same source.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.range == other.range
    }

    /// The bytes at `range` of these.
    pub(crate) fn part(&self, range: Range<u64>) -> Self {
        Self {
            source: self.source.clone(),
            range: self.range.start + range.start..self.range.start + range.end,
        }
    }

    /// Calls `visit` with parts of at most `size` bytes, which it may change, and where they begin.
    ///
    /// # Errors
    /// If they cannot be read, and whatever `visit` returns.
    pub fn for_each_part(
        &self,
        size: usize,
        mut visit: impl FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; size.min(usize::try_from(self.len()).unwrap_or(size))];
        let mut done = 0;
        while done < self.len() {
            let part = (self.len() - done).min(size as u64);
            let part = &mut buffer[..part as usize];
            self.source.read_at(self.range.start + done, part)?;
            visit(done as usize, part)?;
            done += part.len() as u64;
        }
        Ok(())
    }
}
