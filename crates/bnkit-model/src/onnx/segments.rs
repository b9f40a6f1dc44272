//! A message in the making: ranges of the model file, bytes of our own, and the elements of tensors that are computed
//! when they are written. Building one costs as much memory as there are pieces, not as there is data, and of small
//! pieces there may be very many: bytes of our own are in one list.

use std::ops::Range;
use std::sync::Arc;

use super::model::TensorDef;
use crate::DType;
use crate::wire;

/// A piece of a message.
#[derive(Debug)]
pub(super) enum Segment<'s> {
    /// A range of the model file.
    File(Range<u64>),
    /// Bytes.
    Bytes(&'s [u8]),
    /// The elements of a tensor.
    Elements(&'s Elements),
}

/// A piece as it is kept.
#[derive(Debug)]
enum Piece {
    File(Range<u64>),
    /// So many of the bytes, those behind what the piece before took.
    Bytes(usize),
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
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
    len: u64,
}

impl Segments {
    /// The length of the message.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The pieces.
    pub(super) fn iter(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut bytes = self.bytes.as_slice();
        self.pieces.iter().map(move |piece| match piece {
            Piece::File(range) => Segment::File(range.clone()),
            Piece::Bytes(count) => {
                let (these, rest) = bytes.split_at(*count);
                bytes = rest;
                Segment::Bytes(these)
            }
            Piece::Elements(elements) => Segment::Elements(elements),
        })
    }

    /// Appends a range of the model file.
    pub(super) fn copy(&mut self, range: Range<u64>) {
        self.len += range.end - range.start;
        self.push(Piece::File(range));
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
    pub(super) fn message(&mut self, number: u32, mut message: Self) {
        self.write(|out| wire::put_len_header(out, number, message.len));
        self.len += message.len;
        if message.pieces.len() > self.pieces.len() {
            // Of a graph that comes into its model, all is there already but what stands before it.
            std::mem::swap(&mut self.pieces, &mut message.pieces);
            std::mem::swap(&mut self.bytes, &mut message.bytes);
            self.bytes.splice(0..0, message.bytes);
            let joined = match (message.pieces.last_mut(), self.pieces.first()) {
                (Some(last), Some(first)) => last.join(first),
                _ => false,
            };
            self.pieces.splice(..usize::from(joined), message.pieces);
        } else {
            self.bytes.append(&mut message.bytes);
            for piece in message.pieces {
                self.push(piece);
            }
        }
    }

    /// Appends a field with the elements of a tensor.
    pub(super) fn elements(&mut self, number: u32, elements: Elements) {
        self.write(|out| wire::put_len_header(out, number, elements.bytes));
        self.len += elements.bytes;
        self.push(Piece::Elements(elements));
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        let written = self.bytes.len() - before;
        self.len += written as u64;
        self.push(Piece::Bytes(written));
    }

    fn push(&mut self, piece: Piece) {
        let joined = self.pieces.last_mut();
        if !joined.is_some_and(|last| last.join(&piece)) {
            self.pieces.push(piece);
        }
    }
}

impl Piece {
    /// Whether `next` could be made a part of this piece.
    fn join(&mut self, next: &Self) -> bool {
        match (self, next) {
            (Self::File(range), Self::File(next)) if range.end == next.start => {
                range.end = next.end;
            }
            (Self::Bytes(count), Self::Bytes(more)) => *count += more,
            _ => return false,
        }
        true
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

    /// The bytes of a message whose ranges stand for themselves.
    fn told(segments: &Segments) -> String {
        let told = segments.iter().map(|segment| match segment {
            Segment::File(range) => format!("{range:?}"),
            Segment::Bytes(bytes) => format!("{bytes:?}"),
            Segment::Elements(_) => String::new(),
        });
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_long_message_and_a_short_one_come_behind_what_is_there() {
        for count in [1, 2, 3, 9] {
            for first_is_file in [true, false] {
                let mut inner = Segments::default();
                let mut expected = String::new();
                for index in 0..count {
                    if index > 0 || first_is_file {
                        let start = 100 * (index + 1);
                        inner.copy(start..start + 10);
                        expected += &format!(" {start}..{}", start + 10);
                    }
                    inner.varint(2, index);
                    expected += &format!(" [16, {index}]");
                }
                let len = inner.len();
                let mut outer = Segments::default();
                outer.copy(0..4);
                outer.bytes(1, b"ab");
                outer.copy(8..9);
                outer.message(3, inner);
                outer.varint(4, 7);
                let expected = format!("0..4 [10, 2, 97, 98] 8..9 [26, {len}]{expected} [32, 7]");
                // Bytes behind bytes are one piece.
                assert_eq!(told(&outer), expected.replace("] [", ", "));
                assert_eq!(outer.len(), 4 + 4 + 1 + 2 + len + 2);
            }
        }
    }
}
