//! Writing behind the back of what computes: one thread that writes, and one that brings what is written to the disk.
//!
//! A fold reads, multiplies and writes every weight, and must not end before the disk has it. Done one after the other, that takes
//! as long as all of it together; here the disk already works on the first tensors while the last are computed, so that
//! little is left to wait for at the end.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use rustix::fs::copy_file_range;
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::BUFFER;
use crate::source::Source;
use crate::{Error, Result};

/// Buffers on their way to the writer: enough that neither side waits for the other at once.
const WAITING: usize = 4;
/// How much is written before the disk is asked to take it.
const WRITE_BACK: u64 = 16 * 1024 * 1024;

/// Something to append.
enum Job {
    Bytes(Vec<u8>),
    Range(Arc<Source>, Range<u64>),
}

/// The two threads. Jobs are done in the order in which they came.
pub(super) struct Writer {
    /// Absent when no more jobs come.
    jobs: Option<SyncSender<Job>>,
    /// Buffers that have been written, to be filled again.
    empty: Receiver<Vec<u8>>,
    writing: Option<JoinHandle<Outcome>>,
    /// Why nothing can be written any more.
    failed: bool,
}

/// What cannot be written, before it is known to which path.
#[derive(Debug)]
pub(super) enum Failure {
    Write(std::io::Error),
    Read(Error),
}

type Outcome = std::result::Result<(), Failure>;

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

impl Writer {
    /// Starts the threads.
    pub(super) fn start(file: &Arc<NamedTempFile>) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(WAITING);
        let (used, empty) = channel();
        let mut disk = WriteBack::start(file.clone())?;
        let file = file.clone();
        let writing = Builder::new().name("write".to_owned()).spawn(move || {
            let written = write(file.as_file(), &queue, &used, &mut disk);
            let synced = disk.finish();
            written.and(synced.map_err(Failure::Write))
        })?;
        Ok(Self {
            jobs: Some(jobs),
            empty,
            writing: Some(writing),
            failed: false,
        })
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> Vec<u8> {
        let used = self.empty.try_recv();
        used.unwrap_or_else(|_| Vec::with_capacity(BUFFER))
    }

    pub(super) fn append(&mut self, bytes: Vec<u8>) -> Outcome {
        self.send(Job::Bytes(bytes))
    }

    pub(super) fn append_range(&mut self, source: &Arc<Source>, range: Range<u64>) -> Outcome {
        self.send(Job::Range(source.clone(), range))
    }

    fn send(&mut self, job: Job) -> Outcome {
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        match sent {
            true => Ok(()),
            // The writer only stops early when it has failed.
            false => self.finish(),
        }
    }

    /// Waits until everything is written; much of it is on the disk by then.
    pub(super) fn finish(&mut self) -> Outcome {
        self.jobs = None;
        let outcome = match self.writing.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(Failure::Write(std::io::Error::other("the writer stopped"))),
            None if self.failed => Err(Failure::Write(std::io::Error::other(
                "it could not be written before",
            ))),
            None => Ok(()),
        };
        self.failed |= outcome.is_err();
        outcome
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The file must not be written to any more when it is removed.
        let _ = self.finish();
    }
}

fn write(
    file: &File,
    queue: &Receiver<Job>,
    used: &Sender<Vec<u8>>,
    disk: &mut WriteBack,
) -> Outcome {
    for job in queue {
        match job {
            Job::Bytes(mut bytes) => {
                append(file, &bytes)?;
                disk.written(bytes.len() as u64);
                bytes.clear();
                // Nobody may want it any more.
                let _ = used.send(bytes);
            }
            Job::Range(source, range) => copy(file, &source, range, disk)?,
        }
    }
    Ok(())
}

pub(super) fn append(mut file: &File, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes)
}

/// Copies a range inside the kernel, as far as it is willing to, and the rest through a buffer.
fn copy(file: &File, source: &Source, range: Range<u64>, disk: &mut WriteBack) -> Outcome {
    let mut at = range.start;
    if let Some(from) = source.file() {
        while at < range.end {
            let length = (range.end - at).min(WRITE_BACK) as usize;
            match copy_file_range(from, Some(&mut at), file, None, length) {
                // An end of the file where there should be none: reading it will say so.
                Ok(0) => break,
                Ok(copied) => disk.written(copied as u64),
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                    return Err(Failure::Write(error.into()));
                }
                // Not between these file systems, or not on this one.
                Err(_) => break,
            }
        }
    }
    let mut buffer = Vec::new();
    while at < range.end {
        buffer.resize((range.end - at).min(BUFFER as u64) as usize, 0);
        source.read_at(at, &mut buffer).map_err(Failure::Read)?;
        append(file, &buffer)?;
        at += buffer.len() as u64;
        disk.written(buffer.len() as u64);
    }
    Ok(())
}

/// A thread that asks for what is written so far to be on the disk, again and again.
struct WriteBack {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    since: u64,
}

impl WriteBack {
    fn start(file: Arc<NamedTempFile>) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel::<()>(1);
        let thread = Builder::new()
            .name("write-back".to_owned())
            .spawn(move || {
                // An error is told once, to whoever asks first; so it must not be lost here.
                woken.iter().try_for_each(|()| file.as_file().sync_data())
            })?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
            since: 0,
        })
    }

    fn written(&mut self, bytes: u64) {
        self.since += bytes;
        if self.since < WRITE_BACK {
            return;
        }
        // While it still works on what came before, this waits for the next time.
        if self
            .wake
            .as_ref()
            .is_some_and(|wake| wake.try_send(()).is_ok())
        {
            self.since = 0;
        }
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.wake = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(std::io::Error::other("the write-back stopped")),
            None => Ok(()),
        }
    }
}

impl Failure {
    /// The error about the file that is written to; what cannot be read says itself where.
    pub(super) fn about(self, cannot_write: impl FnOnce(std::io::Error) -> Error) -> Error {
        match self {
            Self::Write(error) => cannot_write(error),
            Self::Read(error) => error,
        }
    }
}

/// The result of something that was written.
pub(super) fn about(
    outcome: Outcome,
    cannot_write: impl FnOnce(std::io::Error) -> Error,
) -> Result<()> {
    outcome.map_err(|failure| failure.about(cannot_write))
}
