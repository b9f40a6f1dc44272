"""What PyTorch's BatchNorms see in train mode: inputs from a formula, statistics by every method, the error of f32.

The network runs in f64, Dropout and StochasticDepth off, every BatchNorm normalising with its batch.

| method | how it is computed here |
| --- | --- |
| precise | mean and population variance of everything that entered the module, by the law of total variance; for the first channels the whole input is kept, and NumPy's mean and var of it must agree |
| average | PyTorch's own `running_mean`, `running_var` with momentum None, from reset: unbiased variances |
| ema | PyTorch's own with momentum 0.1, from the stored values: unbiased variances |
| first | mean and population variance of what entered in the first batch |
"""

import copy

import numpy as np
import torch
from torch import nn

NORM = nn.modules.batchnorm._BatchNorm
MASK = np.uint64(0xFFFFFFFF)


def mix(x):
    """A hash of 32 bits: multiplications and shifts that every language has."""
    x = x.astype(np.uint64)
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & MASK
    return x ^ (x >> np.uint64(15))


def inputs(dims, samples, seed):
    """Samples whose every value is a sum of three multiples of 2**-19, so that no rounding is involved.

    With e the number of the element in its sample and k = sample * 2**20: noise in [-0.5, 0.5) from hash(seed + k + e); coarse, in
    [-1, 1), the same for 16 elements in a row, from hash(seed + 2**31 + k + e // 16); an offset of the sample, in eighths.
    """
    size = int(np.prod(dims))
    assert size < 2**20, dims
    values = np.empty((samples, size), np.float32)
    e = np.arange(size, dtype=np.uint64)
    for sample in range(samples):
        start = np.uint64(seed + (sample << 20))
        noise = mix((start + e) & MASK) >> np.uint64(12)
        coarse = mix((start + np.uint64(1 << 31) + e // np.uint64(16)) & MASK) >> np.uint64(26)
        exact = noise / 2.0**20 - 0.5 + coarse / 32.0 - 1.0 + ((sample * 5) % 7 - 3) / 8.0
        values[sample] = exact
        assert (values[sample] == exact).all()
    return values.reshape(samples, *dims)


def train_mode(model):
    """Train mode, whatever drops out at random off."""
    model.train()
    for module in model.modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd,)) or type(module).__name__ in ("StochasticDepth", "DropPath"):
            module.eval()
    return model


class Watch:
    """Collects what enters each BatchNorm."""

    def __init__(self, model, channels):
        self.channels, self.batch = channels, 0
        self.seen = {}  # module -> [(batch, n, mean, population variance, first channels)]
        for name, module in model.named_modules():
            if isinstance(module, NORM):
                module.register_forward_pre_hook(lambda m, args, name=name: self.see(name, args[0].detach()))

    def see(self, name, x):
        axes = [0, *range(2, x.ndim)]
        mean, var = x.mean(axes), x.var(axes, unbiased=False)
        kept = x[:, : self.channels].transpose(0, 1).flatten(1)
        entry = (self.batch, x.numel() // x.shape[1], mean.numpy(), var.numpy(), kept.clone().numpy())
        self.seen.setdefault(name, []).append(entry)


def forward(model, data, batches, dtype):
    start = 0
    with torch.no_grad():
        for number, size in enumerate(batches):
            yield number, model(torch.from_numpy(data[start : start + size]).to(dtype))
            start += size


def run(model, data, batches, dtype, momentum, channels):
    """A pass in train mode; the model afterwards and what was seen."""
    model = train_mode(copy.deepcopy(model).to(dtype))
    watch = Watch(model, channels)
    for module in model.modules():
        if isinstance(module, NORM):
            module.momentum = momentum
            if momentum is None:
                module.reset_running_stats()
    for number, _ in forward(model, data, batches, dtype):
        watch.batch = number + 1
    return model, watch.seen


def pooled(calls):
    """Mean and population variance over all calls, and their number of elements."""
    n = np.array([c[1] for c in calls], np.float64)
    mean = sum(k * c[2] for k, c in zip(n, calls)) / n.sum()
    var = sum(k * (c[3] + (c[2] - mean) ** 2) for k, c in zip(n, calls)) / n.sum()
    all_of = np.concatenate([c[4] for c in calls], axis=1)
    first = len(all_of)
    if all_of.dtype == np.float64:
        np.testing.assert_allclose(mean[:first], all_of.mean(1), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(var[:first], all_of.var(1), rtol=1e-9, atol=1e-15)
    return mean, var


def statistics(model, data, batches, dtype, channels):
    """{module: {method: (mean, variance)}} in f64, and what was seen."""
    averaged, seen = run(model, data, batches, dtype, None, channels)
    moved, _ = run(model, data, batches, dtype, 0.1, 0)
    result = {}
    for name, calls in seen.items():
        methods = {"precise": pooled(calls), "first": pooled([c for c in calls if c[0] == 0])}
        for method, source in (("average", averaged), ("ema", moved)):
            module = source.get_submodule(name)
            methods[method] = (module.running_mean.numpy(), module.running_var.numpy())
        result[name] = {k: tuple(np.asarray(v, np.float64) for v in pair) for k, pair in methods.items()}
    return result, seen


def short(values):
    """12 digits: far more than f32 has."""
    return [float(f"{v:.12g}") for v in np.atleast_1d(values)]


def distance(found, expected, eps):
    """Largest |difference of means| / sqrt(var + eps), and |difference of variances| / (var + eps)."""
    width = expected[1] + eps
    return np.max(np.abs(found[0] - expected[0]) / np.sqrt(width)), np.max(np.abs(found[1] - expected[1]) / width)


def golden(model, dims, batches, seed, channels, rename=lambda name: name):
    """The golden of one network, as plain values: full vectors of the first `channels`, norms of all."""
    data = inputs(dims, sum(batches), seed)
    torch.use_deterministic_algorithms(True)
    exact, seen = statistics(model, data, batches, torch.float64, channels)
    rough, _ = statistics(model, data, batches, torch.float32, channels)
    noise, layers, never = [0.0, 0.0], [], []
    for name, module in model.named_modules():
        if not isinstance(module, NORM):
            continue
        if name not in exact:
            never.append(rename(name))
            continue
        layer = {"name": rename(name), "channels": module.num_features, "elements": sum(c[1] for c in seen[name])}
        layer["stored"] = [short(v[:channels].numpy()) for v in (module.running_mean, module.running_var)]
        for method, (mean, var) in exact[name].items():
            gap = distance(rough[name][method], (mean, var), module.eps)
            noise = [max(a, float(b)) for a, b in zip(noise, gap)]
            norms = short([np.linalg.norm(mean), np.linalg.norm(var)])
            layer[method] = {"mean": short(mean[:channels]), "var": short(var[:channels]), "norms": norms}
        layers.append(layer)
    return {
        "input": list(dims),
        "batches": list(batches),
        "seed": seed,
        "probe": short(data.reshape(-1)[[0, 1, 17, -1]]),
        "noise": [float(f"{v:.2g}") for v in noise],
        "layers": layers,
        "never_ran": never,
        "versions": {"torch": torch.__version__.split("+")[0]},
    }
