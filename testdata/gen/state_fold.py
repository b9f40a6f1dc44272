"""What folding a state dict must give: NumPy in f64, every tensor rounded once to the type it is stored in. And PyTorch's word on it.

With s = γ/√(σ²+ε) and t = β − μ·s, ε the float32 of the graph: W' = W·s per output channel and b' = b·s + t (b = 0 where there is none).
`--identity-bn` leaves the BatchNorm in place as an identity that adds: W' = W·s, b' = 0, γ' = √(1+ε), β' = b·s + t, μ' = 0, σ'² = 1. Without
γ, σ'² = 1 − ε; without β, μ' = −(b·s + t). Behind two layers that need two shifts, these stay in the layers' biases, and β' = 0.
"""

import copy

import numpy as np
import torch
from torch import nn

from .state_file import DIGITS, Tensor, stored, to_torch

BATCH_NORM = nn.modules.batchnorm._BatchNorm
TRANSPOSED = nn.modules.conv._ConvTransposeNd
CONV = nn.modules.conv._ConvNd
PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def eps_of(norm):
    return float(np.float32(norm.eps))


def affine(state, name, eps):
    """(s, t) of a BatchNorm; without γ and β they are 1 and 0."""
    mean, variance = state[f"{name}.running_mean"].wide(), state[f"{name}.running_var"].wide()
    gamma = state[f"{name}.weight"].wide() if f"{name}.weight" in state else 1.0
    beta = state[f"{name}.bias"].wide() if f"{name}.bias" in state else 0.0
    s = gamma / np.sqrt(variance + eps)
    return s, beta - mean * s


def scaled(weight, s, layer):
    """W·s with s along the output channels."""
    if isinstance(layer, TRANSPOSED):
        cin, per_group = weight.shape[:2]
        i, j = np.indices((cin, per_group))
        factors = s[i // (cin // layer.groups) * per_group + j]
        return weight * factors.reshape(factors.shape + (1,) * (weight.ndim - 2))
    return weight * s.reshape((-1,) + (1,) * (weight.ndim - 1))


def fold(state, module, folds, identity, epsilon=None):
    """The tensors that change or are new, in f64; and the names of those that go. `epsilon` replaces the graph's.

    A state dict holds a module's tensors once: two layers before one BatchNorm both take its affine.
    """
    values, gone, shifts = {}, set(), {}
    for layer, norm in folds:
        part, eps = module.get_submodule(layer), epsilon or eps_of(module.get_submodule(norm))
        s, t = affine(state, norm, eps)
        weight, bias = f"{layer}.weight", f"{layer}.bias"
        assert weight not in values, f"{layer} is folded twice"
        values[weight] = scaled(state[weight].wide(), s, part)
        shift = (state[bias].wide() if bias in state else 0.0) * s + t
        if not identity:
            values[bias] = shift
            gone.update(f"{norm}.{k}" for k in PARTS if f"{norm}.{k}" in state)
            continue
        shifts.setdefault(norm, []).append((bias, shift))
    for norm, of_layers in shifts.items():
        eps = epsilon or eps_of(module.get_submodule(norm))
        shift = of_layers[0][1]
        agree = all(np.array_equal(other, shift) for _, other in of_layers)
        assert agree or all(bias in state for bias, _ in of_layers), f"{norm} would need two shifts"
        for bias, own in of_layers:
            if bias in state:
                values[bias] = np.zeros_like(shift) if agree else own
        shift = shift if agree else np.zeros_like(shift)
        scaled_, added = f"{norm}.weight" in state, f"{norm}.bias" in state
        if scaled_:
            values[f"{norm}.weight"] = np.full_like(shift, np.sqrt(1.0 + eps))
        if added:
            values[f"{norm}.bias"] = shift
        values[f"{norm}.running_mean"] = np.zeros_like(shift) if added else -shift
        values[f"{norm}.running_var"] = np.full_like(shift, 1.0 if scaled_ else 1.0 - eps)
    return values, gone


def assemble(state, values, gone, exact=False):
    """The folded state dict: the input's order, a new bias directly behind its weight. `exact`: in f64 instead of the stored types."""

    def put(name, dtype):
        result[name] = stored(values[name], "F64" if exact else dtype)

    result = {}
    for name, tensor in state.items():
        if name in gone:
            continue
        if name in values:
            put(name, tensor.dtype)
        else:
            result[name] = Tensor(tensor.dtype, tensor.shape, tensor.data)
        bias = name.removesuffix("weight") + "bias"
        if name.endswith(".weight") and bias in values and bias not in state:
            put(bias, tensor.dtype)
    return result


def load(module, state):
    """A copy of `module` in f64 with these tensors: a BatchNorm without tensors becomes an identity, a layer with a new bias gets one."""
    module = copy.deepcopy(module).double()
    modules = list(module.named_modules())
    for name, part in modules:
        if isinstance(part, BATCH_NORM) and part.running_mean is not None and f"{name}.running_mean" not in state:
            module.set_submodule(name, nn.Identity())
        elif isinstance(part, (CONV, nn.Linear)) and part.bias is None and f"{name}.bias" in state:
            part.bias = nn.Parameter(torch.zeros(state[f"{name}.bias"].shape, dtype=torch.float64))
    module.load_state_dict({name: to_torch(tensor) for name, tensor in state.items()}, strict=True)
    return module.eval()


def outputs(module, inputs):
    """What a module computes in f64."""
    with torch.no_grad():
        result = module.eval()(*(x.double() for x in inputs.values()))
    return [y.numpy() for y in (result if isinstance(result, tuple) else (result,))]


def gap(found, expected):
    """The largest difference, relative to the largest value."""
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True))


def golden(module, state, inputs, folds, identity):
    """The folded tensors, after PyTorch has confirmed them: without rounding to 1e-11, as stored to what rounding explains."""
    wide = copy.deepcopy(module).double()
    for part in wide.modules():
        if isinstance(part, BATCH_NORM):
            part.eps = eps_of(part)  # the graph's
    expected = outputs(load(wide, state), inputs)
    values, gone = fold(state, module, folds, identity)
    logic = gap(outputs(load(wide, assemble(state, values, gone, exact=True)), inputs), expected)
    result = assemble(state, values, gone)
    rounding = gap(outputs(load(wide, result), inputs), expected)
    coarsest = min(DIGITS.get(t.dtype, 53) for t in state.values())
    assert logic < 1e-11, f"the fold changes the outputs by {logic:.1e}"
    assert rounding < 16 * 2.0**-coarsest, f"rounding changes the outputs by {rounding:.1e}"
    return result, rounding
