"""Two small trained-looking networks, named like PyTorch exports, with running statistics that fit their data."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .oracle import Interpreter, run_onnxruntime

CLASSES = 10


def images(rng, count):
    """Smooth random images with noise, [N,3,32,32], roughly zero mean and unit variance."""
    coarse = rng.standard_normal((count, 3, 8, 8))
    smooth = coarse.repeat(4, 2).repeat(4, 3)
    for axis in (2, 3):
        smooth = (np.roll(smooth, 1, axis) + smooth + np.roll(smooth, -1, axis)) / 3
    return (smooth + 0.3 * rng.standard_normal(smooth.shape)).astype(np.float32)


class Exporter:
    """Writes nodes and initializers the way torch.onnx.export names them."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.initializers = [], []

    def parameter(self, name, values):
        self.initializers.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def node(self, op_type, inputs, path, output=None, **attrs):
        name = f"{path}/{op_type}"
        output = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, **attrs))
        return output

    def conv(self, x, cin, cout, kernel, path, module, stride=1, group=1):
        fan = cin // group * kernel * kernel
        weight = self.rng.standard_normal((cout, cin // group, kernel, kernel)) * np.sqrt(2 / fan)
        attrs = {
            "dilations": [1, 1],
            "group": group,
            "kernel_shape": [kernel] * 2,
            "pads": [kernel // 2] * 4,
            "strides": [stride] * 2,
        }
        return self.node("Conv", [x, self.parameter(f"{module}.weight", weight)], path, **attrs)

    def batch_norm(self, x, channels, path, module):
        rng = self.rng
        values = {
            "weight": rng.uniform(0.5, 1.5, channels),
            "bias": rng.standard_normal(channels) * 0.2,
            "running_mean": np.zeros(channels),
            "running_var": np.ones(channels),
        }
        inputs = [x] + [self.parameter(f"{module}.{k}", v) for k, v in values.items()]
        return self.node("BatchNormalization", inputs, path, epsilon=1e-5, momentum=0.9, training_mode=0)

    def head(self, x, features, path, module):
        """Global pool, Flatten, Gemm."""
        x = self.node("GlobalAveragePool", [x], "/avgpool")
        x = self.node("Flatten", [x], "", axis=1)
        weight = self.parameter(f"{module}.weight", self.rng.standard_normal((CLASSES, features)) / np.sqrt(features))
        bias = self.parameter(f"{module}.bias", self.rng.standard_normal(CLASSES) * 0.1)
        self.node("Gemm", [x, weight, bias], path, "logits", alpha=1.0, beta=1.0, transB=1)

    def model(self, name):
        inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 32, 32])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="bnkit-testdata")
        model.ir_version = 8
        return model


