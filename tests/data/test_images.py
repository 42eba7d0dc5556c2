"""Laws of the image set and of the validation split."""

import pytest
import torch

from utils.data.images import (
    ImageSet,
    check_enough,
    draw_images,
    split_validation,
)
from utils.data.normalization import NORMALIZATIONS


def test_a_subset_has_the_images_asked_for_in_that_order(make_set):
    whole = make_set(6)
    part = whole.subset([4, 1])
    assert len(part) == 2
    assert torch.equal(part.images, whole.images[[4, 1]])
    assert torch.equal(part.labels, whole.labels[[4, 1]])
    assert (part.classes, part.name) == (whole.classes, whole.name)


def test_a_set_that_is_on_the_device_is_not_copied(make_set):
    whole = make_set(6)
    assert whole.to("cpu").images.data_ptr() == whole.images.data_ptr()


def test_the_seed_draws_an_order_and_more_images_begin_with_fewer(make_set):
    whole = make_set(30)
    few, more, other = (draw_images(whole, *how) for how in ((5, 1), (30, 1), (30, 2)))
    assert torch.equal(few.images, more.images[:5])
    assert not torch.equal(more.images, other.images)
    assert sorted(more.images.flatten(1).tolist()) == sorted(whole.images.flatten(1).tolist())


def test_more_images_than_there_are_is_refused(make_set):
    check_enough(make_set(6), 6, "6 images")
    with pytest.raises(ValueError, match=r"^7 images: expected at most the 6 of 'random'$"):
        check_enough(make_set(6), 7, "7 images")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2), r"images of 'bad': expected uint8 \[N, 3"),
        (torch.zeros(2, 2, 4, 4).byte(), torch.zeros(2), r"got torch.uint8 \[2, 2, 4, 4\]"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(2), r"labels of 'bad': expected int64 \[2\]"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(3).long(), r"got torch.int64 \[3\]"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.tensor([0, 2]), "expected 0 to 1, got 0 to 2"),
    ],
)
def test_a_malformed_set_is_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels, ("a", "b"), "bad")


def test_the_two_parts_of_a_split_are_the_whole(make_set):
    whole = make_set(50)
    train, validation = split_validation(whole, 0.2, seed=0)
    parts = torch.cat([train.images, validation.images]).flatten(1).tolist()
    assert sorted(parts) == sorted(whole.images.flatten(1).tolist())
    assert validation.name == "random (validation split)"


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_each_class_gives_its_fraction(make_set, fraction):
    _, validation = split_validation(make_set(120, num_classes=3), fraction, seed=0)
    assert torch.bincount(validation.labels).tolist() == [round(fraction * 40)] * 3


def test_a_split_depends_on_its_seed_alone(make_set):
    whole = make_set(60)
    first, again, other = (split_validation(whole, 0.5, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_no_class_is_emptied_and_every_class_is_seen(make_set):
    for fraction in (0.001, 0.999):
        train, validation = split_validation(make_set(6, num_classes=3), fraction, seed=0)
        assert torch.bincount(train.labels).tolist() == [1, 1, 1]
        assert torch.bincount(validation.labels).tolist() == [1, 1, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(make_set, fraction):
    with pytest.raises(ValueError, match="validation fraction: expected more than 0, less than 1"):
        split_validation(make_set(6), fraction, seed=0)


def test_a_set_that_can_spare_no_image_is_refused(make_set):
    with pytest.raises(ValueError, match=r"cannot hold out .* of 'random' \(3 images\)"):
        split_validation(make_set(3), 0.5, seed=0)


def test_normalizations_are_the_published_ones():
    assert NORMALIZATIONS == {
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }
