//! The protobuf wire format, one field at a time: where each field lies, and how a field is written.
//!
//! Reading works on positions in a [`Source`](crate::source::Source), never on a copy of the file: a field is a tag plus a byte range, and a
//! range that nobody asks for is never read. That is what lets the writer copy unknown and untouched fields verbatim.
//! Meaning (which field is what) is the business of the callers.

use std::ops::Range;

use crate::source::Window;
use crate::{Error, Result};

/// How the value of a field is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireType {
    /// A base-128 varint.
    Varint,
    /// Eight bytes, little-endian.
    Fixed64,
    /// A length and that many bytes.
    Bytes,
    /// A (deprecated) group, up to its end tag.
    Group,
    /// Four bytes, little-endian.
    Fixed32,
}

/// One field of a message: its number, and where in the source it lies.
#[derive(Debug, Clone)]
pub struct Field {
    /// The field number of the schema.
    pub number: u32,
    /// The layout of the value.
    pub wire: WireType,
    /// Tag, length and payload.
    pub whole: Range<u64>,
    /// The payload alone (for a group: up to its end tag, inclusive).
    pub payload: Range<u64>,
    /// The value of a varint or fixed-size field, 0 otherwise.
    pub value: u64,
}

/// The deepest nesting of groups that is skipped over; ONNX uses none.
const MAX_GROUP_DEPTH: usize = 16;

/// Reads the fields of the message that occupies `range`, in file order.
pub struct Fields<'w, 's> {
    window: &'w mut Window<'s>,
    position: u64,
    end: u64,
}

impl<'w, 's> Fields<'w, 's> {
    /// The fields of the message in `range`.
    pub fn new(window: &'w mut Window<'s>, range: Range<u64>) -> Self {
        Self {
            window,
            position: range.start,
            end: range.end,
        }
    }

    /// The next field, or `None` at the end of the message.
    ///
    /// # Errors
    /// If a tag, length or value is malformed or reaches past the end of the message.
    // Not an iterator: between two fields, callers read through the window.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Field>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let field = read_field(self.window, self.position, self.end, MAX_GROUP_DEPTH)?;
        self.position = field.whole.end;
        Ok(Some(field))
    }

    /// The window this reads through, for looking into a field's payload.
    pub fn window(&mut self) -> &mut Window<'s> {
        self.window
    }
}

fn read_field(window: &mut Window<'_>, start: u64, end: u64, depth: usize) -> Result<Field> {
    let (tag, after_tag) = read_varint(window, start, end)?;
    let number = u32::try_from(tag >> 3).unwrap_or(0);
    if number == 0 || number > 0x1fff_ffff {
        return Err(malformed(start, "a field number is out of range"));
    }
    let (wire, payload, value) = match tag & 7 {
        0 => {
            let (value, after) = read_varint(window, after_tag, end)?;
            (WireType::Varint, after_tag..after, value)
        }
        1 => {
            let bytes = window.array::<8>(after_tag, end)?;
            let value = u64::from_le_bytes(bytes);
            (WireType::Fixed64, after_tag..after_tag + 8, value)
        }
        2 => {
            let (length, after) = read_varint(window, after_tag, end)?;
            let stop = after
                .checked_add(length)
                .filter(|&stop| stop <= end)
                .ok_or_else(|| {
                    malformed(
                        start,
                        "a field is longer than the message it is in (is the file truncated?)",
                    )
                })?;
            (WireType::Bytes, after..stop, 0)
        }
        3 => {
            let stop = skip_group(window, number, after_tag, end, depth)?;
            (WireType::Group, after_tag..stop, 0)
        }
        5 => {
            let bytes = window.array::<4>(after_tag, end)?;
            let value = u64::from(u32::from_le_bytes(bytes));
            (WireType::Fixed32, after_tag..after_tag + 4, value)
        }
        _ => return Err(malformed(start, "an unknown wire type")),
    };
    Ok(Field {
        number,
        wire,
        whole: start..payload.end,
        payload,
        value,
    })
}

