//! What goes on between Python and a job that runs: progress to a callback, Ctrl-C, and exceptions of either.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bnkit::calibrate::Interrupt;
use bnkit::data::DataSet;
use bnkit::pipeline::{Phase, Progress};
use bnkit::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyIterator;

use crate::data;
use crate::errors::raise;

/// Python is not asked more often than this: it costs taking its lock.
const PAUSE: Duration = Duration::from_millis(50);

/// Watches a job. It runs on the thread that called, which is the one that Python hands signals to.
pub(crate) struct Watch {
    /// Ends the job.
    pub interrupt: Interrupt,
    callback: Option<Py<PyAny>>,
    state: Mutex<State>,
}

struct State {
    /// The exception to raise when the job has ended.
    error: Option<PyErr>,
    running: bool,
    total: Option<u64>,
    asked: Option<Instant>,
}

impl Watch {
    /// Tells `callback(done, total)` how many samples have run; `total` is `None` where nobody knows it.
    pub(crate) fn new(callback: Option<Py<PyAny>>) -> Self {
        Self {
            interrupt: Interrupt::default(),
            callback,
            state: Mutex::new(State {
                error: None,
                running: false,
                total: None,
                asked: None,
            }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let done = py.detach(job);
        if let Some(error) = self.state().error.take() {
            return Err(error);
        }
        // One that came after the last look.
        py.check_signals()?;
        done.map_err(|error| match error {
            Error::Interrupted => raise(py, &error),
            other => crate::errors::input_error(py, renamed(other.to_string())),
        })
    }

    fn stop(&self, error: PyErr) {
        self.interrupt.request();
        self.state().error.get_or_insert(error);
    }

    /// Looks for signals, and calls back.
    fn ask(&self, done: Option<u64>, total: Option<u64>) {
        let asked = Python::attach(|py| {
            py.check_signals()?;
            match (&self.callback, done) {
                (Some(callback), Some(done)) => callback.call1(py, (done, total)).map(drop),
                _ => Ok(()),
            }
        });
        if let Err(error) = asked {
            self.stop(error);
        }
    }

    /// The batches of a Python iterator, as a job takes them.
    pub(crate) fn batches(&self, iterator: Py<PyIterator>) -> Batches<'_> {
        Batches {
            watch: self,
            iterator: Some(iterator),
        }
    }
}

impl Progress for Watch {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        {
            let mut state = self.state();
            state.running = phase == Phase::Running;
            state.total = total;
            state.asked = None;
        }
        self.ask(None, None);
    }

    fn advance(&self, done: u64) {
        let (running, total) = {
            let mut state = self.state();
            let last = state.total == Some(done);
            if !last && state.asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
                return;
            }
            state.asked = Some(Instant::now());
            (state.running, state.total)
        };
        self.ask(running.then_some(done), total);
    }
}

/// Batches from Python. An exception ends them, and the job.
pub(crate) struct Batches<'a> {
    watch: &'a Watch,
    iterator: Option<Py<PyIterator>>,
}

impl Iterator for Batches<'_> {
    type Item = Result<DataSet>;

    fn next(&mut self) -> Option<Self::Item> {
        let iterator = self.iterator.as_ref()?;
        let next = Python::attach(|py| {
            let item = iterator.bind(py).clone().next();
            item.map(|item| item.and_then(|item| data::batch(&item)))
        });
        match next {
            Some(Ok(batch)) => Some(Ok(batch)),
            None => {
                self.iterator = None;
                None
            }
            Some(Err(error)) => {
                self.iterator = None;
                self.watch.stop(error);
                Some(Err(Error::Interrupted))
            }
        }
    }
}
