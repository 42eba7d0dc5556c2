"""Laws of streamed images: those of images in memory, whatever the workers, which go home."""

import gc
import multiprocessing
from functools import partial

import pytest
import torch

from utils.data.gpu_loader import batches
from utils.data.image_stream import ImageStream
from utils.data.images import ImageSet, split_validation
from utils.data.load import default_workers

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core

CLASSES = ("a", "b", "c")


def read_number(path, seed):
    """An image that says which it is in channel 0, and how it was drawn in channel 1."""
    if path == "broken":
        raise ValueError("cannot decode 'broken': expected a whole image")
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    image[0], image[1] = int(path), 0 if seed is None else 1 + seed % 255
    return image


def numbers(count, workers=0, read=read_number):
    """A stream of so many numbered images."""
    files = [str(index) for index in range(count)]
    return ImageStream(files, torch.arange(count) % 3, CLASSES, "numbers", read, workers)


epoch_of = partial(batches, normalization="none", device="cpu")


def whole(epoch):
    """All images and labels of an epoch, each one tensor, and the sizes of the batches."""
    images, labels = zip(*epoch, strict=True)
    return torch.cat(images), torch.cat(labels), [len(part) for part in labels]


def assert_same(one, other):
    for found, expected in zip(whole(one), whole(other), strict=True):
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_plain_images_come_as_from_memory(seed, drop_last, workers):
    streamed = numbers(20, workers)
    pixels = torch.stack([read_number(path, None) for path in streamed.files])
    resident = ImageSet(pixels, streamed.labels, CLASSES, "resident")
    how = {"batch_size": 6, "seed": seed, "drop_last": drop_last}
    assert_same(epoch_of(streamed, **how), epoch_of(resident, **how))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_order_and_crops_do_not_depend_on_the_workers(workers):
    how = {"batch_size": 4, "seed": 7, "augment": True}
    assert_same(epoch_of(numbers(22), **how), epoch_of(numbers(22, workers), **how))


def test_crops_do_not_depend_on_the_batch_size():
    small, large = (
        whole(epoch_of(numbers(22, 2), size, seed=7, augment=True))[0] for size in (3, 22)
    )
    assert torch.equal(small, large)


def test_augmenting_keeps_the_order_and_each_image_has_a_seed_of_its_own():
    plain, cropped, other = (
        whole(epoch_of(numbers(200), 50, seed=seed, augment=augment))[0]
        for seed, augment in ((7, False), (7, True), (8, True))
    )
    assert torch.equal(plain[:, 0], cropped[:, 0])
    assert not plain[:, 1].any()
    assert len(cropped[:, 1, 0, 0].unique()) > 100
    assert not torch.equal(cropped[:, 1], other[:, 1])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_random_numbers_of_the_run_do_not_depend_on_the_workers(workers):
    before = torch.get_rng_state()
    list(epoch_of(numbers(9, workers), 2, seed=1, augment=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_reader_refuses_is_one_sentence(workers):
    stream = numbers(9, workers).subset(range(9))
    stream.files[5] = "broken"
    epoch = epoch_of(stream, 2)
    assert len(next(epoch)[1]) == len(next(epoch)[1]) == 2
    with pytest.raises(ValueError) as error:
        next(epoch)
    assert str(error.value) == "cannot decode 'broken': expected a whole image"


def test_workers_are_gone_after_an_epoch_and_after_half_of_one():
    assert multiprocessing.active_children() == []
    list(epoch_of(numbers(9, 2), 2))
    assert multiprocessing.active_children() == []
    epoch = epoch_of(numbers(9, 2), 2)
    next(epoch)
    assert len(multiprocessing.active_children()) == 2
    del epoch
    gc.collect()
    assert multiprocessing.active_children() == []


def test_no_more_workers_than_batches():
    epoch = epoch_of(numbers(4, 3), 4)
    next(epoch)
    assert len(multiprocessing.active_children()) == 1


def test_a_subset_has_the_images_asked_for_in_that_order():
    part = numbers(6).subset([4, 1])
    assert (part.files, part.labels.tolist(), part.name) == (["4", "1"], [1, 1], "numbers")
    assert part.to("cpu") is part


def test_a_validation_split_is_plain_and_that_of_images_in_memory():
    stream = numbers(30, 2)
    resident = ImageSet(torch.zeros(30, 3, 1, 1).byte(), stream.labels, CLASSES, "numbers")
    parts = split_validation(stream, 0.2, seed=4)
    for part, expected in zip(parts, split_validation(resident, 0.2, seed=4), strict=True):
        assert torch.equal(part.labels, expected.labels)
        assert part.name == expected.name
    files = [file for part in parts for file in part.files]
    assert sorted(files) == sorted(stream.files)
    images, _, _ = whole(epoch_of(parts[1], 10))
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [int(file) for file in parts[1].files]
    assert not images[:, 1].any()


def test_by_default_a_few_processes_read():
    assert 1 <= default_workers() <= 16


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resident", [False, True])
def test_parts_of_batches_are_those_images_with_the_same_crops(workers, resident):
    images = numbers(22, workers)
    if resident:
        pixels = torch.stack([read_number(path, None) for path in images.files])
        images = ImageSet(pixels, images.labels, CLASSES, "resident")
    how = {"batch_size": 8, "seed": 7, "augment": True}
    all_images, all_labels, _ = whole(epoch_of(images, **how))
    wanted = [slice(1, 4), slice(8, 8), slice(20, 22)]
    found, labels, sizes = whole(epoch_of(images, **how, select=lambda spans: wanted))
    assert sizes == [3, 0, 2]
    assert torch.equal(found, torch.cat([all_images[span] for span in wanted]))
    assert torch.equal(labels, torch.cat([all_labels[span] for span in wanted]))