def settle_statistics(model, data):
    """Set each running mean and variance to what `data` gives when upstream layers normalise with their batch."""
    store = {t.name: t for t in model.graph.initializer}

    def observe(node, x):
        axes = (0, *range(2, x.ndim))
        moments = x.mean(axes), x.var(axes)
        for name, value in zip(node.input[3:5], moments):
            store[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
        return moments

    Interpreter(model, observe=observe).run({"input": data})


def resnet():
    """A stem and three residual blocks, 9 BatchNorms."""
    e = Exporter(1)

    def unit(x, cin, cout, stage, stride):
        path, module = f"/layer{stage}/0", f"layer{stage}.0"
        y = e.conv(x, cin, cout, 3, f"{path}/conv1", f"{module}.conv1", stride)
        y = e.batch_norm(y, cout, f"{path}/bn1", f"{module}.bn1")
        y = e.node("Relu", [y], f"{path}/relu")
        y = e.conv(y, cout, cout, 3, f"{path}/conv2", f"{module}.conv2")
        y = e.batch_norm(y, cout, f"{path}/bn2", f"{module}.bn2")
        if cin != cout:
            x = e.conv(x, cin, cout, 1, f"{path}/downsample/downsample.0", f"{module}.downsample.0", stride)
            x = e.batch_norm(x, cout, f"{path}/downsample/downsample.1", f"{module}.downsample.1")
        y = e.node("Add", [y, x], path)
        return e.node("Relu", [y], f"{path}/relu_1")

    x = e.conv("input", 3, 8, 3, "/conv1", "conv1")
    x = e.node("Relu", [e.batch_norm(x, 8, "/bn1", "bn1")], "/relu")
    x = unit(x, 8, 8, 1, 1)
    x = unit(x, 8, 16, 2, 2)
    x = unit(x, 16, 32, 3, 2)
    e.head(x, 32, "/fc", "fc")
    return e.model("tiny_resnet")


def mobilenet():
    """Inverted residuals with depthwise Convs and relu6, 10 BatchNorms."""
    e = Exporter(2)

    def relu6(x, path):
        limits = []
        for i, value in enumerate((0.0, 6.0)):
            suffix = f"_{i}" if i else ""
            limits.append(f"{path}/Constant{suffix}_output_0")
            tensor = numpy_helper.from_array(np.float32(value))
            e.nodes.append(helper.make_node("Constant", [], [limits[-1]], f"{path}/Constant{suffix}", value=tensor))
        return e.node("Clip", [x, *limits], path)

    def conv_bn(x, cin, cout, kernel, path, module, stride=1, group=1):
        x = e.conv(x, cin, cout, kernel, f"{path}.0", f"{module}.0", stride, group)
        x = e.batch_norm(x, cout, f"{path}.1", f"{module}.1")
        return relu6(x, f"{path}.2")

    def block(x, cin, cout, index, expand, stride):
        path, module, skip = f"/features/features.{index}/conv", f"features.{index}.conv", x
        inner, step = cin * expand, 0
        if expand != 1:
            x = conv_bn(x, cin, inner, 1, f"{path}/conv.0/conv.0", f"{module}.0")
            step = 1
        x = conv_bn(x, inner, inner, 3, f"{path}/conv.{step}/conv.{step}", f"{module}.{step}", stride, inner)
        x = e.conv(x, inner, cout, 1, f"{path}/conv.{step + 1}", f"{module}.{step + 1}")
        x = e.batch_norm(x, cout, f"{path}/conv.{step + 2}", f"{module}.{step + 2}")
        return e.node("Add", [skip, x], f"/features/features.{index}") if stride == 1 and cin == cout else x

    def stage(x, cin, cout, kernel, index, stride=1):
        return conv_bn(x, cin, cout, kernel, f"/features/features.{index}/features.{index}", f"features.{index}", stride)

    x = stage("input", 3, 8, 3, 0, 2)
    x = block(x, 8, 8, 1, 1, 1)
    x = block(x, 8, 12, 2, 3, 2)
    x = block(x, 12, 12, 3, 3, 1)
    x = stage(x, 12, 32, 1, 4)
    e.head(x, 32, "/classifier/classifier.1", "classifier.1")
    return e.model("tiny_mobilenet")


def write(folder):
    """Both models, an npz for each, and calibration images from the distribution of the statistics."""
    folder.mkdir(exist_ok=True)
    data = images(np.random.default_rng(3), 128)
    for make in (resnet, mobilenet):
        model = make()
        settle_statistics(model, data)
        onnx.checker.check_model(model, full_check=True)
        path = folder / f"{model.graph.name}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        feeds = {"input": images(np.random.default_rng(4), 4)}
        outputs = run_onnxruntime(model, feeds)
        exact = Interpreter(model).run(feeds)
        gap = max(float(np.abs(outputs[k] - exact[k]).max()) for k in exact)
        assert gap < 1e-4, gap
        np.savez(folder / f"{model.graph.name}.npz", in__input=feeds["input"], out__logits=outputs["logits"])
    np.savez(folder / "calibration.npz", input=images(np.random.default_rng(5), 16))
