//! What goes on between Python and a job that runs: progress to a callback, batches from an iterator, Ctrl-C, and exceptions of any of
//! these.
//!
//! A job runs on a thread of its own. The thread that called, which is the one that Python hands signals to and that iterators and
//! callbacks expect to run on, waits for it without Python's lock, does for it what needs Python, and looks for signals in between: so
//! that Ctrl-C is seen at once, whatever the job does just then.

use std::panic::resume_unwind;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bnkit::calibrate::Interrupt;
use bnkit::data::DataSet;
use bnkit::pipeline::{Phase, Progress};
use bnkit::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyIterator;

use crate::data;
use crate::errors::{input_error, raise};

/// How often signals are looked for and progress is told: both take Python's lock.
const PAUSE: Duration = Duration::from_millis(50);

/// What threads of a program have that nobody asked for less; those that Rust starts have a quarter of it.
const STACK: usize = 8 << 20;

/// Watches a job.
pub(crate) struct Watch {
    /// Ends the job.
    pub interrupt: Interrupt,
    callback: Option<Py<PyAny>>,
    state: Mutex<State>,
    ask: Sender<Request>,
    asked: Mutex<Receiver<Request>>,
}

struct State {
    /// The exception to raise when the job has ended.
    error: Option<PyErr>,
    iterator: Option<Py<PyIterator>>,
    running: bool,
    total: Option<u64>,
    told: Option<Instant>,
}

/// What the job asks the thread that called for. It waits for the answer.
enum Request {
    /// So many samples have run, of so many if that is known.
    Tell(u64, Option<u64>, SyncSender<()>),
    /// The next batch.
    Batch(SyncSender<Option<Result<DataSet>>>),
    /// The job has ended.
    Ended,
}

/// Says so even if the job panics.
struct Ending<'a>(&'a Sender<Request>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // The other end lives as long as the watch.
        let _ = self.0.send(Request::Ended);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Tells `callback(done, total)` how many samples have run; `total` is `None` where nobody knows it.
    pub(crate) fn new(callback: Option<Py<PyAny>>) -> Self {
        let (ask, asked) = channel();
        Self {
            interrupt: Interrupt::default(),
            callback,
            state: Mutex::new(State {
                error: None,
                iterator: None,
                running: false,
                total: None,
                told: None,
            }),
            ask,
            asked: Mutex::new(asked),
        }
    }

    /// Runs a job without Python's lock. The first exception in between is raised; else the job's own error, renamed.
    ///
    /// # Errors
    /// If there is one.
    pub(crate) fn run<T: Send>(
        &self,
        py: Python<'_>,
        job: impl FnOnce() -> Result<T> + Send,
        renamed: impl Fn(String) -> String,
    ) -> PyResult<T> {
        // What ended the job before this one is over.
        self.interrupt.0.store(false, Ordering::Relaxed);
        let done = thread::scope(|scope| {
            let named = thread::Builder::new()
                .name("bnkit".to_owned())
                .stack_size(STACK);
            let started = named.spawn_scoped(scope, || {
                let _ending = Ending(&self.ask);
                job()
            });
            let worker = started
                .map_err(|error| input_error(py, format!("a thread cannot be started: {error}")))?;
            self.serve(py);
            Ok::<_, PyErr>(py.detach(|| worker.join()))
        })?;
        locked(&self.state).iterator = None;
        if let Some(error) = locked(&self.state).error.take() {
            return Err(error);
        }
        // One that came after the last look.
        py.check_signals()?;
        done.unwrap_or_else(|panic| resume_unwind(panic))
            .map_err(|error| match error {
                Error::Interrupted => raise(py, &error),
                other => input_error(py, renamed(other.to_string())),
            })
    }

    /// Does what the job asks for, until it has ended.
    fn serve(&self, py: Python<'_>) {
        loop {
            let request = py.detach(|| locked(&self.asked).recv_timeout(PAUSE));
            match request {
                Ok(Request::Tell(done, total, answer)) => {
                    self.tell(py, done, total);
                    // Who does not wait any more needs no answer, here and below.
                    let _ = answer.send(());
                }
                Ok(Request::Batch(answer)) => {
                    let _ = answer.send(self.next(py));
                }
                Ok(Request::Ended) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(error) = py.check_signals() {
                self.stop(error);
            }
        }
    }

    fn stop(&self, error: PyErr) {
        self.interrupt.request();
        locked(&self.state).error.get_or_insert(error);
    }

    fn tell(&self, py: Python<'_>, done: u64, total: Option<u64>) {
        let told = self
            .callback
            .as_ref()
            .map(|call| call.call1(py, (done, total)));
        if let Some(Err(error)) = told {
            self.stop(error);
        }
    }

    fn next(&self, py: Python<'_>) -> Option<Result<DataSet>> {
        let iterator = locked(&self.state)
            .iterator
            .as_ref()
            .map(|it| it.clone_ref(py))?;
        let item = iterator.into_bound(py).next()?;
        match item.and_then(|item| data::batch(&item)) {
            Ok(batch) => Some(Ok(batch)),
            Err(error) => {
                self.stop(error);
                Some(Err(Error::Interrupted))
            }
        }
    }

    /// The batches of a Python iterator, as a job takes them. An exception ends them, and the job.
    pub(crate) fn batches(
        &self,
        iterator: Py<PyIterator>,
    ) -> impl Iterator<Item = Result<DataSet>> + Send + '_ {
        locked(&self.state).iterator = Some(iterator);
        let next = || {
            let (answer, answered) = sync_channel(1);
            self.ask.send(Request::Batch(answer)).ok()?;
            answered.recv().ok()?
        };
        std::iter::from_fn(next).fuse()
    }
}

impl Progress for Watch {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        let mut state = locked(&self.state);
        state.running = phase == Phase::Running;
        state.total = total;
        state.told = None;
    }

    fn advance(&self, done: u64) {
        let total = {
            let mut state = locked(&self.state);
            let last = state.total == Some(done);
            let soon = state.told.is_some_and(|told| told.elapsed() < PAUSE);
            if self.callback.is_none() || !state.running || (soon && !last) {
                return;
            }
            state.told = Some(Instant::now());
            state.total
        };
        let (answer, answered) = sync_channel(1);
        if self.ask.send(Request::Tell(done, total, answer)).is_ok() {
            // It ends with the watch, and then nobody wants to know.
            let _ = answered.recv();
        }
    }
}
