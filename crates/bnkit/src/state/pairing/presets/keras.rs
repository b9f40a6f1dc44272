//! The networks of keras.applications, by the names of their layers. Layers that Keras numbered by itself (`conv2d_3`,
//! `batch_normalization_3`) say nothing: the numbers are counted in the order of creation, per kind.

use super::{Architecture, Epsilon, Rule, Scheme};
use crate::state::groups::Naming;

/// The ε that the ResNets and DenseNets of keras.applications are built with.
const RESNET: Epsilon = Epsilon::Known(1.001e-5);

/// The default of the layer, and what the others are built with.
const DEFAULT: Epsilon = Epsilon::Known(1e-3);

const BEFORE: &str = "it comes before an activation and a convolution";

pub(crate) const SCHEME: Scheme = Scheme {
    name: "keras",
    naming: Naming::Keras,
    architectures: &[
        Architecture {
            name: "resnet",
            markers: &[
                "conv2_block1_1_conv",
                "conv2_block1_3_conv",
                "conv2_block1_0_conv",
                "conv1_conv",
            ],
            rules: &[
                Rule::named("conv1_conv", "conv1_bn"),
                Rule::named("conv{b}_block{p}_conv", "conv{b}_block{p}_bn"),
            ],
            leaves: &[("conv{b}_preact_bn", BEFORE), ("post_bn", BEFORE)],
            epsilon: RESNET,
            ..Architecture::BASE
        },
        Architecture {
            name: "densenet",
            markers: &[
                "conv2_block1_1_conv",
                "conv2_block1_2_conv",
                "pool2_conv",
                "conv1_conv",
            ],
            rules: &[
                Rule::named("conv1_conv", "conv1_bn"),
                Rule::named("conv{b}_block{p}_1_conv", "conv{b}_block{p}_1_bn"),
            ],
            leaves: &[
                ("conv{b}_block{p}_0_bn", BEFORE),
                ("pool{n}_bn", BEFORE),
                ("bn", "it normalises a concatenation"),
            ],
            epsilon: RESNET,
            ..Architecture::BASE
        },
        Architecture {
            name: "mobilenet",
            markers: &["conv_dw_1", "conv_pw_1", "conv1"],
            rules: &[Rule::named("conv{n}", "conv{n}_bn")],
            epsilon: DEFAULT,
            ..Architecture::BASE
        },
        Architecture {
            name: "mobilenet_v2",
            markers: &[
                "expanded_conv_depthwise",
                "block_1_expand",
                "Conv1",
                "Conv_1",
            ],
            rules: &[
                Rule::named("Conv1", "bn_Conv1"),
                Rule::named("Conv_1", "Conv_1_bn"),
                Rule::named("{p}", "{p}_BN"),
            ],
            epsilon: DEFAULT,
            ..Architecture::BASE
        },
        Architecture {
            name: "mobilenet_v3",
            markers: &[
                "expanded_conv_depthwise",
                "expanded_conv_1_expand",
                "conv",
                "conv_1",
            ],
            rules: &[Rule::named("{p}", "{p}_bn")],
            epsilon: DEFAULT,
            ..Architecture::BASE
        },
        Architecture {
            name: "efficientnet, efficientnet_v2",
            markers: &[
                "block1a_project_conv",
                "block2a_expand_conv",
                "stem_conv",
                "top_conv",
            ],
            rules: &[
                Rule::named("stem_conv", "stem_bn"),
                Rule::named("top_conv", "top_bn"),
                Rule::named("block{b}_expand_conv", "block{b}_expand_bn"),
                Rule::named("block{b}_project_conv", "block{b}_project_bn"),
                Rule::named("block{b}_dwconv", "block{b}_bn"),
                Rule::named("block{b}_dwconv2", "block{b}_bn"),
            ],
            epsilon: DEFAULT,
            ..Architecture::BASE
        },
        Architecture {
            name: "xception",
            markers: &["block1_conv1", "block2_sepconv1", "block14_sepconv2"],
            rules: &[Rule::named("block{p}", "block{p}_bn")],
            leaves: &[
                (
                    "batch_normalization{n}",
                    "keras numbered it: its name says nothing",
                ),
                (
                    "batch_normalization",
                    "keras numbered it: its name says nothing",
                ),
            ],
            epsilon: DEFAULT,
            ..Architecture::BASE
        },
    ],
};
