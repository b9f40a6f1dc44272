"""Print mean and deviation of each channel of each array: python testdata/channels.py FILE.npy|FILE.npz (needs NumPy only)."""

import sys

import numpy as np

loaded = np.load(sys.argv[1])
for name, x in {"": loaded}.items() if isinstance(loaded, np.ndarray) else loaded.items():
    axes = (0, *range(2, x.ndim))
    x = x.astype(np.float64)
    for what, values in (("mean", x.mean(axes)), ("std", x.std(axes)), ("var", x.var(axes))):
        print(f"{name:10} {what:4}", " ".join(f"{v + 0.0:9.4f}" for v in values.round(4)))
