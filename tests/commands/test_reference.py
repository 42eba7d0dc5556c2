"""Networks that others trained get the accuracy that others measured."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared"
CHECKPOINT = SHARED / "reference" / "resnet20-12fca82f.th"
IMAGES = SHARED / "data" / "cifar10_lossless.npz"


def write_images(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for label in np.unique(labels):
        (folder / str(label)).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / str(label) / f"{number}.png")


@pytest.mark.skipif(
    not (CHECKPOINT.exists() and IMAGES.exists()), reason="the reference data is not at hand"
)
def test_resnet_20_of_others_is_right_on_932_of_1017_images(call, tmp_path):
    with np.load(IMAGES) as arrays:
        for split in ("train", "test"):
            labels, images = arrays[f"{split}_labels"], arrays[f"{split}_images"]
            # of the train images, which nothing here looks at, one of each class
            chosen = np.unique(labels, return_index=True)[1] if split == "train" else slice(None)
            write_images(tmp_path / split, images[chosen], labels[chosen])
    words = ["--arch", "resnet_20", "--dataset", "folder", "--data_dir", str(tmp_path)]
    words += ["--normalization", "imagenet", "--device", "cpu", "--checkpoint", str(CHECKPOINT)]
    found = call("main.py", "evaluate", *words, "--json").json
    assert (found["correct"], found["images"]) == (932, 1017)
    # conv and linear: 40.55 M multiply-accumulates; 0.27 M parameters, as the ResNet paper says
    assert found["macs"] == 40_551_040
    assert found["parameters"] == 269_722
