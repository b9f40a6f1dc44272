"""Small PyTorch networks whose state dicts are folded, one difficulty each: what folds, and what must stay and why.

`NETS` maps a name to a function that gives a `Net`. What is claimed here is not believed: generate_state.py folds it and asks PyTorch.
"""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

BATCH_NORM = nn.modules.batchnorm._BatchNorm
NETS = {}


@dataclass
class Net:
    """A network with its claims. Modules are named as in the state dict."""

    module: nn.Module
    shape: tuple
    folds: list  # (layer, BatchNorm): right, and possible with the graph
    kept: dict = field(default_factory=dict)  # BatchNorm: code
    identity_kept: dict = field(default_factory=dict)  # BatchNorms that only --identity-bn cannot fold: code
    may: list = field(default_factory=list)  # folds that are right, but that a careful tool may decline
    named: list = field(default_factory=list)  # folds that are right by the names of the state dict, and that the graph cannot tell
    unseen: list = field(default_factory=list)  # pairs that look right without the graph, and are wrong
    order: str = "save_file"  # or "module": the order of the state dict
    graph: str = "names"  # "renamed": val_N everywhere; "values": float32 with the same numbers; None
    constants: bool = False  # the exporter folds constants, so that Linear's weight is transposed and renamed
    dynamic: bool = True


def net(function):
    NETS[function.__name__] = lambda: function()
    return function


def settle(module, shape, seed):
    """Random γ and β, every fifth γ negative; running statistics by averaging train-mode batches, so that they fit the weights."""
    g = torch.Generator().manual_seed(seed)
    norms = [m for m in module.modules() if isinstance(m, BATCH_NORM)]
    with torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            if norm.affine:
                norm.weight.copy_(torch.rand(norm.weight.shape, generator=g) + 0.5)
                norm.weight[::5] *= -1
                norm.bias.copy_(torch.randn(norm.bias.shape, generator=g) * 0.2)
        module.train()
        for _ in range(3):
            module(torch.randn(8, *shape, generator=g))
    for norm in norms:
        norm.momentum = 0.1
    return module.eval()


def twin(module, a, b):
    """Gives submodule b the numbers of a."""
    module.get_submodule(b).load_state_dict(module.get_submodule(a).state_dict())


class Flow(nn.Module):
    """Named modules and a function that calls them."""

    def __init__(self, flow, **parts):
        super().__init__()
        self.flow = flow
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.flow(self, x)


# --- torchvision's ResNet, narrow ---


class BasicBlock(nn.Module):
    def __init__(self, cin, cout, stride, bias, eps):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=bias), nn.BatchNorm2d(cout, eps)
        self.relu = nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=bias), nn.BatchNorm2d(cout, eps)
        short = [nn.Conv2d(cin, cout, 1, stride, bias=bias), nn.BatchNorm2d(cout, eps)]
        self.downsample = nn.Sequential(*short) if (cin, stride) != (cout, 1) else None

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, widths, bias, eps):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=bias), nn.BatchNorm2d(widths[0], eps)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        for i, (cin, cout) in enumerate(zip(widths[:1] + widths, widths), 1):
            self.add_module(f"layer{i}", nn.Sequential(BasicBlock(cin, cout, 1 + (i > 1), bias, eps)))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(widths[-1], 5)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet_with(bias, eps):
    torch.manual_seed(1 if bias else 2)
    module = settle(ResNet([3, 4, 5, 6], bias, eps), (3, 32, 32), 3)
    pairs = [("conv1", "bn1")]
    for i in range(1, 5):
        pairs += [(f"layer{i}.0.conv{k}", f"layer{i}.0.bn{k}") for k in (1, 2)]
        pairs += [(f"layer{i}.0.downsample.0", f"layer{i}.0.downsample.1")] if i > 1 else []
    return Net(module, (3, 32, 32), pairs)


@net
def resnet():
    """ε 1e-5, Conv without bias: torchvision's ResNet."""
    return resnet_with(False, 1e-5)


@net
def resnet_bias():
    """ε 1e-3, Conv with bias."""
    return resnet_with(True, 1e-3)


# --- kinds of layers ---


