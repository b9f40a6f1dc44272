//! The native module of the Python package `bnkit`: arguments in, one call of the library, JSON or arrays out.
//!
//! Nothing here knows anything of models. The Python side (`python/bnkit`) gives the functions their signatures and documentation and
//! wraps the JSON; this side turns Python values into jobs.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `model` | a path, bytes or a `ModelProto` as a file |
//! | `data` | arrays, dicts, batches as tensors |
//! | `options` | keyword arguments as the options of jobs |
//! | `jobs` | one function for each job |
//! | `stats` | the parameters of BatchNorms as arrays |
//! | `recalibrator` | a recalibration in steps, and its moments |
//! | `watch` | progress, Ctrl-C, and errors of Python in between |
//! | `errors` | the library's errors as exceptions |

mod data;
mod errors;
mod jobs;
mod model;
mod options;
mod recalibrator;
mod stats;
mod watch;

use std::ffi::OsString;

use pyo3::prelude::*;

/// The native half of the package; see the package `bnkit`.
#[pymodule]
mod _bnkit {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::command;
    #[pymodule_export]
    use crate::jobs::{diff, fold, inspect, merge, recalibrate, validate, verify};
    #[pymodule_export]
    use crate::recalibrator::{Moments, Recalibrator};
    #[pymodule_export]
    use crate::stats::{BatchNorm, stats};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// Runs the command `bnkit`; `args` begins with the name of the program. Gives the exit code.
#[pyfunction]
fn command(py: Python<'_>, args: Vec<OsString>) -> u8 {
    py.detach(|| bnkit_cli::main(args))
}
