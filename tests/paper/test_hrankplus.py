"""HRankPlus's widths: dense at rates of zero, its products to the last bit, bad rates refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from models.registry import build_model
from tests.reference import HRANKPLUS_RATES, needs_reference, reference
from utils.options.networks import outline
from utils.paper.hrankplus import LAYOUTS, fit_rates, slim_widths

IGNORE_THE_FIRST = ("densenet_40", "googlenet", "mobilenet_v1", "mobilenet_v2")


def dense_widths(arch):
    """Return {layer: (inputs, outputs)} read off the network itself."""
    with torch.device("meta"):
        model = build_model(arch)
    widths = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            widths[name] = (module.in_channels, module.out_channels)
        elif isinstance(module, nn.Linear):
            widths[name] = (module.in_features, module.out_features)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            widths[name] = (module.num_features, module.num_features)
    return widths


def test_the_number_of_rates_is_the_official_one():
    assert {arch: LAYOUTS[arch].num_rates for arch in LAYOUTS} == HRANKPLUS_RATES


@pytest.mark.parametrize("arch", HRANKPLUS_RATES)
def test_rates_of_zero_leave_the_dense_network(arch):
    assert slim_widths(outline(arch), [0.0] * HRANKPLUS_RATES[arch]) == dense_widths(arch)


@pytest.mark.parametrize("arch", HRANKPLUS_RATES)
def test_no_layer_gets_wider_and_the_classifier_keeps_its_classes(arch):
    dense = dense_widths(arch)
    slim = slim_widths(outline(arch), [0.0] + [0.3] * (HRANKPLUS_RATES[arch] - 1))
    assert slim.keys() == dense.keys() and slim != dense
    for name, widths in dense.items():
        assert all(here <= there for here, there in zip(slim[name], widths, strict=True)), name
    assert list(slim.values())[-1].outputs == list(dense.values())[-1][1]
    assert (
        list(
            slim_widths(
                replace(outline(arch), num_classes=7), [0.0] * HRANKPLUS_RATES[arch]
            ).values()
        )[-1].outputs
        == 7
    )


@pytest.mark.parametrize(
    ("arch", "position", "rate", "layer", "kept"),
    [
        ("mobilenet_v2", 6, 0.8, "features.14.conv.6", 31),  # of 160, not 32
        ("mobilenet_v2", 7, 0.9, "features.17.conv.6", 31),  # of 320, not 32
        ("googlenet", 7, 0.9, "inception_e4.branch3x3.3", 31),
        ("googlenet", 9, 0.9, "inception_b5.branch3x3.3", 384),  # the last block's ends stay
        ("googlenet", 9, 0.9, "inception_b5.branch5x5.3", 12),
        ("googlenet", 1, 0.9, "inception_a3.branch1x1.0", 64),
        ("resnet_56", 1, 0.15, "layer1.8.conv2", 13),
        ("resnet_56", 29, 0.5, "layer3.8.conv1", 32),
        ("resnet_50", 0, 0.1, "conv1", 57),
        ("resnet_50", 3, 0.1, "layer3.0.downsample.0", 921),
        ("resnet_50", 19, 0.5, "layer4.2.conv2", 256),
        ("densenet_40", 13, 0.1, "trans1.conv1", 151),  # of 168
        ("vgg_16_bn", 11, 0.78, "features.conv15", 112),
        ("mobilenet_v1", 12, 0.3, "features.11.3", 716),
    ],
)
def test_one_rate_leaves_the_filters_of_its_layer(arch, position, rate, layer, kept):
    rates = [0.0] * HRANKPLUS_RATES[arch]
    rates[position] = rate
    assert slim_widths(outline(arch), rates)[layer].outputs == kept


@pytest.mark.parametrize("arch", IGNORE_THE_FIRST)
def test_a_rate_that_is_ignored_changes_nothing(arch):
    rest = [0.3] * (HRANKPLUS_RATES[arch] - 1)
    assert slim_widths(outline(arch), [0.9, *rest]) == slim_widths(outline(arch), [0.0, *rest])


def test_vgg_may_have_a_zero_for_its_last_conv():
    assert fit_rates(outline("vgg_16_bn"), [0.5] * 12 + [0.0]) == [0.5] * 12


@pytest.mark.parametrize(
    ("arch", "rates", "message"),
    [
        ("resnet_20", [], "HRankPlus has no 'resnet_20': expected one of vgg_16_bn, resnet_56"),
        ("resnet_56", [0.0] * 29, "29 rates for resnet_56, HRankPlus expects 30"),
        ("resnet_56", [0.0] * 55, "55 rates for resnet_56, HRankPlus expects 30"),
        ("vgg_16_bn", [0.1] * 14, r"14 rates for vgg_16_bn, HRankPlus expects 12 \(or one more"),
        ("vgg_16_bn", [0.1] * 13, "compress rate 13 of vgg_16_bn is 0.1: expected 0"),
        ("resnet_110", [0.1] * 57, "compress rate 1 of resnet_110 is 0.1: expected 0"),
        ("googlenet", [0.0] * 9 + [1.0], "rate 10 of googlenet is 1.0: expected 0 <= rate < 1"),
        ("googlenet", [-0.1] + [0.0] * 9, "rate 1 of googlenet is -0.1: expected 0 <= rate < 1"),
        ("densenet_40", [0.0] + [0.95] * 38, "'dense1.0.conv1' of densenet_40 keeps no filter"),
    ],
)
def test_bad_rates_are_one_sentence(arch, rates, message):
    with pytest.raises(ValueError, match=message):
        slim_widths(outline(arch), rates)


@needs_reference
@pytest.mark.parametrize("arch", HRANKPLUS_RATES)
def test_layers_are_those_of_the_official_networks(arch):
    keys = reference("state_dict_keys.json")["HRankPlus"][arch]
    layers = {key.removesuffix(".weight") for key in keys if key.endswith(".weight")}
    assert slim_widths(outline(arch), [0.0] * HRANKPLUS_RATES[arch]).keys() == layers