@net
def layers():
    """ConvTranspose with 1 and 2 groups, depthwise and grouped Conv, Conv1d, Linear before BatchNorm1d; the state dict in the modules' order."""
    torch.manual_seed(4)

    def flow(m, x):
        x = m.norm2(m.up2(F.relu(m.norm1(m.up1(x)))))
        x = m.norm4(m.grouped(F.relu(m.norm3(m.depthwise(F.relu(x))))))
        x = m.norm5(m.line(F.relu(x).flatten(2)))
        return m.norm6(m.fc(F.relu(x).mean(-1)))

    parts = {
        "up1": nn.ConvTranspose2d(3, 4, 2, stride=2), "norm1": nn.BatchNorm2d(4),
        "up2": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False), "norm2": nn.BatchNorm2d(6),
        "depthwise": nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), "norm3": nn.BatchNorm2d(6),
        "grouped": nn.Conv2d(6, 4, 3, stride=2, groups=2), "norm4": nn.BatchNorm2d(4),
        "line": nn.Conv1d(4, 5, 3, dilation=2), "norm5": nn.BatchNorm1d(5),
        "fc": nn.Linear(5, 4), "norm6": nn.BatchNorm1d(4),
    }  # fmt: skip
    folds = [("up1", "norm1"), ("up2", "norm2"), ("depthwise", "norm3"), ("grouped", "norm4"), ("line", "norm5"), ("fc", "norm6")]
    return Net(settle(Flow(flow, **parts), (3, 4, 4), 5), (3, 4, 4), folds, order="module")


def plain(eps=1e-5, bias=False):
    """conv → bn → relu → conv → bn, the second with bias."""
    a, b = nn.Conv2d(3, 4, 3, padding=1, bias=bias), nn.Conv2d(4, 5, 3)
    parts = {"conv1": a, "bn1": nn.BatchNorm2d(4, eps), "conv2": b, "bn2": nn.BatchNorm2d(5, eps)}
    module = Flow(lambda m, x: m.bn2(m.conv2(F.relu(m.bn1(m.conv1(x))))), **parts)
    return settle(module, (3, 6, 6), 6), [("conv1", "bn1"), ("conv2", "bn2")]


@net
def half():
    """Everything in float16."""
    torch.manual_seed(7)
    module, folds = plain()
    return Net(module.half(), (3, 6, 6), folds)


@net
def half_coarse():
    """float16 with ε 1e-3: √(1+ε) lies between two of its numbers."""
    torch.manual_seed(8)
    module, folds = plain(1e-3)
    return Net(module.half(), (3, 6, 6), folds)


@net
def bfloat():
    """Everything in bfloat16; the graph has the same numbers in float32, because Conv knows no bfloat16 in opset 17."""
    torch.manual_seed(9)
    module, folds = plain()
    return Net(module.bfloat16(), (3, 6, 6), folds, graph="values")


@net
def mixed():
    """float16 layers, float32 BatchNorms: a new bias is float16 as its weight, β' float32."""
    torch.manual_seed(10)
    module, folds = plain()
    module.conv1.half(), module.conv2.half()
    return Net(module, (3, 6, 6), folds)


# --- modules that are called twice: a state dict holds them once ---


def shared(flow, eps=1e-5, seed=11, **parts):
    torch.manual_seed(seed)
    return settle(Flow(flow, **parts), (3, 6, 6), seed)


def conv(cin=4, cout=4, bias=False):
    return nn.Conv2d(cin, cout, 3, padding=1, bias=bias)


@net
def called_twice():
    """One Conv with its BatchNorm, both called twice: exact to fold once, as every call has both; declining is right, too."""

    def flow(m, x):
        x = F.relu(m.bn0(m.stem(x)))
        return m.bn(m.conv(F.relu(m.bn(m.conv(x)))))

    module = shared(flow, stem=conv(3), bn0=nn.BatchNorm2d(4), conv=conv(), bn=nn.BatchNorm2d(4))
    return Net(module, (3, 6, 6), [("stem", "bn0")], {"bn": "module-called-twice"}, may=[("conv", "bn")])


