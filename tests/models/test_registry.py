"""The registered networks are the official ones, by name, shape and key."""

import pytest
import torch

from models.registry import ARCHITECTURES, architecture, build_model, example_images
from tests.reference import NETWORKS, needs_reference, reference


def shapes_of(name, **kwargs):
    with torch.device("meta"):
        model = build_model(name, **kwargs)
    return {key: list(value.shape) for key, value in model.state_dict().items()}


@needs_reference
@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_of_the_state_dict_are_the_official_ones(name):
    official = reference("state_dict_keys.json")["HRank"][name]
    assert list(shapes_of(name).items()) == list(official.items())


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
