"""Write the goldens of image preprocessing: `images/*.png`, and `images/golden.npz` with `images/cases.json` by Pillow and torchvision.

python testdata/generate_images.py

Each case is a description as in a configuration file, and is carried out here by torchvision on a Pillow image. A resize is done in
two calls, the width first: Pillow up to 12 does the same in one call, Pillow 13 begins with the height where that is less work, which
moves some values by a step (the script prints by how many at most). Large results are thinned out: `step` says that only every step-th
row and column is kept.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

HERE = Path(__file__).resolve().parent / "images"
MODES = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}
IMAGENET = {
    "resize": {"shorter": 256, "filter": "bilinear"},
    "crop": [224, 224],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
INCEPTION = {"resize": {"shorter": 342, "filter": "bilinear"}, "crop": [299, 299], "mean": [0.5] * 3, "std": [0.5] * 3}
TENSORFLOW = {"resize": {"exact": [224, 224], "filter": "bilinear"}, "scale": 1 / 127.5, "mean": [1.0] * 3, "layout": "nhwc"}
PRESETS = {"imagenet": IMAGENET, "inception": INCEPTION, "tensorflow": TENSORFLOW}

GAPS = {}


def picture(height, width, channels, seed):
    """Gradients, noise, and black and white blocks, at whose edges kernels overshoot."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height), 128 + 0 * x][:channels]
    values = np.stack(planes, 2) + rng.normal(0, 25, (height, width, channels))
    values[(x // 5 + y // 7) % 4 == 0] = 0
    values[(x // 5 + y // 7) % 4 == 2] = 255
    return Image.fromarray(values.clip(0, 255).astype(np.uint8).squeeze())


PICTURES = {
    "rgb": picture(37, 50, 3, 1),
    "tall": picture(61, 24, 3, 2),
    "grey": picture(33, 20, 1, 3),
    "alpha": picture(21, 30, 4, 4),
    "palette": picture(40, 31, 3, 5).quantize(32),
}

CASES = [
    # Longer sides that are no whole numbers, larger and smaller.
    *[("rgb", {"resize": {"shorter": n, "filter": f}}, 1) for n in (16, 23, 45) for f in MODES],
    *[("tall", {"resize": {"shorter": n, "filter": f}}, 1) for n in (11, 31) for f in MODES],
    *[("rgb", {"resize": {"exact": size, "filter": f}}, 1) for size in ([19, 50], [37, 13], [70, 9]) for f in MODES],
    # What is left beside the crop is odd: half of it is rounded to even.
    *[("rgb", {"crop": size}, 1) for size in ([36, 49], [35, 48], [34, 47], [33, 45], [32, 43], [37, 50])],
    ("tall", {"resize": {"shorter": 20, "filter": "bilinear"}, "crop": [17, 17]}, 1),
    # Colours.
    ("rgb", {"color": "bgr", "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}, 1),
    ("rgb", {"color": "grey", "mean": [0.4], "std": [0.2]}, 1),
    ("rgb", {"color": "grey", "resize": {"shorter": 16, "filter": "bilinear"}, "scale": 1.0}, 1),
    ("rgb", {"scale": 1.0, "mean": [103.53, 116.28, 123.675], "color": "bgr", "layout": "nhwc"}, 1),
    *[(name, {"resize": {"shorter": 14, "filter": "bilinear"}}, 1) for name in ("grey", "alpha", "palette")],
    ("grey", {"color": "grey"}, 1),
    *[(name, {"preset": preset}, 23) for name in ("rgb", "tall") for preset in PRESETS],
]


def carry_out(image, steps):
    """torchvision's functions in the documented order: resize, crop, colour, (x * scale - mean) / std, layout."""
    steps = PRESETS[steps["preset"]] if "preset" in steps else steps
    image = image.convert("RGB")
    if resize := steps.get("resize"):
        size = resize.get("exact") or resize["shorter"]
        mode = InterpolationMode[MODES[resize["filter"]]]
        at_once = F.resize(image, size, mode)
        image = F.resize(image, [image.height, at_once.width], mode)
        image = F.resize(image, [at_once.height, at_once.width], mode)
        gap = np.abs(np.asarray(image, np.int32) - np.asarray(at_once, np.int32))
        GAPS[resize["filter"]] = max(GAPS.get(resize["filter"], 0), int(gap.max()))
    if crop := steps.get("crop"):
        image = F.center_crop(image, crop)
    color = steps.get("color", "rgb")
    if color == "grey":
        image = F.to_grayscale(image)
    x = F.pil_to_tensor(image)
    if color == "bgr":
        x = x.flip(0)
    scale = steps.get("scale")
    x = F.convert_image_dtype(x, torch.float32) if scale is None else x.to(torch.float64).mul(scale).float()
    channels = len(x)
    x = F.normalize(x, steps.get("mean", [0.0] * channels), steps.get("std", [1.0] * channels))
    return (x.permute(1, 2, 0) if steps.get("layout") == "nhwc" else x).numpy()


def main():
    HERE.mkdir(exist_ok=True)
    for name, image in PICTURES.items():
        image.save(HERE / f"{name}.png", optimize=True)
    cases, arrays = [], {}
    for number, (name, steps, step) in enumerate(CASES):
        values = carry_out(Image.open(HERE / f"{name}.png"), steps)
        cases.append({"image": name, "steps": steps, "dims": list(values.shape), "step": step})
        nhwc = values.shape[-1] <= 3
        thin = values[::step, ::step] if nhwc else values[:, ::step, ::step]
        arrays[f"{number:02}"] = np.ascontiguousarray(thin)
    (HERE / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    np.savez_compressed(HERE / "golden.npz", **arrays)
    size = (HERE / "golden.npz").stat().st_size
    print(f"{len(cases)} cases, {size} bytes; one call or two, in steps: {GAPS}")
    assert size < 256 * 1024, size


if __name__ == "__main__":
    main()
