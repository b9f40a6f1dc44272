//! Ultralytics' YOLO models: numbered modules below `model`, `Conv` is a convolution and its BatchNorm.
//!
//! Its `initialize_weights` sets ε = 1e-3 in every BatchNorm2d of a model.

use super::{Architecture, Epsilon, Rule, Scheme};
use crate::state::groups::Naming;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "ultralytics",
    naming: Naming::Torch,
    architectures: &[Architecture {
        name: "yolo",
        markers: &["model.0.conv", "model.1.conv", "model.2.cv1.conv"],
        rules: &[
            Rule::named("{p}.conv", "{p}.bn"),
            Rule::Named {
                layer: "{p}.conv_transpose",
                batch_norm: "{p}.bn",
                with: &[],
                without: &["{p}.conv"],
                transposed: true,
            },
        ],
        epsilon: Epsilon::Known(1e-3),
        open: true,
        ..Architecture::BASE
    }],
};
