"""The PyTorch side of networks that exist as files: the two small ones of `models/`, and real architectures with a state dict."""

import torch
from onnx import numpy_helper
from torch import nn

LARGE = (
    "resnet18", "resnet50", "resnet152", "mobilenet_v2", "densenet121", "efficientnet_b0", "repvgg_a0", "mobileone_s0",
)  # fmt: skip
TIMM = ("repvgg_a0", "mobileone_s0")


def large(name, state):
    """A real architecture with the numbers of a state dict."""
    import timm
    import torchvision

    model = timm.create_model(name, pretrained=False) if name in TIMM else getattr(torchvision.models, name)(weights=None)
    model.load_state_dict(state)
    return model.eval()


def load_onnx(model, onnx_model):
    """Gives a module the initializers of a model; the names must be the module's own."""
    state = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx_model.graph.initializer}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(k.endswith("num_batches_tracked") for k in missing), (missing, unexpected)
    return model.eval()


def conv(cin, cout, kernel, stride=1, group=1):
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=group, bias=False)


class Unit(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(cin, cout, 3, stride), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = conv(cout, cout, 3), nn.BatchNorm2d(cout)
        self.downsample = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout)) if cin != cout else nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.downsample(x)).relu()


class TinyResnet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 8, 3), nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Unit(8, 8, 1))
        self.layer2 = nn.Sequential(Unit(8, 16, 2))
        self.layer3 = nn.Sequential(Unit(16, 32, 2))
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        return self.fc(x.mean((2, 3)))


def stage(cin, cout, kernel, stride=1, group=1):
    return nn.Sequential(conv(cin, cout, kernel, stride, group), nn.BatchNorm2d(cout), nn.ReLU6())


class Block(nn.Module):
    def __init__(self, cin, cout, expand, stride):
        super().__init__()
        inner = cin * expand
        first = [] if expand == 1 else [stage(cin, inner, 1)]
        self.conv = nn.Sequential(*first, stage(inner, inner, 3, stride, inner), conv(inner, cout, 1), nn.BatchNorm2d(cout))
        self.skip = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.conv(x) if self.skip else self.conv(x)


class TinyMobilenet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            stage(3, 8, 3, 2), Block(8, 8, 1, 1), Block(8, 12, 3, 2), Block(12, 12, 3, 1), stage(12, 32, 1)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


SMALL = {"tiny_resnet": TinyResnet, "tiny_mobilenet": TinyMobilenet}
