//! The header of a `.npy` array: a magic number, a length, and a Python dictionary of exactly three members.
//!
//! It is read here and not by `npyz`, which allocates what the length claims, multiplies dimensions without looking, and hands the
//! text to a parser of Python that recurses. What NumPy writes needs no such thing: strings, booleans, a tuple of numbers.

use std::io::Read;

use bnkit_model::tensor::element_count;
use bnkit_model::{DType, Error, Limits, Result};

/// What a header says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The type of the elements.
    pub(super) dtype: DType,
    /// Whether elements are big-endian.
    pub(super) big_endian: bool,
    /// Whether the first axis varies fastest.
    pub(super) fortran: bool,
    /// The shape.
    pub(super) dims: Vec<usize>,
    /// The bytes of all elements.
    pub(super) length: u64,
}

const MAGIC: &[u8] = b"\x93NUMPY";

impl Header {
    /// Reads the header; the elements follow in `reader`.
    ///
    /// # Errors
    /// If it is none, longer than the limit `array_header_bytes`, or says something that NumPy does not write, or no data has.
    pub(super) fn read(reader: &mut impl Read) -> Result<Self> {
        let not = |what: &str| Error::invalid(format!("not a NumPy array: {what}"));
        let mut start = [0; 8];
        let mut fill = |buffer: &mut [u8]| {
            let read = reader.read_exact(buffer);
            read.map_err(|error| not(&format!("the header cannot be read: {error}")))
        };
        fill(&mut start)?;
        if !start.starts_with(MAGIC) {
            return Err(not("it does not begin as one"));
        }
        let length = match start[6] {
            1 => {
                let mut length = [0; 2];
                fill(&mut length)?;
                u64::from(u16::from_le_bytes(length))
            }
            2 | 3 => {
                let mut length = [0; 4];
                fill(&mut length)?;
                u64::from(u32::from_le_bytes(length))
            }
            other => return Err(not(&format!("version {other} of the format is unknown"))),
        };
        let most = Limits::get().array_header_bytes;
        if length > most {
            return Err(not(&format!(
                "its header claims {length} bytes; more than {most} are not read"
            )));
        }
        let mut text = vec![0; length as usize];
        fill(&mut text)?;
        let text = std::str::from_utf8(&text).map_err(|_| not("its header is no text"))?;
        Reader { rest: text }.header()
    }
}

/// What is left of the text.
struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn header(mut self) -> Result<Header> {
        let (mut kind, mut fortran, mut dims) = (None, None, None);
        self.expect('{')?;
        while !self.take('}') {
            let key = self.text()?;
            self.expect(':')?;
            let first = match key {
                "descr" => kind.replace(self.kind()?).is_none(),
                "fortran_order" => fortran.replace(self.boolean()?).is_none(),
                "shape" => dims.replace(self.shape()?).is_none(),
                _ => false,
            };
            if !first {
                return Err(wrong(format!("{key:?} is unknown, or there twice")));
            }
            if !self.take(',') {
                self.expect('}')?;
                break;
            }
        }
        if !self.rest.trim_start().is_empty() {
            return Err(wrong("something follows it"));
        }
        let (Some((dtype, big_endian)), Some(fortran), Some(dims)) = (kind, fortran, dims) else {
            return Err(wrong(
                "\"descr\", \"fortran_order\" or \"shape\" is missing",
            ));
        };
        let length = element_count(&dims).and_then(|count| dtype.byte_len(count));
        let length =
            length.ok_or_else(|| Error::invalid("the dimensions of the array overflow"))?;
        Ok(Header {
            dtype,
            big_endian,
            fortran,
            dims,
            length,
        })
    }

    /// Whether `letter` is next, behind white space; then it is read.
    fn take(&mut self, letter: char) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(letter);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, letter: char) -> Result<()> {
        match self.take(letter) {
            true => Ok(()),
            false => Err(wrong(format!("expected {letter:?}"))),
        }
    }

    /// A text in quotes.
    fn text(&mut self) -> Result<&'t str> {
        let quote = match (self.take('\''), self.rest) {
            (true, _) => '\'',
            _ => {
                self.expect('"')?;
                '"'
            }
        };
        let (text, rest) =
            (self.rest.split_once(quote)).ok_or_else(|| wrong("a text has no end"))?;
        self.rest = rest;
        Ok(text)
    }

    /// The word that is next.
    fn word(&mut self) -> &'t str {
        self.rest = self.rest.trim_start();
        let end = self
            .rest
            .find(|letter: char| !letter.is_ascii_alphanumeric());
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn boolean(&mut self) -> Result<bool> {
        match self.word() {
            "True" => Ok(true),
            "False" => Ok(false),
            _ => Err(wrong("expected True or False")),
        }
    }

    /// A tuple of sizes. Python 2 wrote an L behind some.
    fn shape(&mut self) -> Result<Vec<usize>> {
        let mut dims = vec![];
        self.expect('(')?;
        while !self.take(')') {
            let word = self.word();
            let dim = word.strip_suffix('L').unwrap_or(word).parse();
            dims.push(dim.map_err(|_| wrong(format!("{word:?} is no dimension")))?);
            if dims.len() as u64 > Limits::get().tensor_rank {
                return Err(wrong("it has too many dimensions"));
            }
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(dims)
    }

    /// The type of the elements, and whether they are big-endian.
    fn kind(&mut self) -> Result<(DType, bool)> {
        if self.take('[') {
            return Err(Error::invalid("an array of records is no data"));
        }
        let kind = self.text()?;
        let order = kind.chars().next().unwrap_or_default();
        let dtype = match kind.get(order.len_utf8()..).unwrap_or_default() {
            "b1" => DType::Bool,
            "i1" => DType::I8,
            "i2" => DType::I16,
            "i4" => DType::I32,
            "i8" => DType::I64,
            "u1" => DType::U8,
            "u2" => DType::U16,
            "u4" => DType::U32,
            "u8" => DType::U64,
            "f2" => DType::F16,
            "f4" => DType::F32,
            "f8" => DType::F64,
            _ => return Err(no_data(kind)),
        };
        match (order, dtype.size()) {
            ('>', _) => Ok((dtype, true)),
            ('<' | '=', _) | ('|', Some(1)) => Ok((dtype, false)),
            _ => Err(no_data(kind)),
        }
    }
}

