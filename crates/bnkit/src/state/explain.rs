//! What the codes of this folder mean.

use crate::explain::{Explanation, Kind};

/// The refusals of state dicts.
pub(crate) static EXPLANATIONS: &[Explanation] = &[
    Explanation {
        code: "module-called-twice",
        kind: Kind::Refusal,
        title: "a module is called several times, and the calls need different tensors",
        text: "\
A state dict holds the tensors of a module once. If a layer runs twice with a BatchNorm behind one call only, or with two
BatchNorms, each call would need a weight of its own; if a BatchNorm runs twice, it can go only if all its calls can. (A
layer and its BatchNorm that are always called together fold: both calls need the same.)

What to do: fold the ONNX model, where each call has its own operator; or give the calls modules of their own.",
    },
    Explanation {
        code: "not-in-checkpoint",
        kind: Kind::Refusal,
        title: "a constant of the graph is no tensor of the checkpoint, or could be several",
        text: "\
The graph given with `--graph` has a constant that has no name of the checkpoint, and its content, type and shape do not tell
which tensor it is: there is none like it, or there are several (two fresh BatchNorms, for example). What is not certain is
not changed.

What to do: export the graph again from this checkpoint, without renaming initializers (`torch.onnx.export` with
`do_constant_folding=False` keeps names); or write the pair into a pairing file.",
    },
    Explanation {
        code: "not-expressible",
        kind: Kind::Refusal,
        title: "the fold would need more than other tensors",
        text: "\
The fold is possible in the graph, by another operator, attribute or shape. A state dict has none of these: the model's code
would have to change.

What to do: fold the ONNX model.",
    },
    Explanation {
        code: "identity-needs-bias",
        kind: Kind::Refusal,
        title: "an identity cannot hold the shift, and the layer has no bias",
        text: "\
With `--identity-bn` no tensor is created, so the shift stays in the BatchNorm or goes into a bias that is there. Here the
affine went into a layer behind the BatchNorm, or into several layers that would need several shifts, and one of them has no
bias.

What to do: leave `--identity-bn` out, and give the model's code a bias; or keep the BatchNorm.",
    },
    Explanation {
        code: "not-in-graph",
        kind: Kind::Refusal,
        title: "the graph has no such BatchNorm",
        text: "\
The checkpoint has a BatchNorm that no node of the graph reads. The exporter may have folded it (export in training mode, or
with the options of the README), or the export leaves the module out, as auxiliary heads are.

What to do: look at the graph with `bnkit inspect`. A module that inference does not use may stay as it is.",
    },
    Explanation {
        code: "no-pair",
        kind: Kind::Refusal,
        title: "nobody says which layer feeds this BatchNorm",
        text: "\
Neither the pairing file nor the naming scheme names a layer for it. Some BatchNorms have none: those in front of their
layer, behind a concatenation or an addition, or alone.

What to do: `--graph` with the ONNX export finds every fold; a pairing file may name the layer if there is one.",
    },
];
