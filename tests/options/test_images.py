"""The batches of an epoch that a run takes up again are those that were still to come."""

import pytest
import torch

from utils.data.image_stream import ImageStream
from utils.data.images import ImageSet
from utils.options.images import Images

NUMBER, BATCH, CLASSES = 22, 4, ("a", "b")


def images_of(train) -> Images:
    return Images(train, None, train, "numbers", "none", 1, torch.device("cpu"))


def pixels(index: int) -> torch.Tensor:
    """An image of its own, uint8 [3, 8, 8]."""
    return torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8).add(index)


@pytest.mark.parametrize("start", [0, 3, 6])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_rest_of_an_epoch_is_its_tail_and_nothing_before_it_is_read(streamed, start):
    been_read = []

    def read(path: str, seed: int) -> torch.Tensor:
        been_read.append(path)
        return pixels(int(path) + seed % 100)

    files, labels = [str(index) for index in range(NUMBER)], torch.arange(NUMBER) % 2
    resident = ImageSet(torch.stack(list(map(pixels, range(NUMBER)))), labels, CLASSES, "numbers")
    source = ImageStream(files, labels, CLASSES, "numbers", read, 0) if streamed else resident
    batches_of = images_of(source).training_batches(BATCH, seed=0, stage="any")
    whole = list(batches_of(2, 0))
    been_read.clear()
    rest = list(batches_of(2, start))
    assert len(whole) == 6 and len(rest) == 6 - start
    for found, expected in zip(rest, whole[start:], strict=True):
        assert all(map(torch.equal, found, expected))
    assert len(been_read) == streamed * max(0, NUMBER - start * BATCH)