fn no_data(kind: &str) -> Error {
    let shown: String = kind.chars().take(40).collect();
    Error::invalid(format!("an array of type {shown} is no data"))
}

fn wrong(what: impl std::fmt::Display) -> Error {
    let shown: String = what.to_string().chars().take(200).collect();
    Error::invalid(format!("not a NumPy array: its header: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: u8, length: u64, text: &str) -> Result<Header> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((length as u16).to_le_bytes()),
            _ => bytes.extend((length as u32).to_le_bytes()),
        }
        bytes.extend(text.as_bytes());
        Header::read(&mut bytes.as_slice())
    }

    fn of(text: &str) -> Result<Header> {
        read(1, text.len() as u64, text)
    }

    #[test]
    fn what_numpy_writes_is_read() {
        // As `numpy.lib.format.write_array` of NumPy 2.4 writes them, and Python 2 did.
        for (text, dtype, big_endian, fortran, dims) in [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n",
                DType::F32,
                false,
                false,
                &[2, 3][..],
            ),
            (
                "{'descr': '>i8', 'fortran_order': True, 'shape': (5,), }\n",
                DType::I64,
                true,
                true,
                &[5],
            ),
            (
                "{'descr': '|b1', 'fortran_order': False, 'shape': (), }\n",
                DType::Bool,
                false,
                false,
                &[],
            ),
            (
                "{'descr': '<f2', 'fortran_order': False, 'shape': (0, 7), }\n",
                DType::F16,
                false,
                false,
                &[0, 7],
            ),
            (
                "{\"shape\": (3L, 4L), \"descr\": \"|u1\", \"fortran_order\": False}\n",
                DType::U8,
                false,
                false,
                &[3, 4],
            ),
        ] {
            let header = of(text).unwrap();
            assert_eq!(
                (header.dtype, header.big_endian, header.fortran),
                (dtype, big_endian, fortran),
                "{text}"
            );
            assert_eq!(header.dims, dims, "{text}");
        }
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n";
        assert_eq!(read(2, text.len() as u64, text).unwrap(), of(text).unwrap());
        assert_eq!(read(3, text.len() as u64, text).unwrap(), of(text).unwrap());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, what) in [
            ("", "expected '{'"),
            ("{'descr': '<f4', 'fortran_order': False}", "missing"),
            ("{'descr': '<f4', 'descr': '<f4'}", "twice"),
            ("{'descr': '<f4', 'more': 1}", "unknown"),
            (
                "{'descr': '<c8', 'fortran_order': False, 'shape': ()}",
                "type <c8",
            ),
            (
                "{'descr': '|f4', 'fortran_order': False, 'shape': ()}",
                "type |f4",
            ),
            ("{'descr': '€f4'}", "type €f4"),
            ("{'descr': [('a', '<f4')]}", "records"),
            ("{'descr': '|O'}", "type |O"),
            ("{'shape': (-1,)}", "is no dimension"),
            ("{'shape': (1 2)}", "expected ')'"),
            ("{'shape': ((1,),)}", "is no dimension"),
            ("{'shape': (99999999999999999999,)}", "is no dimension"),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0)}",
                "overflow",
            ),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904,)}",
                "overflow",
            ),
            (
                "{'descr': '<f4', 'fortran_order': No, 'shape': ()}",
                "True or False",
            ),
            (
                "{'descr': '<f4', 'fortran_order': True, 'shape': ()} x",
                "follows",
            ),
            ("{'descr", "no end"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
        let error = read(2, u64::from(u32::MAX), "").unwrap_err().to_string();
        assert!(error.contains("4294967295 bytes"), "{error}");
        assert!(
            read(9, 0, "")
                .unwrap_err()
                .to_string()
                .contains("version 9")
        );
        assert!(
            read(1, 100, "{}")
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
    }
}
