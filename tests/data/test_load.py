"""Laws of the registry of datasets."""

import pytest
import torch

from utils.data.load import DATASETS, load_dataset
from utils.data.normalization import NORMALIZATIONS, default_normalization
from utils.data.synthetic import make_shapes


def test_shapes_follow_the_seed():
    loaded = load_dataset("shapes", "unused", image_size=32, seed=4)
    assert torch.equal(loaded.test.images, make_shapes(seed=4).test.images)


def test_a_folder_takes_any_size(tmp_path, write_image):
    for split in ("train", "test"):
        write_image(tmp_path / split / "ant" / "0.png", 9, 9)
    assert load_dataset("folder", tmp_path, image_size=6).test.images.shape == (1, 3, 6, 6)


def test_cifar10_is_looked_for_in_the_folder(monkeypatch):
    monkeypatch.setattr("utils.data.cifar10.load_cifar10", lambda data_dir: ("found", data_dir))
    assert load_dataset("cifar10", "here", image_size=32) == ("found", "here")


def test_an_unknown_name_lists_the_legal_ones():
    with pytest.raises(
        ValueError, match="expected one of cifar10, imagenet, folder, shapes, got 'mnist'"
    ):
        load_dataset("mnist", "here", image_size=32)


@pytest.mark.parametrize("name", ["cifar10", "shapes"])
def test_a_size_that_a_dataset_does_not_have_is_refused(name):
    with pytest.raises(ValueError, match=f"image size of dataset '{name}': expected 32 pixels"):
        load_dataset(name, "here", image_size=224)


def test_imagenet_is_read_by_the_workers_asked_for(tmp_path, write_image):
    for split in ("train", "val"):
        write_image(tmp_path / split / "ant" / "0.jpg", 9, 9)
    dataset = load_dataset("imagenet", tmp_path, image_size=8, workers=3)
    assert dataset.train.workers == dataset.test.workers == 3


def test_every_dataset_has_a_normalization():
    assert {default_normalization(name) for name in DATASETS} <= set(NORMALIZATIONS)
    assert default_normalization("imagenet") == "imagenet"
