"""A sparse layer computes what the dense one with zeros in it computes."""

import pytest
import torch
from torch import nn

from models.registry import build_model
from utils.metrics.sparse_layers import sparse_layer, sparse_layers, with_layers
from utils.pruning.magnitude import WeightMasks, magnitude_mask, prunable_weights


def with_zeros(module: nn.Module, sparsity: float) -> nn.Module:
    with torch.no_grad():
        module.weight.mul_(magnitude_mask(module.weight, sparsity))
    return module.double().eval()


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 1, "bias": False},
        {"kernel_size": 3, "stride": 2, "bias": False},
        {"kernel_size": (3, 5), "padding": (0, 2), "stride": (2, 1), "dilation": (1, 2)},
    ],
)
@pytest.mark.parametrize("sparsity", [0.1, 0.9])
def test_a_sparse_conv_computes_what_the_dense_one_computes(options, sparsity):
    conv = with_zeros(nn.Conv2d(5, 7, **options), sparsity)
    images = torch.randn(3, 5, 11, 13, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(sparse_layer(conv)(images), conv(images))


@pytest.mark.parametrize("bias", [True, False])
def test_a_sparse_linear_computes_what_the_dense_one_computes(bias):
    linear = with_zeros(nn.Linear(12, 5, bias), 0.8)
    features = torch.randn(4, 12, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(sparse_layer(linear)(features), linear(features))


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(3, 3),  # without zeros
        nn.BatchNorm2d(3),
        with_zeros(nn.Conv2d(4, 4, 3, groups=2), 0.5),
        with_zeros(nn.Conv2d(4, 4, 3, padding="same"), 0.5),
        with_zeros(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), 0.5),
    ],
)
def test_other_modules_stay_as_they_are(module):
    assert sparse_layer(module) is None


def test_a_sparse_network_computes_what_the_dense_one_with_zeros_computes():
    model = build_model("resnet_8").double().eval()
    masks = {layer: magnitude_mask(w, 0.9) for layer, w in prunable_weights(model).items()}
    WeightMasks(model, masks).apply()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(images)
        found = sparse_layers(model)
        assert found.keys() == masks.keys()
        for layers in ({name: found[name] for name in ("layer1.0.conv1", "linear")}, found):
            sparse = with_layers(model, layers)
            torch.testing.assert_close(sparse(images), expected)
            kinds = {name: type(m).__name__ for name, m in sparse.named_modules()}
            assert sum(kind.startswith("Sparse") for kind in kinds.values()) == len(layers)
    assert isinstance(model.linear, nn.Linear)
