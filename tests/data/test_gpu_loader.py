"""Laws of the batches: what one image at a time would give, each image once, repeatable."""

import pytest
import torch
from torchvision.transforms import functional as one_at_a_time

from utils.data.gpu_loader import batches, normalize, num_batches
from utils.data.images import ImageSet
from utils.data.normalization import NORMALIZATIONS


def fingerprints(epoch):
    """The images of an epoch, each as a tuple of its values, in order."""
    return [tuple(image.flatten().tolist()) for images, _ in epoch for image in images]


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalize_computes_what_torchvision_computes(make_set, name):
    images = make_set(5).images
    expected = [
        one_at_a_time.normalize(
            one_at_a_time.to_tensor(one_at_a_time.to_pil_image(image)), *NORMALIZATIONS[name]
        )
        for image in images
    ]
    assert torch.equal(normalize(images, name), torch.stack(expected))


def test_normalize_leaves_the_images_alone(make_set):
    image_set = make_set(4)
    before = image_set.images.clone()
    for _ in batches(image_set, 2, "cifar10", device="cpu", augment=True, seed=0):
        pass
    assert torch.equal(image_set.images, before)


def test_without_a_seed_images_come_in_order(make_set):
    image_set = make_set(7)
    epoch = list(batches(image_set, 3, "none", device="cpu"))
    assert [len(labels) for _, labels in epoch] == [3, 3, 1]
    images, labels = (torch.cat(parts) for parts in zip(*epoch, strict=True))
    assert torch.equal(images, image_set.images / 255)
    assert torch.equal(labels, image_set.labels)
    assert images.dtype == torch.float32 and labels.dtype == torch.int64


def test_a_shuffled_epoch_has_every_image_once_with_its_label(make_set):
    image_set = make_set(23)
    label_of = dict(
        zip(fingerprints([(image_set.images / 255, None)]), image_set.labels, strict=True)
    )
    epoch = list(batches(image_set, 4, "none", device="cpu", seed=3))
    order = fingerprints(epoch)
    assert sorted(order) == sorted(label_of)
    assert order != list(label_of)
    assert [label_of[image] for image in order] == torch.cat([pair[1] for pair in epoch]).tolist()


@pytest.mark.parametrize("augment", [False, True])
def test_a_seed_decides_the_epoch(make_set, augment):
    first, again, other = (
        fingerprints(batches(make_set(20), 6, "cifar10", device="cpu", augment=augment, seed=seed))
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_augmenting_keeps_the_order(make_set):
    plain, augmented = (
        [labels for _, labels in batches(make_set(20), 20, "none", device="cpu", seed=5, **more)]
        for more in ({}, {"augment": True})
    )
    assert torch.equal(plain[0], augmented[0])


def test_augmentation_does_not_depend_on_the_batch_size(make_set):
    small, large = (
        fingerprints(batches(make_set(20), size, "none", device="cpu", augment=True, seed=5))
        for size in (3, 20)
    )
    assert small == large


def test_every_crop_is_drawn_and_half_are_flipped():
    image = torch.arange(8 * 8, dtype=torch.uint8).view(1, 1, 8, 8).expand(4000, 3, 8, 8) + 1
    whole = ImageSet(image, torch.zeros(4000, dtype=torch.int64), ("a",), "numbered pixels")
    ((crops, _),) = batches(whole, 4000, "none", device="cpu", augment=True, seed=0)
    seen = (crops[:, 0] * 255).round().long()  # [4000, 8, 8]
    assert len(torch.unique(seen, dim=0)) == 2 * 81
    across = seen[:, :, 1:] - seen[:, :, :-1]  # 1 along a row, -1 if it is flipped
    flipped = (across == -1).flatten(1).sum(1) > (across == 1).flatten(1).sum(1)
    assert 0.45 < flipped.float().mean() < 0.55


@pytest.mark.parametrize(
    ("size", "drop_last", "count"), [(4, False, 3), (4, True, 2), (10, True, 1)]
)
def test_num_batches_is_the_number_of_batches(make_set, size, drop_last, count):
    image_set = make_set(10)
    epoch = list(batches(image_set, size, "none", device="cpu", drop_last=drop_last))
    assert num_batches(image_set, size, drop_last) == len(epoch) == count


@pytest.mark.parametrize(
    ("size", "normalization", "more", "message"),
    [
        (0, "none", {}, "batch size: expected at least 1, got 0"),
        (7, "none", {"drop_last": True}, "expected at most the 6 images of 'random' .* got 7"),
        (2, "imagnet", {}, "expected one of cifar10, imagenet, none, or MEAN"),
        (2, "none", {"augment": True}, r"augmentation: expected a seed \(an integer\), got None"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(make_set, size, normalization, more, message):
    with pytest.raises(ValueError, match=message):
        batches(make_set(6), size, normalization, device="cpu", **more)


def test_normalize_refuses_an_unknown_name(make_set):
    with pytest.raises(ValueError, match="normalization: expected one of"):
        normalize(make_set(1).images, "mean")
