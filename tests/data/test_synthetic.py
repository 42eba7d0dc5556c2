"""Laws of `shapes`: the same bytes from the same seed, even classes."""

import hashlib

import pytest
import torch

from utils.data.synthetic import CLASSES, make_shapes

DIGEST = "339fa83484f13f15e4ead62ff37d6032a8c6dad56db7e01f34157bed406ac505"


def test_a_seed_renders_the_same_bytes_everywhere():
    shapes = make_shapes(300, 40, seed=0)
    digest = hashlib.sha256()
    for split in (shapes.train, shapes.test):
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == DIGEST


def test_another_seed_renders_other_images():
    first, other = make_shapes(20, 20, seed=0), make_shapes(20, 20, seed=1)
    assert not torch.equal(first.train.images, other.train.images)
    assert not torch.equal(first.test.images, other.test.images)


def test_no_image_is_in_both_splits_or_twice():
    shapes = make_shapes(300, 300, seed=0)
    both = torch.cat([shapes.train.images, shapes.test.images]).flatten(1)
    assert len(torch.unique(both, dim=0)) == 600


@pytest.mark.parametrize("number", [1, 10, 257, 500])
def test_classes_are_as_even_as_the_number_allows(number):
    shapes = make_shapes(number, 10, seed=2)
    counts = torch.bincount(shapes.train.labels, minlength=10)
    assert counts.sum() == number
    assert counts.max() - counts.min() <= 1
    assert shapes.train.images.shape == (number, 3, 32, 32)


def test_ten_classes_in_random_order():
    shapes = make_shapes(100, 100, seed=0)
    assert len(set(CLASSES)) == 10
    assert shapes.train.classes == shapes.test.classes == CLASSES
    assert (shapes.name, shapes.train.name, shapes.test.name) == (
        "shapes",
        "shapes train",
        "shapes test",
    )
    assert shapes.train.labels.tolist() != sorted(shapes.train.labels.tolist())


def test_images_of_every_class_use_the_range_of_brightness():
    train = make_shapes(200, 1, seed=0).train
    for label in range(10):
        images = train.images[train.labels == label].float()
        assert images.std(dim=(1, 2, 3)).min() > 10  # no blank image


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10), "number of train shapes: expected at least 1, got 0"),
        ((10, -1), "number of test shapes: expected at least 1, got -1"),
        ((10, 10, -1), "seed of shapes: expected 0 or more, got -1"),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_shapes(*arguments)