@net
def conv_with_two_norms():
    """One Conv called twice, a BatchNorm of its own behind each call: one weight cannot take two scales."""

    def flow(m, x):
        x = F.relu(m.bn0(m.stem(x)))
        return m.bn_b(m.conv(F.relu(m.bn_a(m.conv(x)))))

    module = shared(flow, stem=conv(3), bn0=nn.BatchNorm2d(4), conv=conv(), bn_a=nn.BatchNorm2d(4), bn_b=nn.BatchNorm2d(4))
    kept = {"bn_a": "module-called-twice", "bn_b": "module-called-twice"}
    return Net(module, (3, 6, 6), [("stem", "bn0")], kept, unseen=[("conv", "bn_a")])


@net
def conv_half_normed():
    """One Conv called twice, a BatchNorm behind one call only: the other call needs the weight as it is."""

    def flow(m, x):
        x = F.relu(m.bn0(m.stem(x)))
        return m.conv(F.relu(m.bn(m.conv(x))))

    module = shared(flow, stem=conv(3), bn0=nn.BatchNorm2d(4), conv=conv(), bn=nn.BatchNorm2d(4))
    return Net(module, (3, 6, 6), [("stem", "bn0")], {"bn": "module-called-twice"}, unseen=[("conv", "bn")])


@net
def norm_behind_two_convs():
    """One BatchNorm behind two Convs without bias: both take the affine, nobody needs the BatchNorm."""

    def flow(m, x):
        return m.bn(m.b(F.relu(m.bn(m.a(x)))))

    module = shared(flow, a=conv(3), b=conv(), bn=nn.BatchNorm2d(4))
    return Net(module, (3, 6, 6), [("a", "bn"), ("b", "bn")])


@net
def norm_behind_two_biases():
    """As before, with biases: two shifts, b₁·s + t and b₂·s + t, which the identity that remains cannot hold; the biases do."""

    def flow(m, x):
        return m.bn(m.b(F.relu(m.bn(m.a(x)))))

    module = shared(flow, a=conv(3, bias=True), b=conv(bias=True), bn=nn.BatchNorm2d(4))
    return Net(module, (3, 6, 6), [("a", "bn"), ("b", "bn")])


@net
def norm_half_foldable():
    """One BatchNorm behind a Conv and, again, behind a ReLU: it is needed there, so the Conv must not take it either."""

    def flow(m, x):
        x = F.relu(m.bn(m.a(x)))
        return m.bn(F.relu(x + m.b(x)))

    module = shared(flow, a=conv(3), b=conv(), bn=nn.BatchNorm2d(4))
    return Net(module, (3, 6, 6), [], {"bn": "module-called-twice"}, unseen=[("a", "bn")])


# --- BatchNorms with something missing ---


@net
def affine_free():
    """No γ and no β: they are 1 and 0. `--identity-bn` puts the shift into the mean then."""
    torch.manual_seed(12)
    parts = {"conv1": conv(3), "bn1": nn.BatchNorm2d(4, affine=False), "conv2": conv(bias=True), "bn2": nn.BatchNorm2d(4)}
    module = Flow(lambda m, x: m.bn2(m.conv2(F.relu(m.bn1(m.conv1(x))))), **parts)
    net = Net(settle(module, (3, 6, 6), 12), (3, 6, 6), [("conv1", "bn1"), ("conv2", "bn2")])
    return net


@net
def no_statistics():
    """γ and β without running statistics (track_running_stats=False): they look like a layer, and nothing can be folded."""
    torch.manual_seed(13)
    parts = {"conv1": conv(3), "live": nn.BatchNorm2d(4, track_running_stats=False), "conv2": conv(), "bn2": nn.BatchNorm2d(4)}
    module = Flow(lambda m, x: m.bn2(m.conv2(F.relu(m.live(m.conv1(x))))), **parts)
    kept = {"live": "no-running-statistics"}
    return Net(settle(module, (3, 6, 6), 13), (3, 6, 6), [("conv2", "bn2")], kept, dynamic=False)


