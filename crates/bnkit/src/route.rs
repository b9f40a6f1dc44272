//! The plain record of what a plan did: which affine went into which operators. `fold` writes it, `verify` reads it,
//! and it is all that the two share.
//!
//! Node ids mean the same node in the original and in the folded model. Routes are in the order in which they
//! happened: an operator that absorbed one affine may itself move on as the next.

use bnkit_model::onnx::NodeId;

/// In [`Absorbed::channels`]: a feature that the affine does not act on (s = 1, t = 0), because only others of the
/// same value go into it.
pub const UNTOUCHED: u32 = u32::MAX;

/// One affine y = s·x + t, and where it went. Its own node is gone afterwards.
#[derive(Debug, Clone)]
pub struct Route {
    /// The node that computed the affine: a BatchNorm, or Mul, Add, Sub or Div by a constant.
    pub site: NodeId,
    /// For Mul, Add, Sub and Div: the input slot of the constant. `None` for a BatchNorm.
    pub constant_slot: Option<usize>,
    /// What absorbed it, in the order of the walk.
    pub absorbed: Vec<Absorbed>,
    /// The nodes it passed unchanged (in their operator), in the order of the walk.
    pub via: Vec<NodeId>,
    /// What stands in its place afterwards.
    pub rest: Rest,
}

/// What stands in the place of an affine y = s·x + t afterwards: new nodes of the folded model, with constants of one
/// number per channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rest {
    /// Nothing: s and t went elsewhere.
    #[default]
    Nothing,
    /// x' + t, where x' = s·x: s went backwards.
    Shift {
        /// The Add of t.
        add: NodeId,
    },
    /// x + t/s: s went forwards, into everything that reads it. Where t = 0, nothing is added, whatever s is.
    ShiftBefore {
        /// The Add of t/s.
        add: NodeId,
    },
    /// s·x + t, in two nodes: nothing went anywhere.
    Lowered {
        /// The Mul by s.
        mul: NodeId,
        /// The Add of t.
        add: NodeId,
    },
}

/// On which side of an operator the affine was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The operator's output went into the affine: it now computes s·f(x) + t.
    Output,
    /// The affine's output went into the operator: it now computes f(s·x + t).
    Input,
}

/// Which part of the affine an operator absorbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// s and t.
    Whole,
    /// s alone; t is 0, or another operator on the way took it.
    Scale,
    /// t alone, on the way of s further back: an Add or Sub whose constant c became s·c + t (or s·c − t) while
    /// its data operand is to be scaled by s.
    Shift,
}

/// One operator that absorbed an affine (or a part of one).
#[derive(Debug, Clone)]
pub struct Absorbed {
    /// The operator.
    pub node: NodeId,
    /// Where the affine was.
    pub side: Side,
    /// Which part went in.
    pub part: Part,
    /// The input slot of the data (not of the weight or constant).
    pub data_slot: usize,
    /// For each feature of the operator on that side (output channel of a Conv, column of a Gemm, contracted row of a
    /// MatMul …), in order: the index of the affine's channel that acts on it, or [`UNTOUCHED`]. All zero for an
    /// affine with one channel.
    pub channels: Vec<u32>,
    /// What t is multiplied by: 1, but −1 behind the second operand of a Sub, ½ behind both operands of x + x, and 0
    /// where t stays ([`Rest`]).
    pub share: f64,
}
