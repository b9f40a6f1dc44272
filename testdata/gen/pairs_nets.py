"""Small networks with the module names of libraries that are not installed, and networks that resemble known ones and are not.

Only names and the order of modules follow those libraries; everything here is written for these tests.
"""
import torch
from torch import nn
import torch.nn.functional as F


class Conv(nn.Module):
    """`conv` and `bn`: Ultralytics' Conv, mmcv's ConvModule, timm's ConvNormAct."""

    def __init__(self, i, o, k=1, s=1, g=1, eps=1e-5):
        super().__init__()
        self.conv = nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False)
        self.bn = nn.BatchNorm2d(o, eps=eps)

    def forward(self, x):
        return F.silu(self.bn(self.conv(x)))


# --- as in Ultralytics ------------------------------------------------------------------------------------------------

class Up(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.conv_transpose = nn.ConvTranspose2d(i, o, 2, 2, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return F.silu(self.bn(self.conv_transpose(x)))


class Bottleneck(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.cv1, self.cv2 = Conv(c, c, 3), Conv(c, c, 3)

    def forward(self, x):
        return x + self.cv2(self.cv1(x))


class C2f(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.c = o // 2
        self.cv1, self.cv2 = Conv(i, o), Conv(o + o // 2, o)
        self.m = nn.ModuleList([Bottleneck(o // 2)])

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y += [m(y[-1]) for m in self.m]
        return self.cv2(torch.cat(y, 1))


class BottleneckCSP(nn.Module):
    """Its `bn` normalises a concatenation."""

    def __init__(self, c):
        super().__init__()
        h = c // 2
        self.cv1, self.cv4 = Conv(c, h), Conv(2 * h, c)
        self.cv2, self.cv3 = nn.Conv2d(c, h, 1, bias=False), nn.Conv2d(h, h, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * h)
        self.m = nn.Sequential(Bottleneck(h))

    def forward(self, x):
        return self.cv4(F.silu(self.bn(torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1))))


class RepConv(nn.Module):
    """`bn` is a branch of its own."""

    def __init__(self, c):
        super().__init__()
        self.conv1, self.conv2, self.bn = Conv(c, c, 3), Conv(c, c, 1), nn.BatchNorm2d(c)

    def forward(self, x):
        return F.silu(self.conv1(x) + self.conv2(x) + self.bn(x))


class Detect(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.cv2 = nn.ModuleList(nn.Sequential(Conv(c, 16, 3), Conv(16, 16, 3), nn.Conv2d(16, 64, 1)) for c in widths)
        self.cv3 = nn.ModuleList(
            nn.Sequential(nn.Sequential(Conv(c, c, 3, g=c), Conv(c, 24, 1)), nn.Conv2d(24, 8, 1)) for c in widths)

    def forward(self, xs):
        return [torch.cat((self.cv2[i](x), self.cv3[i](x)), 1) for i, x in enumerate(xs)]


class Yolo(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.ModuleList([
            Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), C2f(32, 32), Conv(32, 64, 3, 2), C2f(64, 64), BottleneckCSP(64),
            RepConv(64), Up(64, 32), Up(32, 32), Detect((64, 32))])
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eps = 1e-3

    def forward(self, x):
        for m in self.model[:7]:
            x = m(x)
        return self.model[9]([x, self.model[8](self.model[7](x))])


# --- as in mmdetection ------------------------------------------------------------------------------------------------

class BasicBlock(nn.Module):
    def __init__(self, i, o, s=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o)) if i != o else None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    def __init__(self, block=BasicBlock, widths=(16, 32, 64, 128)):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), nn.BatchNorm2d(widths[0])
        i = widths[0]
        for n, o in enumerate(widths):
            setattr(self, f"layer{n + 1}", nn.Sequential(block(i, o, 1 if n == 0 else 2), block(o, o)))
            i = o

    def forward(self, x):
        x, out = F.relu(self.bn1(self.conv1(x))), []
        for n in range(1, 5):
            x = getattr(self, f"layer{n}")(x)
            out.append(x)
        return out


class Fpn(nn.Module):
    def __init__(self, widths, o):
        super().__init__()
        self.lateral_convs = nn.ModuleList(Conv(c, o) for c in widths)
        self.fpn_convs = nn.ModuleList(Conv(o, o, 3) for _ in widths)

    def forward(self, xs):
        xs = [m(x) for m, x in zip(self.lateral_convs, xs)]
        return [m(x) for m, x in zip(self.fpn_convs, xs)]


class SharedHead(nn.Module):
    """One head for all levels: layer and BatchNorm are called several times, always together."""

    def __init__(self, c):
        super().__init__()
        self.cls_convs = nn.ModuleList([Conv(c, c, 3), Conv(c, c, 3)])
        self.retina_cls = nn.Conv2d(c, 9, 3, padding=1)

    def forward(self, xs):
        return [self.retina_cls(self.cls_convs[1](self.cls_convs[0](x))) for x in xs]


class SeparateBatchNorms(nn.Module):
    """As RTMDet's head: a BatchNorm for every level, one convolution for all."""

    def __init__(self, c, levels):
        super().__init__()
        self.cls_convs = nn.ModuleList(nn.ModuleList([Conv(c, c, 3), Conv(c, c, 3)]) for _ in range(levels))
        for level in self.cls_convs[1:]:
            for own, first in zip(level, self.cls_convs[0]):
                own.conv = first.conv

    def forward(self, xs):
        return [level[1](level[0](x)) for level, x in zip(self.cls_convs, xs)]


class Detector(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.backbone, self.neck, self.bbox_head = ResNet(), Fpn((16, 32, 64, 128), 32), head

    def forward(self, x):
        return self.bbox_head(self.neck(self.backbone(x)))


# --- what resembles known networks ------------------------------------------------------------------------------------

class PreActBlock(nn.Module):
    """The names of a ResNet's block, in another order."""

    def __init__(self, i, o, s=1):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(i), nn.Conv2d(i, o, 3, s, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(o), nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False)) if i != o else None

    def forward(self, x):
        y = F.relu(self.bn1(x))
        return self.conv2(F.relu(self.bn2(self.conv1(y)))) + (self.downsample(y) if self.downsample else x)


class ConstantPreAct(nn.Module):
    """All widths are the same: nothing in names and shapes tells the order."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(*(PreActBlock(32, 32) for _ in range(3)))

    def forward(self, x):
        return self.blocks(F.relu(self.bn1(self.conv1(x))))


class BnActConv(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(i), nn.Conv2d(i, o, 1, bias=False)

    def forward(self, x):
        return self.conv(F.relu(self.bn(x)))


class ConstantBnActConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Conv(3, 32, 3)
        self.stages = nn.Sequential(*(BnActConv(32, 32) for _ in range(3)))

    def forward(self, x):
        return self.stages(self.stem(x))


class UNet(nn.Module):
    """Convolutions and transposed ones in Sequentials, one kernel of them square; an output that is read twice."""

    def __init__(self):
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(),
                                   nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.down2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(32, 32, 2, 2), nn.BatchNorm2d(32), nn.ReLU(),
                                nn.ConvTranspose2d(32, 24, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(40, 16, 3, 1, 1), nn.ReLU(), nn.BatchNorm2d(16))
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        x = self.down1(x)
        return self.head(self.late(torch.cat((self.up(self.down2(x)), x), 1)))


class Mlp(nn.Sequential):
    """BatchNorm before, after, and after the activation."""

    def __init__(self):
        super().__init__(nn.Linear(12, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.BatchNorm1d(20),
                         nn.BatchNorm1d(20), nn.Linear(20, 4))


def nets():
    """name → (preset, what must be found, network, shape of the input)."""
    image = (2, 3, 64, 64)
    return {
        "own_ultralytics": ("ultralytics", "all", Yolo, image),
        "own_mmdet_retina": ("mmdet", "all", lambda: Detector(SharedHead(32)), image),
        "own_mmdet_rtm": ("mmdet", "all", lambda: Detector(SeparateBatchNorms(32, 4)), image),
        "own_preact_resnet": (None, "some", lambda: ResNet(PreActBlock), image),
        "own_preact_constant": (None, "some", ConstantPreAct, image),
        "own_bn_act_conv": (None, "some", ConstantBnActConv, image),
        "own_unet": (None, "some", UNet, image),
        "own_mlp": (None, "some", Mlp, (2, 12)),
    }
