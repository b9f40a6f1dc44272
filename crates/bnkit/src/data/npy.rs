//! NumPy's `.npy` and `.npz`.
//!
//! The elements are taken as bytes, so that one path serves every type, byte order and memory order, and nothing is allocated on
//! the word of a header. `npyz` opens archives, and writes.

use std::collections::HashSet;
use std::io::{Cursor, Read, Seek, SeekFrom};

use bnkit_model::{DType, Error, Limits, Result, Tensor};
use npyz::WriterBuilder;
use npyz::npz::{NpzArchive, NpzWriter, array_name_from_file_name};
use npyz::zip::{DateTime, write::FileOptions};

use super::npy_header::Header;

/// One array.
pub(super) fn read(reader: impl Read) -> Result<Tensor> {
    array(reader, u64::MAX)
}

/// All arrays of an archive, in the order of their names. Together they may be as large as the limits `archive_bytes` and
/// `archive_ratio` say: entries of an archive can share their bytes, and a kilobyte of zeros packs a megabyte.
pub(super) fn read_archive(mut reader: impl Read + Seek) -> Result<Vec<(String, Tensor)>> {
    let wrong = |error: std::io::Error| Error::invalid(format!("not a NumPy archive: {error}"));
    let packed = reader.seek(SeekFrom::End(0)).map_err(wrong)?;
    let limits = Limits::get();
    let mut room = packed
        .saturating_mul(limits.archive_ratio)
        .max(limits.archive_bytes);
    let mut archive = NpzArchive::new(reader).map_err(wrong)?;
    let archive = archive.zip_archive();
    let (mut named, mut seen) = (vec![], HashSet::new());
    for index in 0..archive.len() {
        let entry = archive
            .by_index(index)
            .map_err(|error| wrong(error.into()))?;
        let Some(name) = array_name_from_file_name(entry.name()).map(str::to_owned) else {
            continue;
        };
        let at = |error: Error| error.at(format!("array {name:?}"));
        if !seen.insert(name.clone()) {
            return Err(at(Error::invalid("the archive has two of this name")));
        }
        let tensor = array(entry, room).map_err(at)?;
        room = room.saturating_sub(tensor.data().len() as u64);
        named.push((name, tensor));
    }
    named.sort_by_cached_key(|(name, _)| super::natural(name));
    Ok(named)
}

/// The bytes of an archive of these arrays.
pub(super) fn write_archive(named: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(vec![]);
    let mut archive = NpzWriter::new(&mut bytes);
    // The first day that an archive can name, as NumPy writes it: the same arrays give the same bytes whenever they are written.
    let options = FileOptions::default().last_modified_time(DateTime::default());
    for (name, tensor) in named {
        let failed = |error: std::io::Error| {
            Error::invalid(format!("array {name:?} cannot be written: {error}"))
        };
        let shape: Vec<u64> = tensor.dims().iter().map(|&dim| dim as u64).collect();
        macro_rules! write {
            ($t:ty, $values:expr) => {{
                let mut writer = archive
                    .array::<$t>(name, options)
                    .map_err(failed)?
                    .default_dtype()
                    .shape(&shape)
                    .begin_nd()
                    .map_err(failed)?;
                writer.extend($values).map_err(failed)?;
                writer.finish().map_err(failed)?;
            }};
        }
        let floats = || tensor.to_f64().map(Vec::into_iter);
        let ints = || tensor.to_i64().map(Vec::into_iter);
        match tensor.dtype() {
            DType::F64 => write!(f64, floats()?),
            dtype if dtype.is_float() => write!(f32, floats()?.map(|value| value as f32)),
            DType::Bool => write!(bool, ints()?.map(|value| value != 0)),
            DType::U8 => write!(u8, ints()?.map(|value| value as u8)),
            DType::U64 => write!(u64, ints()?.map(|value| value as u64)),
            _ => write!(i64, ints()?),
        }
    }
    drop(archive);
    Ok(bytes.into_inner())
}

