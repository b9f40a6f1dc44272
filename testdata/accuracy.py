"""Print the share of right answers: python testdata/accuracy.py OUTPUTS.npz LABELS.npy (of `bnkit run -o`; needs NumPy only)."""

import sys

import numpy as np

labels = np.load(sys.argv[2])
for name, logits in np.load(sys.argv[1]).items():
    print(f"{name}: {(logits.argmax(1) == labels).mean():.5f}")
