//! The ResNets of flax' ImageNet example, whose names many ports have kept.

use super::{Architecture, Epsilon, Rule, Scheme};
use crate::state::groups::Naming;

const RULES: &[Rule] = &[
    Rule::named("conv_init", "bn_init"),
    Rule::named("{p}/Conv_{n}", "{p}/BatchNorm_{n}"),
    Rule::named("{p}/conv_proj", "{p}/norm_proj"),
];

const BASE: Architecture = Architecture {
    name: "resnet",
    rules: RULES,
    epsilon: Epsilon::Known(1e-5),
    ..Architecture::BASE
};

pub(crate) const SCHEME: Scheme = Scheme {
    name: "flax",
    naming: Naming::Flax,
    architectures: &[
        Architecture {
            markers: &["conv_init", "ResNetBlock_0/Conv_1"],
            ..BASE
        },
        Architecture {
            markers: &["conv_init", "BottleneckResNetBlock_0/Conv_2"],
            ..BASE
        },
    ],
};
