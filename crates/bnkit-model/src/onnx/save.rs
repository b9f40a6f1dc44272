//! Writing a model to a file: all or nothing, without holding it in memory.
//!
//! The output is streamed into temporary files beside its destination; only when they are complete, on the disk, and
//! the input is still the one that was read, they get their names: external data first, the model last. So the output
//! may be the input, an interrupted run leaves the old file, and a reader never sees half of the new one.

use std::cell::Cell;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::encode::{Encoder, Precision};
use super::layout::{Layout, Piece};
use super::model::{Model, Payload};
use super::segments::{Segment, Segments};
use crate::output::{Output, behind_links, exists};
use crate::place::put_in_place;
use crate::source::Source;
use crate::{Error, Result};

/// How to save.
#[derive(Default, Clone, Copy)]
pub struct SaveOptions<'p> {
    /// Replace what is there.
    pub force: bool,
    /// Told again and again how many bytes are written, and how many there will be.
    pub progress: Option<&'p (dyn Fn(u64, u64) + Sync)>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The bytes of all files.
    pub bytes: u64,
    /// The file with the external data, if there is any.
    pub data_file: Option<PathBuf>,
}

/// No protobuf reader takes a longer message.
const MAX_MESSAGE: u64 = i32::MAX as u64;

impl Model {
    /// Writes the model to `path`. What was external data is written to `path` with `.data` behind it. A file that is
    /// replaced keeps its permissions, and a link its place: its target is replaced.
    ///
    /// # Errors
    /// If a file cannot be read or written, exists already (without `force`), or belongs to the input; if the model
    /// itself would be larger than protobuf allows. Then nothing is written, and nothing that was there is changed.
    pub fn save(&self, path: &Path, options: SaveOptions<'_>) -> Result<Saved> {
        let mut survey = Layout::survey();
        let mut message = Encoder::new(self, Precision::Stored, Some(&mut survey)).model()?;
        let mut data = None;
        if !survey.is_empty() {
            let data_path = data_path(path)?;
            let mut layout = Layout::after(&survey, location(&data_path)?);
            message = Encoder::new(self, Precision::Stored, Some(&mut layout)).model()?;
            data = Some((data_path, layout));
        }
        if message.len() > MAX_MESSAGE {
            let text = format!(
                "the model would be a message of {} bytes, and protobuf ends at {MAX_MESSAGE}: keep large tensors in external data",
                message.len()
            );
            return Err(Error::invalid(text).in_file(path));
        }
        self.check_output(path, options.force, false)?;
        if let Some((data_path, _)) = &data {
            self.check_output(data_path, options.force, true)?;
        }
        let total = message.len() + data.as_ref().map_or(0, |(_, layout)| layout.len());
        self.write(path, &message, data.as_ref(), total, options)?;
        Ok(Saved {
            bytes: total,
            data_file: data.map(|(path, _)| path),
        })
    }

    fn write(
        &self,
        path: &Path,
        message: &Segments,
        data: Option<&(PathBuf, Layout)>,
        total: u64,
        options: SaveOptions<'_>,
    ) -> Result<()> {
        let done = Cell::new(0);
        let progress = |bytes: u64| {
            done.set(done.get() + bytes);
            if let Some(report) = options.progress {
                report(done.get(), total);
            }
        };
        let mut outputs = Vec::new();
        if let Some((path, layout)) = data {
            let path = behind_links(path)?;
            let mut output = Output::create(&path, &progress)?;
            self.write_data(layout, &mut output)?;
            output.finish()?;
            outputs.push((path, output));
        }
        let target = behind_links(path)?;
        let mut output = Output::create(&target, &progress)?;
        self.write_message(message, &mut output)?;
        output.finish()?;
        outputs.push((target, output));
        if done.get() != total {
            let message = format!(
                "{} bytes were written where {total} were planned",
                done.get()
            );
            return Err(Error::invalid(message).in_file(path));
        }
        self.check_unchanged()?;
        put_in_place(outputs, options.force)
    }

    /// Checks that all files that the model is read from are still those that were opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.source.check_unchanged()?;
        for source in self.externals.opened() {
            source.check_unchanged()?;
        }
        self.constants()
            .try_for_each(|tensor| match &tensor.payload {
                Payload::Elsewhere(stored) => stored.source.check_unchanged(),
                _ => Ok(()),
            })
    }

    fn write_message(&self, message: &Segments, output: &mut Output<'_>) -> Result<()> {
        for segment in message.iter() {
            match segment {
                Segment::File(range) => output.copy(&self.source, range)?,
                Segment::Bytes(bytes) => output.write(bytes)?,
                Segment::Elements(elements) => {
                    self.write_elements(&elements.tensor, elements.dtype, &mut |part| {
                        output.write(part)
                    })?;
                }
            }
        }
        Ok(())
    }

    fn write_data(&self, layout: &Layout, output: &mut Output<'_>) -> Result<()> {
        for piece in layout.pieces() {
            match piece {
                Piece::Padding(count) => output.pad(*count)?,
                Piece::Stored(source, range) => output.copy(source, range.clone())?,
                Piece::Elements(elements) => {
                    self.write_elements(&elements.tensor, elements.dtype, &mut |part| {
                        output.write(part)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Refuses an output that must not be replaced: without `force` any, and always the external data of the input,
    /// which the input still needs. A data file must not replace the input itself either.
    fn check_output(&self, output: &Path, force: bool, is_data: bool) -> Result<()> {
        let there = output.metadata();
        if let Ok(there) = &there
            && !there.is_file()
        {
            let message = match there.is_dir() {
                true => "this is a folder",
                false => "this is no regular file (a device or pipe, say)",
            };
            return Err(Error::invalid(message).in_file(output));
        }
        if !force && output.symlink_metadata().is_ok() {
            return Err(exists(output));
        }
        let Ok(there) = there else {
            return Ok(());
        };
        let is_there = |own: &Metadata| (own.dev(), own.ino()) == (there.dev(), there.ino());
        let is_open = |source: &Source| {
            let own = source.file().and_then(|file| file.metadata().ok());
            own.is_some_and(|own| is_there(&own))
        };
        let mut named = self.named_externals();
        if self.externals.opened().iter().any(|source| is_open(source))
            || named.any(|path| path.metadata().is_ok_and(|own| is_there(&own)))
            || (is_data && is_open(&self.source))
        {
            let input = self.source.path();
            let input = input.map_or(String::new(), |path| format!(" {}", path.display()));
            let message = format!(
                "this file belongs to the input{input} and would be lost; choose another output"
            );
            return Err(Error::invalid(message).in_file(output));
        }
        Ok(())
    }
}

fn data_path(path: &Path) -> Result<PathBuf> {
    let mut name = path
        .file_name()
        .ok_or_else(|| Error::invalid("not the name of a file").in_file(path))?
        .to_owned();
    name.push(".data");
    Ok(path.with_file_name(name))
}

fn location(data_path: &Path) -> Result<String> {
    let name = data_path.file_name().and_then(|name| name.to_str());
    let plain = name.filter(|name| !name.contains('\\'));
    let message = "a model with external data needs a plain UTF-8 file name";
    plain
        .map(str::to_owned)
        .ok_or_else(|| Error::invalid(message).in_file(data_path))
}
