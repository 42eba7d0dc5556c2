"""The registered networks are the official ones: keys, shapes, modules and costs."""

import pytest
import torch

from models.registry import ARCHITECTURES, architecture, build_model, example_images
from tests.reference import needs_reference, reference
from utils.metrics.cost import paper_cost, physical_cost

OFFICIAL = reference("state_dict_keys.json").get("HRankPlus", {})  # HRank's six are the same there


def on_meta(name):
    """(network, image) without numbers."""
    with torch.device("meta"):
        return build_model(name).eval(), example_images(name)


def shapes_of(name, **kwargs):
    with torch.device("meta"):
        model = build_model(name, **kwargs)
    return {key: list(value.shape) for key, value in model.state_dict().items()}


@needs_reference
@pytest.mark.parametrize("name", OFFICIAL)
def test_names_and_shapes_of_the_state_dict_are_the_official_ones(name):
    assert list(shapes_of(name).items()) == list(OFFICIAL[name].items())


@needs_reference
@pytest.mark.parametrize("name", OFFICIAL)
def test_every_module_that_is_ranked_officially_gives_maps_of_that_shape(name):
    files = reference("rank_files.json")
    known = files["hrank"].get(name) or files["hrankplus_hooks"][name]
    shapes, (model, image) = {}, on_meta(name)
    for facts in known["files"]:
        site = facts["hook_module"]
        model.get_submodule(site).register_forward_hook(
            lambda module, inputs, maps, site=site: shapes.update({site: maps.shape})
        )
    model(image)
    for facts in known["files"]:
        site = facts["hook_module"]
        channels = facts.get("hook_output_channels", facts["channel_slice"][1])
        assert type(model.get_submodule(site)).__name__ == facts["hook_module_type"]
        assert shapes[site] == (1, channels, *facts["feature_map"])


@needs_reference
@pytest.mark.parametrize("name", OFFICIAL)
def test_costs_are_the_official_ones(name):
    official = reference("flops.json")["baselines"][name]
    rules = {
        "c_plain": physical_cost(*on_meta(name)),
        "h_on_plus": paper_cost(*on_meta(name), {}),
    }
    rules["a_hrank_get_flops"] = rules["h_on_plus"]
    for rule in rules.keys() & official.keys():
        cost = rules[rule]
        assert {"flops": cost.macs, "params": cost.parameters} == official[rule], rule


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_gives_one_score_per_class(name):
    with torch.device("meta"):
        model, images = build_model(name, num_classes=7), example_images(name)
    assert model.eval()(images).shape == (1, 7)
    assert images.shape == (1, 3, architecture(name).image_size, architecture(name).image_size)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_default_classes_are_the_architectures_own(name):
    assert shapes_of(name) == shapes_of(name, num_classes=architecture(name).num_classes)


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56, 110])
def test_a_cifar_resnet_has_as_many_weighted_layers_as_its_name_says(depth):
    weights = [shape for shape in shapes_of(f"resnet_{depth}").values() if len(shape) in (2, 4)]
    assert len(weights) == depth


@pytest.mark.parametrize("name", ["vgg16", "", "VGG_16_BN", "resnet_57", "__import__('os')"])
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(name):
    for ask in (architecture, build_model, example_images):
        with pytest.raises(
            ValueError, match=r"unknown arch .*: expected one of vgg_16_bn, "
        ) as error:
            ask(name)
        assert repr(name) in str(error.value)


def test_weights_follow_the_seed():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(build_model("resnet_8").state_dict())
    first, again, other = (torch.cat([v.flatten().float() for v in m.values()]) for m in models)
    assert torch.equal(first, again) and not torch.equal(first, other)
