"""The conv, the site and the file of every rank are those of the official code."""

from functools import cache

import pytest
import torch
from torch import nn

from models.registry import ARCHITECTURES, build_model, example_images
from tests.reference import NETWORKS, needs_reference, reference
from utils.graph.prunable import Site
from utils.options.networks import outline
from utils.rank.rank_layers import layers_at


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
    shapes, by_file = map_shapes(name), {}
    for layer in outline(name).layers.layers:
        by_file.setdefault(layer.file, []).append(layer)
    official = reference("rank_files.json")["hrank"][name]["files"]
    assert list(by_file) == [facts["file"] for facts in official]
    for layers, facts in zip(by_file.values(), official, strict=True):
        (site,) = {layer.site for layer in layers}
        shape = shapes[site.module]
        assert site.module == facts["hook_module"]
        assert [*range(shape[1])[site.start : site.stop]] == [*range(*facts["channel_slice"])]
        assert list(shape[2:]) == facts["feature_map"]
        params = [(x["cov_id"], x["param"]) for x in facts["ranks_convs_hrank"]]
        assert [(layer.rate + 1, f"{layer.conv}.weight") for layer in layers] == params


@needs_reference
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_files_and_sites_of_mobilenets_are_those_of_hrankplus(name):
    layers, shapes = outline(name).layers.layers, map_shapes(name)
    official = reference("rank_files.json")["hrankplus_hooks"][name]["files"]
    for layer, facts in zip(layers, official, strict=True):
        assert layer.file == facts["file"]
        assert layer.site.module in (facts["hook_module"], f"{facts['hook_module']}.2")
        shape = shapes[layer.site.module]
        assert shape == (1, facts["channel_slice"][1], *facts["feature_map"])


@needs_reference
@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_rates_is_the_official_one(name):
    known = outline(name).layers
    nets = [net for net in reference("kept_indices.json")["nets"] if net["arch"] == name]
    assert nets
    for net in nets:
        expected = net["n_cov"], net["n_rates"] - net["n_cov"]
        assert (known.num_rates, known.ignored_rates) == expected


@pytest.mark.parametrize("sites", ["official", "conv"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_site_shows_one_channel_per_filter_after_its_conv(name, sites):
    convs, shapes = convs_of(name), map_shapes(name)
    order, files = list(shapes), {}
    for layer in layers_at(outline(name), sites).layers:
        channels = range(shapes[layer.site.module][1])[layer.site.start : layer.site.stop]
        assert len(channels) == convs[layer.conv].out_channels
        assert order.index(layer.conv) <= order.index(layer.site.module)
        assert files.setdefault(layer.file, layer.site) == layer.site


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_convs_own_activation_is_its_own(name):
    layers = layers_at(outline(name), "conv").layers
    assert len({layer.file for layer in layers}) == len({layer.site for layer in layers})
    assert len(layers) == len({layer.site for layer in layers})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rates_are_numbered_without_gaps(name):
    known = outline(name).layers
    assert list(dict.fromkeys(layer.rate for layer in known.layers)) == [*range(known.num_rates)]
    assert {layer.counted_rate for layer in known.layers} <= {*range(known.num_rates)}


def test_the_official_counter_differs_in_two_places():
    odd = [x for x in outline("googlenet").layers.layers if x.counted_rate != x.rate]
    assert {(x.conv.partition(".")[0], x.rate, x.counted_rate) for x in odd} == {
        ("inception_c4", 5, 6)
    }
    odd = [x for x in outline("resnet_50").layers.layers if x.counted_rate != x.rate]
    assert [(x.conv, x.rate, x.counted_rate) for x in odd[:4]] == [
        ("layer1.0.conv1", 1, 2),
        ("layer1.0.conv2", 2, 3),
        ("layer1.0.conv3", 3, 4),
        ("layer1.0.downsample.0", 4, 1),
    ]
    for name in set(ARCHITECTURES) - {"googlenet", "resnet_50"}:
        assert all(layer.counted_rate == layer.rate for layer in outline(name).layers.layers)


def test_depthwise_convs_follow_the_conv_before_them():
    layers = {layer.conv: layer for layer in outline("mobilenet_v2").layers.layers}
    assert layers["features.1.conv.0"].follows == "features.0.0"
    assert layers["features.2.conv.3"].follows == "features.2.conv.0"
    for conv, layer in layers.items():
        depthwise = convs_of("mobilenet_v2")[conv].groups > 1
        assert depthwise == (layer.follows is not None)
        assert not depthwise or layers[layer.follows].rate == layer.rate


def test_vgg_ranks_four_convs_behind_their_pool_and_leaves_out_the_last():
    known = outline("vgg_16_bn").layers
    assert [x.rate + 1 for x in known.layers if "pool" in x.site.module] == [2, 4, 7, 10]
    assert (known.num_rates, known.ignored_rates) == (12, 1)
    assert layers_at(outline("vgg_16_bn"), "conv").layers[1].site == Site("features.relu1")


def test_a_resnet_ranks_the_second_conv_behind_the_sum():
    layers = outline("resnet_20").layers.layers
    assert (layers[2].conv, layers[2].site) == ("layer1.0.conv2", Site("layer1.0.relu2"))
    assert layers_at(outline("resnet_20"), "conv").layers[2].site == Site("layer1.0.bn2")
    assert len(layers) == 19


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="unknown arch 'resnet_57': expected one of"):
        outline("resnet_57")
    with pytest.raises(ValueError, match="unknown sites 'relu': expected one of official, conv"):
        layers_at(outline("resnet_20"), "relu")
