//! torchvision's classification networks. Names, order and ε as in torchvision's own modules; checked against their graphs.

use super::{Architecture, Epsilon, Rule, Scheme, View};
use crate::state::groups::Naming;

/// In timm, it has the same names.
pub(super) const DENSENET: Architecture = Architecture {
    name: "densenet",
    markers: &[
        "features.denseblock1.denselayer1.conv2",
        "features.denseblock1.denselayer1.conv1",
        "features.transition1.conv",
        "features.conv0",
    ],
    rules: &[
        Rule::named("features.conv0", "features.norm0"),
        Rule::named(
            "features.denseblock{b}.conv1",
            "features.denseblock{b}.norm2",
        ),
    ],
    leaves: &[
        (
            "features.denseblock{b}.norm1",
            "it normalises a concatenation, before a ReLU",
        ),
        (
            "features.transition{t}.norm",
            "it normalises a concatenation, before a ReLU",
        ),
        (
            "features.norm5",
            "it normalises a concatenation, before a ReLU",
        ),
    ],
    epsilon: Epsilon::Known(1e-5),
    ..Architecture::BASE
};

/// In timm, it has the same names.
pub(super) const INCEPTION_V3: Architecture = Architecture {
    name: "inception_v3",
    markers: &["Conv2d_1a_3x3.conv", "Mixed_5b.branch1x1.conv"],
    rules: &[Rule::named("{p}.conv", "{p}.bn")],
    epsilon: Epsilon::Known(1e-3),
    ..Architecture::BASE
};

pub(crate) const SCHEME: Scheme = Scheme {
    name: "torchvision",
    naming: Naming::Torch,
    architectures: &[
        Architecture {
            name: "resnet, resnext, wide_resnet",
            markers: &[
                "layer1.0.conv1",
                "layer1.0.conv2",
                "layer4.0.conv1",
                "conv1",
            ],
            rules: &[
                Rule::named("conv1", "bn1"),
                Rule::named("layer{b}.conv{n}", "layer{b}.bn{n}"),
                Rule::named("layer{b}.downsample.0", "layer{b}.downsample.1"),
            ],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        DENSENET,
        Architecture {
            name: "vgg_bn",
            markers: &["classifier.6", "features.0"],
            absent: &["features.0.0"],
            rules: &[Rule::next("features.{i}")],
            epsilon: Epsilon::ByShape(vgg),
            ..Architecture::BASE
        },
        Architecture {
            name: "mobilenet_v2",
            markers: &[
                "features.1.conv.0.0",
                "features.1.conv.1",
                "features.18.0",
                "features.0.0",
            ],
            rules: &[Rule::next("features.{i}")],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "mobilenet_v3",
            markers: &[
                "features.1.block.0.0",
                "features.2.block.0.0",
                "features.0.0",
            ],
            rules: &[Rule::next("features.{i}")],
            epsilon: Epsilon::Known(1e-3),
            ..Architecture::BASE
        },
        Architecture {
            name: "efficientnet",
            markers: &[
                "features.1.0.block.0.0",
                "features.2.0.block.1.0",
                "features.0.0",
            ],
            rules: &[Rule::next("features.{i}")],
            epsilon: Epsilon::ByShape(efficientnet),
            ..Architecture::BASE
        },
        Architecture {
            name: "mnasnet",
            markers: &[
                "layers.8.0.layers.0",
                "layers.8.0.layers.6",
                "layers.0",
                "layers.14",
            ],
            rules: &[Rule::next("layers.{i}")],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "shufflenet_v2",
            markers: &[
                "stage2.0.branch1.0",
                "stage2.0.branch2.0",
                "conv1.0",
                "conv5.0",
            ],
            rules: &[
                Rule::next("conv{i}"),
                Rule::next("stage{s}.branch1.{i}"),
                Rule::next("stage{s}.branch2.{i}"),
            ],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "regnet",
            markers: &[
                "trunk_output.block1.block1-0.f.a.0",
                "trunk_output.block1.block1-0.f.c.0",
                "stem.0",
            ],
            rules: &[
                Rule::next("stem.{i}"),
                Rule::next("trunk_output.{b}.proj.{i}"),
                Rule::next("trunk_output.{b}.f.{i}"),
            ],
            epsilon: Epsilon::Known(1e-5),
            ..Architecture::BASE
        },
        Architecture {
            name: "googlenet",
            markers: &[
                "inception3a.branch1.conv",
                "inception5b.branch1.conv",
                "conv1.conv",
            ],
            rules: &[Rule::named("{p}.conv", "{p}.bn")],
            epsilon: Epsilon::Known(1e-3),
            ..Architecture::BASE
        },
        INCEPTION_V3,
    ],
};

/// `features` and `classifier` are names that many networks have: the stem and the widths of VGG are asked for, too.
fn vgg(view: &View<'_>) -> Option<f64> {
    // One convolution of 64 channels and a pooling in vgg11, two in the others.
    let second =
        view.shape("features.4") == [128, 64, 3, 3] || view.shape("features.3") == [64, 64, 3, 3];
    let vgg = view.shape("features.0") == [64, 3, 3, 3] && second;
    vgg.then_some(1e-5)
}

/// b0 to b4 have PyTorch's default, the others 1e-3. The widths of the first and the last convolution and the kind of the first
/// block tell the members apart; a network of other widths is none of them.
fn efficientnet(view: &View<'_>) -> Option<f64> {
    let &[stem, ..] = view.shape("features.0.0") else {
        return None;
    };
    let last = ["features.7.0", "features.8.0"]
        .into_iter()
        .find_map(|layer| view.shape(layer).first());
    // Depthwise in an MBConv, dense in a FusedMBConv.
    let dense = view.shape("features.1.0.block.0.0").get(1) != Some(&1);
    match (stem, last?, dense) {
        (32, 1280 | 1408, false) | (40, 1536, false) | (48, 1792, false) => Some(1e-5),
        (48, 2048, false) | (56, 2304, false) | (64, 2560, false) => Some(1e-3),
        (24 | 32, 1280, true) => Some(1e-3),
        _ => None,
    }
}
