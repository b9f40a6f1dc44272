//! timm's networks. Many share the modules of a few families; where members of a family differ in ε, none is told.

use super::torchvision::{DENSENET, INCEPTION_V3};
use super::{Architecture, Epsilon, Rule, Scheme};
use crate::state::groups::Naming;

/// Why the ε of a family is not told.
const DIFFER: &str = "weights ported from TensorFlow have the same names and 1e-3";

/// ConvNormAct.
const CONV_BN: Rule = Rule::named("{p}.conv", "{p}.bn");

const IDENTITY: (&str, &str) = ("{p}.identity", "it is a branch of its own, without a layer");

pub(crate) const SCHEME: Scheme = Scheme {
    name: "timm",
    naming: Naming::Torch,
    architectures: &[
        Architecture {
            name: "resnet and its kin",
            markers: &["layer1.0.conv1", "layer4.0.conv1"],
            rules: &[
                Rule::named("conv1", "bn1"),
                Rule::named("conv1.0", "conv1.1"),
                Rule::named("conv1.3", "conv1.4"),
                Rule::named("conv1.6", "bn1"),
                Rule::named("layer{b}.conv{n}", "layer{b}.bn{n}"),
                Rule::named("layer{b}.downsample.0", "layer{b}.downsample.1"),
                Rule::named("layer{b}.downsample.1", "layer{b}.downsample.2"),
                // ResNet-RS.
                Rule::named("maxpool.0", "maxpool.1"),
                Rule::named("layer{b}.se.fc1", "layer{b}.se.bn"),
                // ResNeSt's split attention.
                Rule::named("layer{b}.conv2.conv", "layer{b}.conv2.bn0"),
                Rule::named("layer{b}.conv2.fc1", "layer{b}.conv2.bn1"),
            ],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "efficientnet, mobilenet_v2, mobilenet_v3 and their kin",
            markers: &["conv_stem"],
            rules: &[
                Rule::named("conv_stem", "bn1"),
                Rule::named("conv_head", "bn2"),
                Rule::named("conv_head", "norm_head"),
                // InvertedResidual.
                Rule::when(
                    "blocks.{b}.conv_pw",
                    "blocks.{b}.bn1",
                    &["blocks.{b}.conv_pwl"],
                    &[],
                ),
                Rule::when(
                    "blocks.{b}.conv_dw",
                    "blocks.{b}.bn2",
                    &["blocks.{b}.conv_pwl"],
                    &[],
                ),
                Rule::when(
                    "blocks.{b}.conv_pwl",
                    "blocks.{b}.bn3",
                    &["blocks.{b}.conv_dw"],
                    &[],
                ),
                // DepthwiseSeparableConv.
                Rule::when(
                    "blocks.{b}.conv_dw",
                    "blocks.{b}.bn1",
                    &[],
                    &["blocks.{b}.conv_pwl"],
                ),
                Rule::when(
                    "blocks.{b}.conv_pw",
                    "blocks.{b}.bn2",
                    &[],
                    &["blocks.{b}.conv_pwl"],
                ),
                Rule::named("blocks.{b}.conv_s2d", "blocks.{b}.bn_s2d"),
                // EdgeResidual.
                Rule::when(
                    "blocks.{b}.conv_exp",
                    "blocks.{b}.bn1",
                    &["blocks.{b}.conv_pwl"],
                    &[],
                ),
                Rule::when(
                    "blocks.{b}.conv_pwl",
                    "blocks.{b}.bn2",
                    &["blocks.{b}.conv_exp"],
                    &[],
                ),
                Rule::named("blocks.{b}.conv", "blocks.{b}.bn1"),
                // UniversalInvertedResidual.
                Rule::named("blocks.{b}.conv", "blocks.{b}.bn"),
            ],
            epsilon: Epsilon::Unknown(DIFFER),
            ..Architecture::BASE
        },
        Architecture {
            name: "repvgg",
            markers: &["stem.conv_kxk.conv", "stages.0.0.conv_kxk.conv"],
            rules: &[CONV_BN],
            leaves: &[IDENTITY],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "mobileone",
            markers: &["stem.conv_kxk.0.conv", "stages.0.0.conv_kxk.0.conv"],
            rules: &[CONV_BN],
            leaves: &[IDENTITY],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "byobnet",
            markers: &["stages.0.0.conv1_1x1.conv", "stages.0.0.conv2_kxk.conv"],
            rules: &[CONV_BN],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "gernet",
            markers: &["stages.0.0.conv1_kxk.conv", "stem.conv"],
            rules: &[CONV_BN],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "regnet",
            markers: &["s1.b1.conv1.conv", "s1.b1.conv2.conv", "stem.conv"],
            rules: &[CONV_BN],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        DENSENET,
        INCEPTION_V3,
        Architecture {
            name: "vgg_bn",
            markers: &["pre_logits.fc1", "features.0"],
            rules: &[Rule::next("features.{i}")],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "inception_v4",
            markers: &["features.0.conv", "features.3.conv.conv"],
            rules: &[CONV_BN],
            epsilon: Epsilon::Known(1e-3),
            ..Architecture::BASE
        },
        Architecture {
            name: "inception_resnet_v2",
            markers: &["conv2d_1a.conv", "mixed_5b.branch0.conv"],
            rules: &[CONV_BN],
            epsilon: Epsilon::Known(1e-3),
            ..Architecture::BASE
        },
        Architecture {
            name: "hrnet",
            markers: &["stage2.0.branches.0.0.conv1", "transition1.0.0", "conv2"],
            rules: &[
                Rule::named("conv{n}", "bn{n}"),
                Rule::named("{p}.conv{n}", "{p}.bn{n}"),
                Rule::next("{p}"),
            ],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "dla",
            markers: &["base_layer.0", "level2.tree1.conv1"],
            rules: &[
                Rule::named("{p}.conv{n}", "{p}.bn{n}"),
                CONV_BN,
                Rule::named("{p}.convs.{n}", "{p}.bns.{n}"),
                Rule::next("{p}"),
            ],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "cspnet, darknet",
            markers: &["stages.0.conv_down.conv", "stem.conv1.conv"],
            rules: &[CONV_BN],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
    ],
};