fn skip_group(
    window: &mut Window<'_>,
    number: u32,
    start: u64,
    end: u64,
    depth: usize,
) -> Result<u64> {
    let mut position = start;
    loop {
        let (tag, after) = read_varint(window, position, end)?;
        if tag & 7 == 4 {
            return if tag >> 3 == u64::from(number) {
                Ok(after)
            } else {
                Err(malformed(position, "a group ends that never began"))
            };
        }
        if depth == 0 {
            return Err(malformed(position, "groups are nested too deeply"));
        }
        position = read_field(window, position, end, depth - 1)?.whole.end;
    }
}

fn read_varint(window: &mut Window<'_>, start: u64, end: u64) -> Result<(u64, u64)> {
    let mut value = 0u64;
    for (index, position) in (start..end).take(10).enumerate() {
        let [byte] = window.array::<1>(position, end)?;
        if index == 9 && byte > 1 {
            return Err(malformed(start, "a varint has more than 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, position + 1));
        }
    }
    Err(malformed(start, "a varint is cut off"))
}

/// The error for bytes at `offset` that are no protobuf.
pub(crate) fn malformed(offset: u64, what: &str) -> Error {
    Error::invalid(format!("malformed protobuf at byte {offset}: {what}"))
}

/// The number of bytes that `value` takes as a varint.
pub fn varint_len(value: u64) -> u64 {
    (u64::from(64 - (value | 1).leading_zeros())).div_ceil(7)
}

/// Appends `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field.
pub fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a float field.
pub fn put_float_field(out: &mut Vec<u8>, number: u32, value: f32) {
    put_varint(out, u64::from(number) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends the tag and length of a length-delimited field; the payload follows.
pub fn put_len_header(out: &mut Vec<u8>, number: u32, length: u64) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length);
}

/// Appends a length-delimited field.
pub fn put_bytes_field(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    put_len_header(out, number, payload.len() as u64);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn read_all(bytes: &[u8]) -> Result<Vec<Field>> {
        let source = Source::memory(bytes.to_vec());
        let mut window = Window::new(&source);
        let mut fields = Fields::new(&mut window, 0..bytes.len() as u64);
        let mut all = Vec::new();
        while let Some(field) = fields.next()? {
            all.push(field);
        }
        Ok(all)
    }

    #[test]
    fn fields_tile_the_message() {
        let mut bytes = Vec::new();
        put_varint_field(&mut bytes, 1, 300);
        put_bytes_field(&mut bytes, 15, b"abc");
        put_varint(&mut bytes, 3 << 3 | 5);
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        put_varint(&mut bytes, 4 << 3 | 3); // a group with one field in it
        put_varint_field(&mut bytes, 9, 7);
        put_varint(&mut bytes, 4 << 3 | 4);
        let fields = read_all(&bytes).unwrap();
        assert_eq!(
            fields.iter().map(|f| f.number).collect::<Vec<_>>(),
            [1, 15, 3, 4]
        );
        assert_eq!(fields[0].value, 300);
        assert_eq!(fields[1].payload.end - fields[1].payload.start, 3);
        let mut position = 0;
        for field in &fields {
            assert_eq!(field.whole.start, position);
            position = field.whole.end;
        }
        assert_eq!(position, bytes.len() as u64);
    }

    #[test]
    fn hostile_bytes_are_errors() {
        for bytes in [
            &[0x0a, 0x05, 1, 2][..], // longer than the message
            &[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ], // a length of 2^64 - 1
            &[0x08, 0x80],           // a cut varint
            &[0x00, 0x00],           // field number 0
            &[0x0f],                 // wire type 7
            &[0x0c],                 // an end without a group
            &[0x0b, 0x14],           // the wrong end of a group
        ] {
            assert!(read_all(bytes).is_err(), "{bytes:?}");
        }
        assert!(read_all(&[0x0b; 4000]).is_err());
    }

    #[test]
    fn varint_lengths() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len() as u64, varint_len(value), "{value}");
        }
    }
}
