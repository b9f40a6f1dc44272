"""The networks of keras.applications, and a small flax network with the names of flax' ImageNet example."""
import os


def keras():
    """Pairs from the graph of layers: a BatchNormalization whose only input is a layer that nobody else reads."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras as k

    applications = {
        "ResNet50": "all", "MobileNet": "all", "MobileNetV2": "all", "MobileNetV3Small": "all", "EfficientNetB0": "all",
        "EfficientNetV2B0": "all", "DenseNet121": "all", "ResNet50V2": "all", "Xception": "some", "InceptionV3": "some",
    }
    kinds = (k.layers.Conv2D, k.layers.DepthwiseConv2D, k.layers.SeparableConv2D, k.layers.Dense)
    for name, find in applications.items():
        model = getattr(k.applications, name)(weights=None)
        pairs, eps = [], {}
        for layer in model.layers:
            if not isinstance(layer, k.layers.BatchNormalization):
                continue
            eps[layer.name] = layer.epsilon
            (node,) = layer._inbound_nodes
            (before,) = [node.operation for node in node.parent_nodes]
            readers = [node for node in before._outbound_nodes if node.operation in model.layers]
            linear = not isinstance(before, k.layers.InputLayer) and isinstance(before, kinds)
            if linear and len(readers) == 1 and before.activation is k.activations.linear:
                pairs.append((before.name, layer.name))
        tensors = [(f"{w.path}:0" if name == "MobileNet" else w.path, list(w.shape)) for w in model.weights]
        yield f"keras_{name}", f"keras {k.__version__}, keras.applications.{name}", find, {
            "tensors": tensors, "pairs": pairs, "eps": eps}


def flax():
    """Pairs by the identity of what modules return and are given; that nobody else reads it is plain in the code below."""
    import flax as library
    from flax import linen as nn
    import jax
    import jax.numpy as jnp

    def norm(**more):
        return nn.BatchNorm(use_running_average=False, epsilon=1e-5, **more)

    class ResNetBlock(nn.Module):
        filters: int
        stride: int = 1

        @nn.compact
        def __call__(self, x):
            y = nn.Conv(self.filters, (3, 3), (self.stride,) * 2, use_bias=False)(x)
            y = nn.relu(norm()(y))
            y = norm()(nn.Conv(self.filters, (3, 3), use_bias=False)(y))
            if x.shape != y.shape:
                x = nn.Conv(self.filters, (1, 1), (self.stride,) * 2, use_bias=False, name="conv_proj")(x)
                x = norm(name="norm_proj")(x)
            return nn.relu(x + y)

    class BottleneckResNetBlock(nn.Module):
        filters: int
        stride: int = 1

        @nn.compact
        def __call__(self, x):
            y = nn.relu(norm()(nn.Conv(self.filters, (1, 1), use_bias=False)(x)))
            y = nn.relu(norm()(nn.Conv(self.filters, (3, 3), (self.stride,) * 2, use_bias=False)(y)))
            y = norm()(nn.Conv(4 * self.filters, (1, 1), use_bias=False)(y))
            if x.shape != y.shape:
                x = nn.Conv(4 * self.filters, (1, 1), (self.stride,) * 2, use_bias=False, name="conv_proj")(x)
                x = norm(name="norm_proj")(x)
            return nn.relu(x + y)

    class PreActBlock(nn.Module):
        filters: int

        @nn.compact
        def __call__(self, x):
            y = nn.Conv(self.filters, (3, 3), use_bias=False)(nn.relu(norm()(x)))
            return x + nn.Conv(self.filters, (3, 3), use_bias=False)(nn.relu(norm()(y)))

    class Net(nn.Module):
        block: type

        @nn.compact
        def __call__(self, x):
            x = nn.Conv(16, (7, 7), (2, 2), use_bias=False, name="conv_init")(x)
            x = nn.relu(norm(name="bn_init")(x))
            for filters, stride in ((16, 1), (16, 1), (32, 2), (32, 1)):
                x = (PreActBlock(16) if self.block is PreActBlock else self.block(filters, stride))(x)
            return nn.Dense(10)(jnp.mean(x, (1, 2)))

    for name, block, find in (("resnet", ResNetBlock, "all"), ("bottleneck", BottleneckResNetBlock, "all"),
                              ("preact", PreActBlock, "some")):
        made, pairs, eps, alive = {}, [], {}, []

        def watch(run, args, kwargs, context):
            module = context.module
            if context.method_name != "__call__":
                return run(*args, **kwargs)
            path = "/".join(module.path)
            if isinstance(module, nn.BatchNorm):
                eps[path] = module.epsilon
                if id(args[0]) in made:
                    pairs.append((made[id(args[0])], path))
            out = run(*args, **kwargs)
            alive.extend([args, out])
            if isinstance(module, (nn.Conv, nn.Dense)):
                made[id(out)] = path
            return out

        with nn.intercept_methods(watch):
            variables = jax.eval_shape(Net(block).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        flat = library.traverse_util.flatten_dict(variables, sep="/" if name != "bottleneck" else ".")
        if name == "bottleneck":
            pairs = [tuple(path.replace("/", ".") for path in pair) for pair in pairs]
            eps = {path.replace("/", "."): value for path, value in eps.items()}
        yield f"flax_{name}", f"flax {library.__version__}, names of its ImageNet example", find, {
            "tensors": [(key, list(x.shape)) for key, x in flat.items()], "pairs": pairs, "eps": eps}
