"""Which layer feeds which BatchNorm, seen while a PyTorch network runs (on the meta device: no numbers are computed).

A pair is true if every input of the BatchNorm is an output of the one layer, and every output of the layer is read by one
operator, that BatchNorm's. Networks run in eval and in train mode: auxiliary heads run only in the latter.
"""
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


class Readers(TorchDispatchMode):
    """Counts the operators that read each tensor; keeps all tensors alive, so that ids stay unique."""

    def __init__(self):
        super().__init__()
        self.count, self.alive = {}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        for x in {id(x) for x in read}:
            self.count[x] = self.count.get(x, 0) + 1
        self.alive += read + [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        return out


def is_batch_norm(module):
    return isinstance(module, _BatchNorm) and module.track_running_stats


def run_once(model, inputs):
    """The pairs {BatchNorm: layer} of one run, and the BatchNorms that ran."""
    readers, made, outputs, inputs_of, hooks = Readers(), {}, {}, {}, []

    def before(name):
        def hook(module, args):
            readers.alive.append(args[0])
            inputs_of.setdefault(name, []).append(id(args[0]))
        return hook

    def after(name):
        def hook(module, args, out):
            readers.alive.append(out)
            # A linear layer of another rank has its features on another axis than a BatchNorm.
            plain = not isinstance(module, nn.Linear) or out.dim() == 2
            made[id(out)] = (name if plain else None, readers.count.get(id(out), 0))
            outputs.setdefault(name, []).append(id(out))
        return hook

    for name, module in model.named_modules():
        if is_batch_norm(module):
            hooks.append(module.register_forward_pre_hook(before(name)))
        elif isinstance(module, LAYERS):
            hooks.append(module.register_forward_hook(after(name)))
    with readers, torch.no_grad():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    pairs = {}
    for bn, read in inputs_of.items():
        layers = {made.get(x, (None, 0))[0] for x in read}
        layer = layers.pop()
        once = all(readers.count.get(x, 0) - made[x][1] == 1 for x in outputs.get(layer, []))
        if layer and not layers and once and set(outputs[layer]) == set(read):
            pairs[bn] = layer
    return pairs, set(inputs_of)


def trace(model, *inputs):
    """The true pairs {BatchNorm: layer}; a BatchNorm that is fed differently in the two modes has none."""
    pairs, ran, differ = {}, set(), set()
    for train in (False, True):
        now, seen = run_once(model.train(train), inputs)
        differ |= {bn for bn in seen & ran if pairs.get(bn) != now.get(bn)}
        pairs, ran = pairs | now, ran | seen
    return {bn: layer for bn, layer in pairs.items() if bn not in differ}


def describe(model, *inputs):
    """What a golden file says: tensors, pairs, epsilon by BatchNorm."""
    pairs = trace(model, *inputs)
    return {
        "tensors": [(name, list(x.shape)) for name, x in model.state_dict().items()],
        "pairs": [(pairs[name], name) for name, m in model.named_modules() if name in pairs],
        "transposed": [pairs[name] for name, m in model.named_modules()
                       if name in pairs and "Transpose" in type(model.get_submodule(pairs[name])).__name__],
        "eps": {name: m.eps for name, m in model.named_modules() if is_batch_norm(m)},
    }
