"""Laws of the registry of datasets."""

import pytest
import torch

from utils.data.load import load_dataset
from utils.data.synthetic import make_shapes


def test_shapes_follow_the_seed():
    loaded = load_dataset("shapes", "unused", image_size=32, seed=4)
    assert torch.equal(loaded.test.images, make_shapes(seed=4).test.images)


def test_a_folder_takes_any_size(tmp_path, write_image):
    for split in ("train", "test"):
        write_image(tmp_path / split / "ant" / "0.png", 9, 9)
    assert load_dataset("folder", tmp_path, image_size=6).test.images.shape == (1, 3, 6, 6)


def test_cifar10_is_looked_for_in_the_folder(monkeypatch):
    monkeypatch.setattr("utils.data.load.load_cifar10", lambda data_dir: ("found", data_dir))
    assert load_dataset("cifar10", "here", image_size=32) == ("found", "here")


def test_an_unknown_name_lists_the_legal_ones():
    with pytest.raises(ValueError, match="expected one of cifar10, folder, shapes, got 'mnist'"):
        load_dataset("mnist", "here", image_size=32)


@pytest.mark.parametrize("name", ["cifar10", "shapes"])
def test_a_size_that_a_dataset_does_not_have_is_refused(name):
    with pytest.raises(ValueError, match=f"image size of dataset '{name}': expected 32 pixels"):
        load_dataset(name, "here", image_size=224)
