"""A slim network costs, counted by its widths, what it costs once it is built."""

import random

import pytest
import torch
from torch import nn

from models.registry import build_model, example_images
from utils.metrics.cost import physical_cost
from utils.metrics.slim_cost import slim_cost
from utils.options.networks import outline
from utils.paper.hrankplus import LAYOUTS, slim_widths


def resize(model, widths):
    """Put layers of the given widths in the place of the model's own, in place."""
    for name, (inputs, outputs) in widths.items():
        old = model.get_submodule(name)
        if isinstance(old, nn.Conv2d):
            groups = inputs if old.groups > 1 else 1
            size = old.kernel_size, old.stride, old.padding
            new = nn.Conv2d(inputs, outputs, *size, groups=groups, bias=old.bias is not None)
        elif isinstance(old, nn.Linear):
            new = nn.Linear(inputs, outputs)
        else:
            new = type(old)(outputs)
        model.set_submodule(name, new)


def thop_macs(model, image):
    """Count each call of each conv, linear and norm by the numbers it gives out."""
    total = 0

    def count(module, args, out):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += out.numel() * (module.weight[0].numel() + (module.bias is not None))
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            total += 2 * out.numel()

    for module in model.modules():
        module.register_forward_hook(count)
    model.eval()(image)
    return total


@pytest.mark.parametrize(
    "arch",
    ["vgg_16_bn", "densenet_40", "googlenet", "resnet_50", "mobilenet_v1", "mobilenet_v2"],
)
def test_widths_cost_what_the_network_of_these_widths_costs(arch):
    draw = random.Random(arch)
    rates = [draw.choice([0.0, 0.2, 0.35, 0.6]) for _ in range(LAYOUTS[arch].num_rates)]
    widths = slim_widths(outline(arch), rates)
    with torch.device("meta"):
        model, image = build_model(arch), example_images(arch)
        found = slim_cost(model, image, widths)
        resize(model, widths)
        built = physical_cost(model, image)
        assert (found.macs, found.parameters) == (built.macs, built.parameters)
        assert found.thop_macs == thop_macs(model, image)


def test_a_hand_counts_the_same():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(72, 5))
    found = slim_cost(model, torch.zeros(1, 3, 5, 5), {"0": (3, 6), "1": (6, 6), "3": (54, 5)})
    assert found.macs == 9 * 6 * 27 + 54 * 5
    assert found.thop_macs == found.macs + 9 * 6 + 2 * 9 * 6
    assert found.parameters == (6 * 27 + 6) + 2 * 6 + (54 * 5 + 5)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"0": (3, 4)}, "expected those of the layers that run, got none for '1'"),
        ({"0": (3, 4), "1": (4, 4), "2": (4, 4)}, "layers that run, got some for '2'"),
    ],
)
def test_widths_name_the_layers_that_run(widths, message):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    with pytest.raises(ValueError, match=message):
        slim_cost(model, torch.zeros(1, 3, 4, 4), widths)
    assert not model[0]._forward_hooks
