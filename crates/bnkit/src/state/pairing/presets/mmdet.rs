//! mmdetection and its relatives: `backbone`, `neck`, heads; mmcv's `ConvModule` is `conv` and `bn`.
//!
//! ε is an option of every configuration file (mmcv's default is 1e-5, YOLOX and RTMDet ask for 1e-3).

use super::{Architecture, Epsilon, Rule, Scheme};
use crate::state::groups::Naming;

const RULES: &[Rule] = &[
    Rule::named("{p}.conv", "{p}.bn"),
    Rule::named("backbone.conv1", "backbone.bn1"),
    Rule::named("backbone.layer{b}.conv{n}", "backbone.layer{b}.bn{n}"),
    Rule::named(
        "backbone.layer{b}.downsample.0",
        "backbone.layer{b}.downsample.1",
    ),
    Rule::named(
        "backbone.layer{b}.downsample.1",
        "backbone.layer{b}.downsample.2",
    ),
];

/// In RTMDet's head the levels have a BatchNorm each, and share one convolution under many names.
const SHARED: &str = "the levels of this head may share one convolution";

const LEAVES: &[(&str, &str)] = &[
    ("bbox_head.cls_convs.*.*.bn", SHARED),
    ("bbox_head.reg_convs.*.*.bn", SHARED),
    ("bbox_head.kernel_convs.*.*.bn", SHARED),
];

const BASE: Architecture = Architecture {
    name: "",
    rules: RULES,
    leaves: LEAVES,
    epsilon: Epsilon::Unknown(
        "the configuration of the model says it (norm_cfg; mmcv's default is 1e-5)",
    ),
    open: true,
    ..Architecture::BASE
};

pub(crate) const SCHEME: Scheme = Scheme {
    name: "mmdet",
    naming: Naming::Torch,
    architectures: &[
        Architecture {
            name: "a detector on a ResNet",
            markers: &["backbone.layer1.0.conv1", "backbone.conv1"],
            ..BASE
        },
        Architecture {
            name: "a detector on a CSPDarknet or CSPNeXt",
            markers: &["backbone.stage1.0.conv", "backbone.stage1.1.main_conv.conv"],
            ..BASE
        },
        Architecture {
            name: "a detector on a Darknet",
            markers: &["backbone.conv1.conv", "backbone.conv_res_block1.conv.conv"],
            ..BASE
        },
        Architecture {
            name: "a detector on a MobileNetV2",
            markers: &["backbone.conv1.conv", "backbone.layer1.0.conv.0.conv"],
            ..BASE
        },
    ],
};
