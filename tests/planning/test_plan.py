"""Plans of whole networks: layouts of rates, depthwise convs, and both counts."""

from functools import cache
from pathlib import Path

import pytest
import torch

from utils.options.networks import draw_network, outline
from utils.paper.hrankplus import slim_widths
from utils.planning.plan import make_plan


@cache
def dense(arch):
    return draw_network(arch, 0)


def planned(arch, text, **how):
    settings = {"criterion": "l1", "rank_folder": Path("absent")}
    return make_plan(dense(arch), compress_rate=text, seed=0, **{**settings, **how})


def test_a_depthwise_conv_loses_the_channels_of_the_conv_before_it():
    plan = planned("mobilenet_v2", "[0.]+[0.5]*33+[0.25]").plan
    known = outline("mobilenet_v2").layers.layers
    assert [layer.conv for layer in plan.layers] == [layer.conv for layer in known]
    by_conv = {layer.conv: layer for layer in plan.layers}
    for layer in known:
        if layer.follows:
            assert by_conv[layer.conv].kept == by_conv[layer.follows].kept
            assert f"follows {layer.follows}" in by_conv[layer.conv].reason
    assert by_conv["features.18.0"].removed == 320


def test_a_removed_mobilenet_is_as_wide_as_its_plan():
    found = planned("mobilenet_v1", "[0.5]*14")
    for layer in found.plan.layers:
        assert found.slim.get_submodule(layer.conv).out_channels == len(layer.kept) > 0


@pytest.mark.parametrize(
    ("arch", "text"),
    [("vgg_16_bn", "[0.45]*7+[0.78]*5"), ("googlenet", "[0.3]+[0.6]*2+[0.7]*5+[0.8]*2")],
)
def test_hrankplus_rates_leave_its_slim_network(arch, text):
    found = planned(arch, text, layout="hrankplus")
    for conv, width in slim_widths(outline(arch), found.rates.values).items():
        module = found.slim.get_submodule(conv)
        if isinstance(module, torch.nn.Conv2d):
            assert (module.in_channels, module.out_channels) == tuple(width), conv


def test_hrankplus_rates_of_a_residual_network_leave_each_conv_its_share():
    found = planned("resnet_56", "[0.]+[0.18]*29", layout="hrankplus")
    widths = slim_widths(outline("resnet_56"), found.rates.values)
    assert {x.conv: len(x.kept) for x in found.plan.layers} == {
        x.conv: widths[x.conv].outputs for x in outline("resnet_56").layers.layers
    }


@pytest.mark.parametrize("group", [False, True])
def test_rounding_in_hrankplus_layout_starts_from_its_widths(group):
    found = planned("resnet_56", "[0.]+[0.18]*29", layout="hrankplus", group=group, round_to=4)
    kept = {layer.conv: len(layer.kept) for layer in found.plan.layers}
    assert kept["layer1.0.conv1"] == 16 and kept["layer3.0.conv1"] == 52  # of 13 and of 52


def test_a_criterion_that_leaves_convs_without_a_score_is_refused():
    with pytest.raises(ValueError, match=r"bn_scale does not score 'dense1\.0\.conv1' of densenet"):
        planned("densenet_40", "[0.5]*39", criterion="bn_scale")
