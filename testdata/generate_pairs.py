"""Makes `pairs/NAME.json`: which layer feeds which BatchNorm in real networks, to hold presets against.

    python testdata/generate_pairs.py                     # torchvision, timm, and the networks of gen/pairs_nets.py
    python testdata/generate_pairs.py --framework keras   # with keras installed; likewise flax
    python testdata/generate_pairs.py --survey DIR        # every BatchNorm network of torchvision and timm, into DIR

The truth is seen while the network runs: see gen/pairs_trace.py. No weights are downloaded.
"""
import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

# Every pair must be found.
TORCHVISION = """resnet18 resnet50 resnext50_32x4d wide_resnet50_2 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large vgg11_bn vgg16_bn
densenet121 regnet_x_400mf regnet_y_400mf efficientnet_b0 efficientnet_b5 efficientnet_v2_s googlenet inception_v3
shufflenet_v2_x1_0 mnasnet1_0""".split()
TIMM = """resnet26d seresnet50 repvgg_a0 mobileone_s0 efficientnet_b0 tf_efficientnet_b0 mobilenetv3_small_100 mobilenetv2_100 mobilenetv4_conv_small
regnety_004 densenet121 vgg11_bn inception_v4 dla34 darknet53""".split()
# No pair may be wrong; most are found or most are left.
TIMM_SOME = "dpn68 resnetv2_18d xception41 levit_conv_128s mixnet_s efficientnet_cc_b0_4e regnetv_040 fastvit_t8".split()


def shape_text(shape):
    return "x".join(map(str, shape)) if shape else "()"


def compact(tensors):
    """One line for a tensor, "NAME SHAPE"; "NAME @C" for the five of a BatchNorm that follow one another."""
    lines, at = [], 0
    leaves = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    while at < len(tensors):
        name, shape = tensors[at]
        module = name.rpartition(".")[0]
        if [n for n, _ in tensors[at:at + 5]] == [f"{module}.{leaf}" for leaf in leaves]:
            lines.append(f"{module} @{shape[0]}")
            at += 5
        else:
            lines.append(f"{name} {shape_text(shape)}")
            at += 1
    return lines


def write(folder, name, source, preset, find, made):
    values = set(made["eps"].values())
    golden = {
        "source": source,
        "preset": preset,
        "find": find,
        "eps": values.pop() if len(values) == 1 else made["eps"],
        "pairs": [f"{layer} {bn}" for layer, bn in made["pairs"]],
        "tensors": compact(made["tensors"]),
    }
    if made.get("transposed"):
        golden["transposed"] = made["transposed"]
    text = json.dumps(golden, indent=0, ensure_ascii=False) + "\n"
    (folder / f"{name}.json").write_text(text)
    print(f"{name}: {len(made['pairs'])} of {len(made['eps'])}, {len(text)} bytes", flush=True)


def torchvision_net(name):
    import torchvision

    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = 299 if name == "inception_v3" else 224
    return lambda: torchvision.models.get_model(name, weights=None, **more), (2, 3, size, size)


def timm_net(name):
    import timm

    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return lambda: timm.create_model(name, pretrained=False), (2, *(cfg.input_size if cfg else (3, 224, 224)))


def describe_torch(make, size):
    import torch
    from gen.pairs_trace import describe

    try:
        with torch.device("meta"):
            model = make()
    except (NotImplementedError, RuntimeError):
        model = make()  # its constructor looks at values
    return describe(model.to("meta"), torch.empty(size, device="meta"))


def torch_goldens(folder):
    import timm
    import torchvision
    from gen.pairs_nets import nets

    for name in TORCHVISION:
        made = describe_torch(*torchvision_net(name))
        write(folder, f"torchvision_{name}", f"torchvision {torchvision.__version__.split('+')[0]}", "torchvision", "all", made)
    for names, find in ((TIMM, "all"), (TIMM_SOME, "some")):
        for name in names:
            write(folder, f"timm_{name}", f"timm {timm.__version__}", "timm", find, describe_torch(*timm_net(name)))
    for name, (preset, find, make, size) in nets().items():
        write(folder, name, "gen/pairs_nets.py, only the names follow the library", preset, find, describe_torch(make, size))


def survey(folder):
    import timm
    import torchvision

    folder.mkdir(parents=True, exist_ok=True)
    todo = [("torchvision", name, torchvision_net) for name in torchvision.models.list_models(module=torchvision.models)]
    todo += [("timm", name, timm_net) for name in timm.list_models()]
    for library, name, net in todo:
        try:
            made = describe_torch(*net(name))
        except Exception as error:  # noqa: BLE001 (a survey goes on)
            print(f"{library} {name}: {error!r:.100}", flush=True)
            continue
        if made["eps"]:
            write(folder, f"{library}_{name}", library, None, "some", made)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=["torch", "keras", "flax"], default="torch")
    parser.add_argument("--survey", type=Path)
    options = parser.parse_args()
    folder = HERE / "pairs"
    folder.mkdir(exist_ok=True)
    if options.survey:
        survey(options.survey)
    elif options.framework == "torch":
        torch_goldens(folder)
    else:
        from gen import pairs_keras_flax

        for name, source, find, made in getattr(pairs_keras_flax, options.framework)():
            write(folder, name, source, options.framework, find, made)


if __name__ == "__main__":
    main()
