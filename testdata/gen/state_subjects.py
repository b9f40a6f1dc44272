"""What check_state.py folds: the goldens, folders of models, and architectures of torchvision and timm. Each can run a state dict in f64 and in f32."""

import copy
import json
import zlib

import numpy as np
import onnx
import torch

from . import state_export, state_file, state_fold, state_graph, torch_models
from .oracle import evaluate, run_onnxruntime
from .state_nets import NETS, settle

# name: (package, side of the images, options). ε is 1e-3 in googlenet, inception_v3 and mobilenet_v3.
ARCHITECTURES = {
    "resnet18": ("torchvision", 64, {}),
    "mobilenet_v2": ("torchvision", 64, {}),
    "densenet121": ("torchvision", 64, {}),
    "efficientnet_b0": ("torchvision", 64, {}),
    "googlenet": ("torchvision", 64, {"init_weights": False}),
    "inception_v3": ("torchvision", 299, {"init_weights": False}),
    "mobilenet_v3_small": ("torchvision", 64, {}),
    "regnet_x_400mf": ("torchvision", 64, {}),
    "repvgg_a0": ("timm", 64, {}),
}


class Subject:
    """A state dict, its graph (or None), and inputs."""

    def __init__(self, name, path, graph, inputs, expect=None):
        self.name, self.path, self.graph_path, self.inputs, self.expect = name, path, graph, inputs, expect
        self.before, self.metadata = state_file.read(path)
        self.graph = state_graph.Graph(onnx.load(graph)) if graph else None

    def run(self, state, wide):
        raise NotImplementedError


class ModuleSubject(Subject):
    """Its code is at hand: PyTorch runs it."""

    def __init__(self, module, *args, **options):
        super().__init__(*args, **options)
        self.module = copy.deepcopy(module).double()
        for part in self.module.modules():
            if isinstance(part, state_fold.BATCH_NORM):
                part.eps = state_fold.eps_of(part)

    def eps(self):
        return {n: m.eps for n, m in self.module.named_modules() if isinstance(m, state_fold.BATCH_NORM)}

    def run(self, state, wide):
        module = state_fold.load(self.module, state)  # strict
        if wide:
            return state_fold.outputs(module, self.inputs)
        module = module.float()
        with torch.no_grad():
            result = module(*(x.float() for x in self.inputs.values()))
        return [y.double().numpy() for y in (result if isinstance(result, tuple) else (result,))]


class GraphSubject(Subject):
    """Only its graph is at hand: NumPy runs it in f64, ONNX Runtime in f32."""

    def eps(self):
        found = {}
        for node in self.graph.norms():
            value = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            found[node.input[3].removesuffix(".running_mean")] = float(np.float32(value))
        return found

    def run(self, state, wide):
        model = state_graph.with_state(self.graph, self.before, state, wide)
        if wide:
            return list(evaluate(model, self.inputs).values())
        return [np.asarray(y, np.float64) for y in run_onnxruntime(model, self.inputs).values()]


def golden(folder):
    """A folder of `state/`."""
    with np.load(folder / "io.npz") as io:
        inputs = {k.removeprefix("in__"): torch.from_numpy(io[k]) for k in io.files if k.startswith("in__")}
    graph = folder / "model.onnx"
    expect = json.loads((folder / "expect.json").read_text())
    net = NETS[folder.name]()
    subject = ModuleSubject(net.module, folder.name, folder / "model.safetensors", graph if graph.exists() else None, inputs, expect)
    subject.net = net
    return subject


def folders(root, wanted):
    """Every `X.safetensors` below `root` that has an `X.onnx`, if its name is wanted."""
    for path in sorted(root.rglob("*.safetensors")):
        graph = path.with_suffix(".onnx")
        io = next((p for p in (path.with_name(f"{path.stem}.io.npz"), path.with_name("io.npz")) if p.exists()), None)
        if not graph.exists() or io is None:
            continue
        name = path.parent.name if path.stem == "model" else path.stem
        if not wanted(name):
            continue
        with np.load(io) as arrays:
            inputs = {k.removeprefix("in__"): arrays[k] for k in arrays.files if k.startswith("in__")}
        if name in torch_models.LARGE:
            state, _ = state_file.read(path)
            module = torch_models.large(name, {k: state_file.to_torch(t) for k, t in state.items()})
            yield ModuleSubject(module, name, path, graph, {k: torch.from_numpy(v) for k, v in inputs.items()})
        else:
            yield GraphSubject(name, path, graph, inputs)


def architecture(name, folder):
    """Random weights, statistics that fit them, exported into `folder`."""
    package, side, options = ARCHITECTURES[name]
    torch.manual_seed(zlib.crc32(name.encode()))
    if package == "timm":
        import timm

        module = timm.create_model(name, pretrained=False)
    else:
        import torchvision

        module = getattr(torchvision.models, name)(weights=None, **options)
    module = settle(module, (3, side, side), 1)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    folder.mkdir(parents=True)
    state = {n: state_file.from_torch(t) for n, t in module.state_dict().items()}
    state_file.write(folder / "model.safetensors", state, {"format": "pt"})
    onnx.save(state_export.export(module, x), folder / "model.onnx")
    return ModuleSubject(module, name, folder / "model.safetensors", folder / "model.onnx", {state_export.INPUT: x})
