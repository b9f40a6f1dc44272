//! A message in the making: ranges of the model file, bytes of our own, and the elements of tensors that are computed
//! when they are written. Building one costs as much memory as there are pieces, not as there is data.

use std::ops::Range;
use std::sync::Arc;

use super::model::TensorDef;
use crate::DType;
use crate::wire;

/// A piece of a message.
#[derive(Debug)]
pub(super) enum Segment {
    /// A range of the model file.
    File(Range<u64>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// The elements of a tensor.
    Elements(Elements),
}

/// The elements of a tensor, as they are to be written.
#[derive(Debug)]
pub(super) struct Elements {
    pub(super) tensor: Arc<TensorDef>,
    /// The type to round to.
    pub(super) dtype: DType,
    /// How many bytes that gives.
    pub(super) bytes: u64,
}

/// The pieces of a message, in order. Neighbours that can be one piece are.
#[derive(Debug, Default)]
pub(super) struct Segments {
    list: Vec<Segment>,
    len: u64,
}

impl Segments {
    /// The length of the message.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The pieces.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.list.iter()
    }

    /// Appends a range of the model file.
    pub(super) fn copy(&mut self, range: Range<u64>) {
        self.len += range.end - range.start;
        match self.list.last_mut() {
            Some(Segment::File(last)) if last.end == range.start => last.end = range.end,
            _ => self.list.push(Segment::File(range)),
        }
    }

    /// Appends a field with a varint.
    pub(super) fn varint(&mut self, number: u32, value: u64) {
        self.write(|out| wire::put_varint_field(out, number, value));
    }

    /// Appends a field with a float.
    pub(super) fn float(&mut self, number: u32, value: f32) {
        self.write(|out| wire::put_float_field(out, number, value));
    }

    /// Appends a field with bytes.
    pub(super) fn bytes(&mut self, number: u32, payload: &[u8]) {
        self.write(|out| wire::put_bytes_field(out, number, payload));
    }

    /// Appends a field with a message.
    pub(super) fn message(&mut self, number: u32, message: Self) {
        self.write(|out| wire::put_len_header(out, number, message.len));
        // A graph comes into the model as a whole: no more room than that takes.
        if message.list.len() > self.list.len() {
            self.list.reserve_exact(message.list.len());
        }
        for segment in message.list {
            match segment {
                Segment::File(range) => self.copy(range),
                Segment::Bytes(bytes) => self.write(|out| out.extend_from_slice(&bytes)),
                Segment::Elements(elements) => self.push(elements),
            }
        }
    }

    /// Appends a field with the elements of a tensor.
    pub(super) fn elements(&mut self, number: u32, elements: Elements) {
        self.write(|out| wire::put_len_header(out, number, elements.bytes));
        self.push(elements);
    }

    fn push(&mut self, elements: Elements) {
        self.len += elements.bytes;
        self.list.push(Segment::Elements(elements));
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.list.last(), Some(Segment::Bytes(_))) {
            self.list.push(Segment::Bytes(Vec::new()));
        }
        if let Some(Segment::Bytes(out)) = self.list.last_mut() {
            let before = out.len();
            write(out);
            self.len += (out.len() - before) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_piece() {
        let mut inner = Segments::default();
        inner.varint(1, 5);
        inner.copy(10..20);
        let mut outer = Segments::default();
        outer.copy(0..4);
        outer.copy(4..9);
        outer.message(3, inner);
        outer.copy(20..30);
        let kinds: Vec<String> = outer.iter().map(|segment| format!("{segment:?}")).collect();
        assert_eq!(
            kinds,
            ["File(0..9)", "Bytes([26, 12, 8, 5])", "File(10..30)"]
        );
        assert_eq!(outer.len(), 9 + 4 + 20);
    }
}
