"""Laws of CIFAR-10 loading: what is on disk needs no network; what is not is one sentence."""

import io
import pickle
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from utils.data.cifar10 import load_cifar10

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


class OfficialPickler(pickle.Pickler):
    """Spells a numpy dtype as the Python 2 that wrote the official files did."""

    def reducer_override(self, value):
        if isinstance(value, np.dtype):
            return np.dtype, (value.str[1:], 0, 1), value.__reduce__()[2]
        return NotImplemented


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        print("Downloading", *args)  # as torchvision may
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)


@pytest.fixture
def tiny_folder(tmp_path, monkeypatch):
    """cifar-10-batches-py with two images a file; its files' checksums are not compared."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    files = [f"data_batch_{index}" for index in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(files):
        data = np.random.default_rng(seed).integers(0, 256, (2, 3072), np.uint8)
        write_pickle(folder / name, {"data": data, "labels": [seed, 9 - seed]})
    write_pickle(folder / "batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(CIFAR10, "train_list", [[name, None] for name in files[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    return tmp_path


def write_pickle(path, value):
    buffer = io.BytesIO()
    OfficialPickler(buffer, protocol=2).dump(value)
    path.write_bytes(buffer.getvalue())


def test_a_folder_on_disk_needs_no_network(tiny_folder, no_network):
    dataset = load_cifar10(tiny_folder)
    assert dataset.train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert dataset.test.labels.tolist() == [5, 4]
    assert dataset.train.classes == dataset.test.classes == CLASSES
    assert [dataset.name, dataset.train.name, dataset.test.name] == [
        "cifar10",
        "cifar10 train",
        "cifar10 test",
    ]
    pixels = np.random.default_rng(5).integers(0, 256, (2, 3, 32, 32), np.uint8)
    assert np.array_equal(dataset.test.images.numpy(), pixels)
    assert dataset.test.images.is_contiguous()


def test_without_files_or_network_the_ways_out_are_named(tmp_path, no_network, capsys):
    with pytest.raises(ValueError) as error:
        load_cifar10(tmp_path)
    assert str(error.value) == (
        f"cifar10 is not in '{tmp_path}' and could not be downloaded "
        "(<urlopen error no route to host>): connect, or put cifar-10-batches-py there, "
        "or use --dataset folder or --dataset shapes"
    )
    assert capsys.readouterr().out == ""


def test_a_damaged_folder_is_not_used(tiny_folder, no_network, monkeypatch):
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", "0" * 32]])
    with pytest.raises(ValueError, match="cifar10 is not in .* could not be downloaded"):
        load_cifar10(tiny_folder)


def test_a_damaged_list_of_classes_is_refused(tiny_folder, no_network):
    (tiny_folder / CIFAR10.base_folder / "batches.meta").unlink()
    with pytest.raises(ValueError, match="metadata file not found or corrupted"):
        load_cifar10(tiny_folder)
