"""From PyTorch to ONNX with BatchNorm, and statistics back; PyTorch's own ``update_bn`` is the yardstick."""

import numpy as np
import pytest

import bnkit
import bnkit.torch

torch = pytest.importorskip("torch")


def net():
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)
    )


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_the_export_keeps_batch_norm_and_statistics_come_back(exporter):
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")
    module = net().train()
    model = bnkit.torch.export(module, torch.randn(1, 3, 12, 12), exporter=exporter)
    assert module.training and len(bnkit.stats(model)) == 2
    data = [torch.randn(16, 3, 12, 12) * 2 + 1 for _ in range(4)]
    result = bnkit.recalibrate(model, data, method="average", convention="torch")
    assert bnkit.torch.apply_stats(module, result) == 2
    other = net()
    torch.optim.swa_utils.update_bn(data, other)
    for ours, theirs in zip((module[1], module[4]), (other[1], other[4])):
        np.testing.assert_allclose(ours.running_mean, theirs.running_mean, rtol=0, atol=1e-5)
        np.testing.assert_allclose(ours.running_var, theirs.running_var, rtol=1e-5)


def test_a_module_that_does_not_fit_stays_as_it_is():
    model = bnkit.torch.export(net(), torch.randn(2, 3, 12, 12))
    wider = torch.nn.Sequential(*list(net())[:4], torch.nn.BatchNorm2d(7))
    wider[4].running_mean.fill_(3)
    wider[1].running_mean.fill_(5)
    with pytest.raises(bnkit.InputError, match="channels"):
        bnkit.torch.apply_stats(wider, model)
    assert wider[1].running_mean.eq(5).all()