@net
def written_out():
    """GELU's factor ½ and a layer's own scale are affines in the graph, and would fold there. The code that loads the state dict keeps them."""
    torch.manual_seed(20)

    def flow(m, x):
        x = m.bn2(m.conv2(F.gelu(m.bn1(m.conv1(x)))))
        return m.conv3(x * m.gain.view(-1, 1, 1)) * 0.5 + 1.0

    parts = {"conv1": conv(3), "bn1": nn.BatchNorm2d(4), "conv2": conv(bias=True), "bn2": nn.BatchNorm2d(4), "conv3": conv()}
    module = Flow(flow, **parts)
    module.gain = nn.Parameter(torch.rand(4) + 0.5)
    return Net(settle(module, (3, 6, 6), 20), (3, 6, 6), [("conv1", "bn1"), ("conv2", "bn2")])


# --- graphs that do not name things as the state dict does ---


@net
def linear_transposed():
    """Linear on 3-d inputs: MatMul with a weight that the exporter transposed and renamed, and square, so that shapes say nothing."""
    torch.manual_seed(14)

    def flow(m, x):
        x = m.bn1(m.fc1(x).transpose(1, 2)).relu().transpose(1, 2)
        return m.bn2(m.fc2(x).transpose(1, 2))

    parts = {"fc1": nn.Linear(5, 5, bias=False), "bn1": nn.BatchNorm1d(5), "fc2": nn.Linear(5, 6), "bn2": nn.BatchNorm1d(6)}
    return Net(settle(Flow(flow, **parts), (7, 5), 14), (7, 5), [("fc1", "bn1"), ("fc2", "bn2")], constants=True)


@net
def fresh():
    """Two BatchNorms as they were born, equal: the exporter merges their tensors behind Identity nodes."""
    torch.manual_seed(15)
    module, folds = plain()
    module.bn2 = nn.BatchNorm2d(5).eval()
    module.conv1, module.bn1 = conv(3, 5), nn.BatchNorm2d(5).eval()
    module.conv2 = conv(5, 5)
    return Net(module, (3, 6, 6), folds)


def two(seed):
    torch.manual_seed(seed)
    parts = {"conv1": conv(3), "bn1": nn.BatchNorm2d(4), "conv2": conv(), "bn2": nn.BatchNorm2d(4), "conv3": conv(), "bn3": nn.BatchNorm2d(4)}

    def flow(m, x):
        x = F.relu(m.bn1(m.conv1(x)))
        return m.bn3(m.conv3(F.relu(m.bn2(m.conv2(x)))))

    return settle(Flow(flow, **parts), (3, 6, 6), seed)


THREE = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]


@net
def renamed():
    """All names of the graph are val_N, no two tensors are equal: the contents say which is which."""
    return Net(two(16), (3, 6, 6), THREE, graph="renamed")


@net
def renamed_twins():
    """Two equal BatchNorms, which one is which nobody can tell; whichever it is, the fold is the same. Declining is right, too."""
    module = two(17)
    twin(module, "bn2", "bn3")
    kept = {"bn2": "ambiguous-content", "bn3": "ambiguous-content"}
    return Net(module, (3, 6, 6), THREE[:1], kept, may=THREE[1:], graph="renamed")


@net
def renamed_twin_convs():
    """Two equal Convs with different BatchNorms: which Conv stands before which is not in the contents, and matters."""
    module = two(18)
    twin(module, "conv2", "conv3")
    kept = {"bn2": "ambiguous-content", "bn3": "ambiguous-content"}
    return Net(module, (3, 6, 6), THREE[:1], kept, named=THREE[1:], graph="renamed")


@net
def renamed_twin_kept():
    """Two equal BatchNorms, one behind a Conv, one behind a ReLU and before one: which of the two may go nobody can tell."""
    torch.manual_seed(19)
    parts = {"conv1": conv(3), "bn1": nn.BatchNorm2d(4), "conv2": conv(), "bn2": nn.BatchNorm2d(4), "bn3": nn.BatchNorm2d(4)}

    def flow(m, x):
        x = F.relu(m.bn2(m.conv2(F.relu(m.bn1(m.conv1(x))))))
        return F.relu(m.bn3(x)) + x

    module = settle(Flow(flow, **parts), (3, 6, 6), 19)
    twin(module, "bn2", "bn3")
    kept = {"bn2": "ambiguous-content", "bn3": "ambiguous-content"}
    return Net(module, (3, 6, 6), THREE[:1], kept, named=THREE[1:2], graph="renamed")
