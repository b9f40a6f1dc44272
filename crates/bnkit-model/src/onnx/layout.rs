//! The layout of an output's own data file: which bytes of which file, or which computed tensor, go where.
//!
//! Tensors follow each other in the order of the model. Where they begin is as round a number as it was in the input,
//! since a reader that maps the file may count on it. Tensors that shared their bytes still do.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::model::{External, Model};
use super::segments::Elements;
use crate::Result;
use crate::source::Source;

/// A piece of a data file.
#[derive(Debug)]
pub(super) enum Piece {
    /// So many zeros.
    Padding(u64),
    /// Bytes of an external file of the input.
    Stored(Arc<Source>, Range<u64>),
    /// A computed tensor.
    Elements(Elements),
}

/// A data file in the making.
#[derive(Debug)]
pub(super) struct Layout {
    location: String,
    /// `None` while the tensors are only counted.
    alignment: Option<u64>,
    /// All offsets of the input, or-ed: the lowest bit that is set tells how round they are.
    offsets: u64,
    shared: HashMap<(String, Range<u64>), u64>,
    pieces: Vec<Piece>,
    len: u64,
}

/// No rounder than this: the largest page of common machines.
const MAX_ALIGNMENT: u64 = 64 * 1024;
/// For tensors that had a file each, and so all begin at 0: what ONNX recommends.
const PAGE: u64 = 4096;

impl Layout {
    /// A layout that finds out how many external tensors there are, and how they are aligned.
    pub(super) fn survey() -> Self {
        Self {
            location: String::new(),
            alignment: None,
            offsets: 0,
            shared: HashMap::new(),
            pieces: Vec::new(),
            len: 0,
        }
    }

    /// The layout of a file called `location`, with the alignment that a survey found.
    pub(super) fn after(survey: &Self, location: String) -> Self {
        let alignment = match survey.offsets {
            0 => PAGE,
            offsets => (1u64 << offsets.trailing_zeros()).min(MAX_ALIGNMENT),
        };
        Self {
            location,
            alignment: Some(alignment),
            ..Self::survey()
        }
    }

    /// Whether no tensor is external.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The length of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The pieces of the file.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The place of a stored tensor.
    pub(super) fn stored(
        &mut self,
        old: &External,
        source: Arc<Source>,
        range: Range<u64>,
    ) -> External {
        self.offsets |= old.offset;
        let length = range.end - range.start;
        let key = (old.location.clone(), range.clone());
        let offset = match self.shared.get(&key) {
            Some(&offset) => offset,
            None => {
                let offset = self.place(Piece::Stored(source, range), length);
                self.shared.insert(key, offset);
                offset
            }
        };
        self.entry(offset, length, old.checksum.clone())
    }

    /// The place of a computed tensor, which was external with these entries.
    pub(super) fn computed(
        &mut self,
        model: &Model,
        elements: Elements,
        entries: &[(String, String)],
    ) -> Result<External> {
        let value = |key: &str| {
            entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.as_str())
        };
        self.offsets |= value("offset")
            .and_then(|offset| offset.parse().ok())
            .unwrap_or(0);
        let checksum = match value("checksum") {
            Some(_) if self.alignment.is_some() => Some(sha1_of(model, &elements)?),
            _ => None,
        };
        let length = elements.bytes;
        let offset = self.place(Piece::Elements(elements), length);
        Ok(self.entry(offset, length, checksum))
    }

    fn place(&mut self, piece: Piece, length: u64) -> u64 {
        let offset = self.len.next_multiple_of(self.alignment.unwrap_or(1));
        if offset > self.len {
            self.pieces.push(Piece::Padding(offset - self.len));
        }
        self.pieces.push(piece);
        self.len = offset + length;
        offset
    }

    fn entry(&self, offset: u64, length: u64, checksum: Option<String>) -> External {
        External {
            location: self.location.clone(),
            offset,
            length: Some(length),
            checksum,
        }
    }
}

fn sha1_of(model: &Model, elements: &Elements) -> Result<String> {
    let mut digest = Sha1::new();
    model.write_elements(&elements.tensor, elements.dtype, &mut |part| {
        digest.update(part);
        Ok(())
    })?;
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
