"""The conv, the site and the file of every rank are those of the official code."""

from functools import cache

import pytest
import torch
from torch import nn

from models.rank_layers import rank_layers
from models.registry import ARCHITECTURES, build_model, example_images
from tests.reference import NETWORKS, needs_reference, reference


@cache
@torch.no_grad()
def map_shapes(name):
    """{module: shape of its output}, in the order in which the modules finish."""
    with torch.device("meta"):
        model, images = build_model(name).eval(), example_images(name)
    shapes = {}
    for path, module in model.named_modules():
        module.register_forward_hook(
            lambda module, inputs, output, path=path: shapes.update({path: tuple(output.shape)})
        )
    model(images)
    return shapes


@cache
def convs_of(name):
    with torch.device("meta"):
        model = build_model(name)
    return {key: m for key, m in model.named_modules() if isinstance(m, nn.Conv2d)}


@needs_reference
@pytest.mark.parametrize("name", NETWORKS)
def test_files_sites_and_convs_are_the_official_ones(name):
    layers, shapes = rank_layers(name).layers, map_shapes(name)
    official = reference("rank_files.json")["hrank"][name]["files"]
    assert len(layers) == len(official)
    for layer, facts in zip(layers, official, strict=True):
        assert (layer.file, layer.site) == (facts["file"], facts["hook_module"])
        assert [f"{layer.conv}.weight"] == [x["param"] for x in facts["ranks_convs_hrank"]]
        assert shapes[layer.site] == (1, *facts["shape"], *facts["feature_map"])


@needs_reference
@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_rates_is_the_official_one(name):
    known = rank_layers(name)
    nets = [net for net in reference("kept_indices.json")["nets"] if net["arch"] == name]
    assert nets
    for net in nets:
        assert (len(known.layers), known.ignored_rates) == (
            net["n_cov"],
            net["n_rates"] - net["n_cov"],
        )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_site_shows_one_channel_per_filter_after_its_conv(name):
    convs, shapes = convs_of(name), map_shapes(name)
    order = list(shapes)
    for layer in rank_layers(name).layers:
        assert shapes[layer.site][:2] == (1, convs[layer.conv].out_channels)
        assert order.index(layer.conv) < order.index(layer.site)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rates_go_to_the_convs_in_the_order_they_run(name):
    known, convs = rank_layers(name), convs_of(name)
    runs = [path for path in map_shapes(name) if path in convs]
    assert [layer.conv for layer in known.layers] == runs[: len(runs) - known.ignored_rates]
    assert [layer.number for layer in known.layers] == list(range(1, len(known.layers) + 1))


def test_vgg_ranks_four_convs_behind_their_pool_and_leaves_out_the_last():
    known = rank_layers("vgg_16_bn")
    assert [x.number for x in known.layers if "pool" in x.site] == [2, 4, 7, 10]
    assert (len(known.layers), known.ignored_rates) == (12, 1)


def test_a_resnet_ranks_the_second_conv_behind_the_sum():
    layers = rank_layers("resnet_20").layers
    assert (layers[2].conv, layers[2].site) == ("layer1.0.conv2", "layer1.0.relu2")
    assert len(layers) == 19


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="unknown arch 'resnet_57': expected one of"):
        rank_layers("resnet_57")