/// An array of at most `room` bytes.
fn array(mut reader: impl Read, room: u64) -> Result<Tensor> {
    let header = Header::read(&mut reader)?;
    let (dtype, dims) = (header.dtype, header.dims);
    if header.length > room {
        return Err(Error::invalid(format!(
            "{dtype} {dims:?} takes {} bytes, and {room} are left of what an archive of this size may hold: unpack it, or give the arrays as .npy",
            header.length
        )));
    }
    let size = dtype.size().unwrap_or(1);
    let mut bytes = vec![];
    let mut elements = reader.by_ref().take(header.length);
    // An archive compares its checksum only where an entry ends.
    (elements.read_to_end(&mut bytes))
        .and_then(|_| reader.read(&mut [0]))
        .map_err(|error| Error::invalid(format!("the array cannot be read: {error}")))?;
    if bytes.len() as u64 != header.length {
        return Err(Error::invalid(format!(
            "the file is cut off: {dtype} {dims:?} takes {} bytes, found {}",
            header.length,
            bytes.len()
        )));
    }
    if header.big_endian {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    if header.fortran {
        bytes = to_row_major(&bytes, &dims, size);
    }
    Tensor::new(dtype, dims, bytes)
}

/// Elements in column-major order, put in row-major order.
fn to_row_major(bytes: &[u8], dims: &[usize], size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0; dims.len()];
    for _ in 0..bytes.len() / size {
        let mut at = 0;
        for (position, dim) in index.iter().zip(dims).rev() {
            at = at * dim + position;
        }
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            if index[axis] < dims[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn column_major_and_big_endian_are_turned_round() {
        // [[0, 1, 2], [3, 4, 5]] column by column, big-endian.
        let data: Vec<u8> = [0i16, 3, 1, 4, 2, 5]
            .iter()
            .flat_map(|x| x.to_be_bytes())
            .collect();
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        let tensor = read(npy(header, &data).as_slice()).unwrap();
        assert_eq!(tensor.dims(), [2, 3]);
        assert_eq!(tensor.to_i64().unwrap(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_scalar_and_an_empty_array() {
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (), }\n";
        let tensor = read(npy(header, &2.5f64.to_le_bytes()).as_slice()).unwrap();
        assert_eq!(tensor.to_f64().unwrap(), [2.5]);
        let header = "{'descr': '<f8', 'fortran_order': True, 'shape': (0, 3), }\n";
        assert!(read(npy(header, &[]).as_slice()).unwrap().is_empty());
    }

    #[test]
    fn a_header_that_promises_too_much_allocates_nothing() {
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }\n";
        let error = read(npy(header, &[0; 8]).as_slice()).unwrap_err();
        assert!(error.to_string().contains("cut off"), "{error}");
    }

    /// An archive of `[1, 2]` under each name.
    fn npz(names: &[&str]) -> Vec<u8> {
        let tensor = Tensor::from_f64(DType::F32, vec![2], &[1.0, 2.0]).unwrap();
        let named: Vec<_> = names
            .iter()
            .map(|&name| (name.to_owned(), tensor.clone()))
            .collect();
        write_archive(&named).unwrap()
    }

    fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
        let mut changed = 0;
        for at in 0..bytes.len() - from.len() {
            if bytes[at..].starts_with(from) {
                bytes[at..][..to.len()].copy_from_slice(to);
                changed += 1;
            }
        }
        assert!(changed > 0);
    }

    #[test]
    fn an_archive_keeps_its_names() {
        let named = read_archive(Cursor::new(npz(&["x10", "x9"]))).unwrap();
        assert_eq!(named[0].0, "x9");
        assert_eq!(named[1].1.to_f64().unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn an_archive_says_nothing_of_when_it_was_written() {
        let bytes = npz(&["x"]);
        // The first local header: signature, then at 10 time and date of MS-DOS; the date counts years from 1980, months and days from 1.
        assert_eq!(bytes[..4], *b"PK\x03\x04");
        assert_eq!(bytes[10..14], [0, 0, 0x21, 0]);
    }

    #[test]
    fn archives_that_are_damaged_are_errors_that_name_the_array() {
        let error = |bytes: Vec<u8>| read_archive(Cursor::new(bytes)).unwrap_err().to_string();
        let whole = npz(&["first", "other"]);
        assert!(error(whole[..40].to_vec()).starts_with("not a NumPy archive: "));
        // Another checksum in the first entry of the directory.
        let mut bytes = whole.clone();
        let entry = bytes.windows(4).position(|four| four == b"PK\x01\x02");
        bytes[entry.unwrap() + 16] ^= 1;
        let found = error(bytes);
        assert!(
            found.starts_with("array \"first\": the array cannot be read: "),
            "{found}"
        );
        let mut bytes = whole.clone();
        replace(&mut bytes, b"other.npy", b"first.npy");
        let found = error(bytes);
        assert_eq!(found, "array \"first\": the archive has two of this name");
    }
}
