//! Re-estimating the running statistics of BatchNorms from calibration data, and judging those that are stored.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `jobs` | the jobs of the command line: recalibrate, validate, run, stats, merge |
//! | `report` | what they say, as values |
//! | `options` | what may be said about them |

mod jobs;
mod options;
mod report;

pub use jobs::*;
pub use options::*;
pub use report::*;
