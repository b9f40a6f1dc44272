//! Level 1 of the proof: every constant that a fold changed, recomputed on its own.
//!
//! Nothing here knows how the fold computes. The route record says which affine went into which operator; this module
//! reads the original's constants, does the algebra once more in f64, element by element, and holds the result against
//! what the folded model will store. A stored value may be one unit in its last place away, plus what the order of the
//! additions can do in f64: n·2⁻⁵³·Σ|terms|, where n counts the rounded operations and Σ|terms| the magnitudes that went in.
//!
//! It goes over the routes twice. Affines live in small vectors (a BatchNorm, the constant of a Mul), so the first pass
//! computes all of them in order, since an operator that absorbed one affine may move on as the next. The second goes from
//! operator to operator, each thread on its own, and holds one weight a thread: as f64, beside its two stored forms.
//!
//! What it cannot make sense of is a failure, never accepted. What it does not look at: whether the nodes are wired as
//! they should be (that is what running both models shows), and channel maps behind operators that rearrange channels.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `exact` | vectors in f64 with their magnitudes; units in the last place |
//! | `book` | reading constants and attributes |
//! | `step` | an affine on its way into an operator |
//! | `vector` | operators with a vector: BatchNorm, Mul, Add, Sub, Div |
//! | `convolution`, `matrix` | operators with a weight |
//! | `quantised` | constants behind DequantizeLinear, from their integers |
//! | `addend` | what a Gemm adds |
//! | `place`, `response` | where a Conv looks; convolutions by their answer to an impulse |
//! | `merged` | what several operators became |
//! | `terms` | sums that gave terms away keep the constants among the others |
//! | `border` | whether a Conv sees anything but its input |
//! | `compare` | stored against recomputed |
//! | `ledger` | the two passes |
//! | `remainder` | what stands in the place of an affine, and whether all of it went somewhere |
//! | `bystanders` | nodes that no route names keep their constants |

use bnkit_model::onnx::{Model, NodeId};

use crate::Result;
use crate::route::{Merge, Route};

mod addend;
mod book;
mod border;
mod bystanders;
mod compare;
mod convolution;
mod exact;
mod ledger;
mod matrix;
mod merged;
mod place;
mod quantised;
mod remainder;
mod response;
mod step;
mod terms;
mod vector;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unread;

/// What the recomputation found.
#[derive(Debug, Clone, Default)]
pub struct Algebra {
    /// How many routes and merges were recomputed.
    pub checked: usize,
    /// The largest distance of a stored constant from the recomputed one, beyond what the order of f64 additions can
    /// do, in units of the stored one's last place. Infinite if something is no number.
    pub max_ulp: f64,
    /// What does not agree: at most a few elements of each tensor.
    pub failures: Vec<AlgebraFailure>,
}

/// One thing that does not agree.
#[derive(Debug, Clone)]
pub struct AlgebraFailure {
    /// The last route that touched the node, by its index; merges are numbered behind the routes.
    pub route: usize,
    /// The node.
    pub node: NodeId,
    /// The tensor in the folded model, or what else of the node it is about.
    pub tensor: String,
    /// The element, in row-major order.
    pub index: usize,
    /// What it should be. NaN if this is not about a number.
    pub expected: f64,
    /// What it is. NaN if this is not about a number.
    pub found: f64,
    /// How far apart these may be.
    pub allowed: f64,
    /// What is wrong, where numbers do not say it.
    pub reason: Option<String>,
    /// Whether nothing is known to be wrong: an expression of constants changed, and is not evaluated here.
    pub unknown: bool,
}

/// Recomputes every constant that `routes` say was changed from `original` to `folded`, an edited clone of it.
///
/// # Errors
/// If a tensor cannot be read. Whatever does not agree is a failure in the result, not an error.
pub fn check(original: &Model, folded: &Model, routes: &[Route]) -> Result<Algebra> {
    check_merged(original, folded, routes, &[])
}

/// As [`check`], for a model in which operators were merged, too.
///
/// # Errors
/// As [`check`].
pub fn check_merged(
    original: &Model,
    folded: &Model,
    routes: &[Route],
    merges: &[Merge],
) -> Result<Algebra> {
    ledger::check(original, folded, routes, merges)
}

impl Algebra {
    /// Adds what was found elsewhere.
    fn append(&mut self, mut other: Self) {
        self.checked += other.checked;
        self.max_ulp = self.max_ulp.max(other.max_ulp);
        self.failures.append(&mut other.failures);
    }
}

impl AlgebraFailure {
    /// What does not agree, in one sentence.
    pub fn describe(&self) -> String {
        match &self.reason {
            Some(reason) => format!("tensor \"{}\": {reason}", self.tensor),
            None => format!(
                "tensor \"{}\": element {} is {:e}, recomputed {:e}, allowed difference {:e}",
                self.tensor, self.index, self.found, self.expected, self.allowed
            ),
        }
    }
}
