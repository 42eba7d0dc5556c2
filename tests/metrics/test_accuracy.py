"""Laws of measured accuracy."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from utils.metrics.accuracy import Accuracy, measure_accuracy


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(144, 10)
    )


@pytest.fixture
def images_and_labels():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(37, 3, 8, 8, generator=generator)
    return images, torch.randint(10, (37,), generator=generator)


def in_batches(images, labels, size):
    return zip(images.split(size), labels.split(size), strict=True)


def test_accuracy_equals_one_image_at_a_time(network, images_and_labels):
    images, labels = images_and_labels
    found = measure_accuracy(network, in_batches(images, labels, 10))
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(image[None]) for image in images])
    assert found.correct == (logits.argmax(1) == labels).sum()
    assert found.images == 37
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found.top1_percent == pytest.approx(100 * found.correct / 37)


@pytest.mark.parametrize("size", [1, 7, 37])
def test_accuracy_does_not_depend_on_the_batch_size(network, images_and_labels, size):
    whole = measure_accuracy(network, [images_and_labels])
    batched = measure_accuracy(network, in_batches(*images_and_labels, size))
    assert batched.correct == whole.correct
    assert batched.loss == pytest.approx(whole.loss, rel=1e-5)


def test_training_flags_and_weights_come_back(network, images_and_labels):
    network.train()
    network[1].eval()  # a frozen norm inside a training network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure_accuracy(network, [images_and_labels])
    assert network.training and network[0].training and not network[1].training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_training_flags_come_back_after_an_error(network):
    network.train()
    with pytest.raises(RuntimeError):
        measure_accuracy(network, [(torch.zeros(1, 5, 8, 8), torch.zeros(1, dtype=torch.long))])
    assert all(module.training for module in network.modules())


def test_no_images_is_an_error(network):
    with pytest.raises(ValueError, match="over no images"):
        measure_accuracy(network, [])


def test_logits_that_are_not_finite_are_an_error(network, images_and_labels):
    images, labels = images_and_labels
    images[5] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity on 1 of 37 images"):
        measure_accuracy(network, in_batches(images, labels, 10))


def test_interval_is_the_wilson_interval():
    low, high = Accuracy(correct=90, images=100, loss=0.0).interval_percent()
    assert low == pytest.approx(82.5634, abs=1e-4)
    assert high == pytest.approx(94.4771, abs=1e-4)


@pytest.mark.parametrize(("correct", "images"), [(0, 7), (7, 7), (1, 1), (9317, 10000)])
def test_interval_holds_the_accuracy_and_stays_within_0_and_100(correct, images):
    accuracy = Accuracy(correct, images, loss=0.0)
    low, high = accuracy.interval_percent()
    assert 0 <= low <= accuracy.top1_percent <= high <= 100


@pytest.mark.parametrize(("correct", "images"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_an_error(correct, images):
    with pytest.raises(ValueError, match=f"got {correct} correct of {images}"):
        Accuracy(correct, images, loss=0.0)


def test_as_dict_is_plain_data():
    record = Accuracy(correct=3, images=4, loss=0.5).as_dict()
    assert record["top1_percent"] == 75.0
    assert record["correct"] == 3 and record["images"] == 4 and record["loss"] == 0.5
    assert len(record["interval_percent"]) == 2
