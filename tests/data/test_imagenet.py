"""Laws of photos: torchvision's own transforms of each, in every kind of file, or an error."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from utils.data.imagenet import load_imagenet, read_photo

SIZES = [(90, 60), (60, 90), (256, 256), (40, 300), (20, 25), (500, 375)]


def noise(width, height, mode="RGB", seed=0):
    """A picture with shapes of all scales, of any mode."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, len(Image.new(mode, (1, 1)).getbands())))
    picture = Image.fromarray(pixels.astype(np.uint8).squeeze(), mode if mode == "CMYK" else None)
    return picture.filter(ImageFilter.GaussianBlur(min(width, height) / 20))


@pytest.fixture
def save(tmp_path):
    """A function that saves a picture as a file and returns its path."""

    def write(picture, name="photo.JPEG", **options):
        picture.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return write


@pytest.fixture
def folder(tmp_path):
    """Two classes, with one photo each to train on, as the official code wants them."""
    for split in ("ILSVRC2012_img_train", "val"):
        for seed, name in enumerate(("n02", "n01")):
            (tmp_path / split / name).mkdir(parents=True)
            noise(60, 50, seed=seed).save(tmp_path / split / name / f"{split}_{name}.JPEG")
    return tmp_path


def pixels_of(picture):
    return transforms.functional.pil_to_tensor(picture)


@pytest.mark.parametrize("size", SIZES)
def test_a_plain_photo_is_resized_and_cropped_as_torchvision_does(save, size):
    path = save(noise(*size))
    slow = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    assert torch.equal(
        read_photo(path, None, image_size=224), pixels_of(slow(Image.open(path).convert("RGB")))
    )


@pytest.mark.parametrize("size", [(1600, 1200), (520, 700)])
def test_a_large_photo_decoded_at_less_than_its_size_looks_the_same(save, size):
    path = save(noise(*size), quality=90)
    slow = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    expected = pixels_of(slow(Image.open(path).convert("RGB"))).float()
    difference = (read_photo(path, None, image_size=224).float() - expected).abs()
    assert 0 < difference.mean() < 0.5  # of 255
    assert difference.max() <= 4


@pytest.mark.parametrize("size", SIZES)
def test_a_random_crop_is_torchvisions_with_that_seed(save, size):
    path, photo = save(noise(*size)), None
    photo = Image.open(path).convert("RGB")
    slow = transforms.Compose([transforms.RandomResizedCrop(32), transforms.RandomHorizontalFlip()])
    for seed in range(8):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = pixels_of(slow(photo))
        assert torch.equal(read_photo(path, seed, image_size=32), expected)


def test_reading_leaves_the_random_numbers_alone(save):
    path, before = save(noise(60, 50)), torch.get_rng_state()
    read_photo(path, 3, image_size=32)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "grey.JPEG"), ("CMYK", "print.JPEG"), ("RGBA", "a_png_inside.JPEG")]
)
@pytest.mark.parametrize("seed", [None, 5])
def test_photos_of_every_mode_become_rgb(save, mode, name, seed):
    picture = Image.new(mode, (70, 50), tuple([90] * len(Image.new(mode, (1, 1)).getbands())))
    found = read_photo(
        save(picture, name, format="PNG" if mode == "RGBA" else "JPEG"), seed, image_size=32
    )
    assert (found.dtype, found.shape) == (torch.uint8, (3, 32, 32))
    expected = {"L": 90, "CMYK": (255 - 90) * (255 - 90) / 255, "RGBA": 90}[mode]
    assert (found.float() - expected).abs().max() <= 2


@pytest.mark.parametrize("train", ["ILSVRC2012_img_train", "train"])
def test_both_layouts_are_read_with_sorted_classes(folder, train):
    (folder / "ILSVRC2012_img_train").rename(folder / train)
    (folder / "test").mkdir()  # ImageNet's own, without labels
    dataset = load_imagenet(folder, 32, workers=0)
    assert dataset.train.classes == dataset.test.classes == ("n01", "n02")
    assert dataset.train.labels.tolist() == [0, 1]
    assert [path.split("/")[-2] for path in dataset.train.files] == ["n01", "n02"]
    assert [dataset.name, dataset.train.name, dataset.test.name] == [
        "imagenet",
        "imagenet train",
        "imagenet val",
    ]
    assert torch.equal(
        dataset.test.read(dataset.test.files[1], None),
        read_photo(str(folder / "val" / "n02" / "val_n02.JPEG"), None, image_size=32),
    )


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"folder '.*nowhere' does not exist: .* train/ and val/"):
        load_imagenet(tmp_path / "nowhere", 32, workers=0)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("ILSVRC2012_img_train", "ILSVRC2012_img_train/<class>/ or train/<class>/"),
        ("val", "val/<class>/"),
    ],
)
def test_a_missing_split_is_named(folder, split, expected):
    (folder / split).rename(folder / "elsewhere")
    with pytest.raises(ValueError, match=f"expected {expected} with images, found none"):
        load_imagenet(folder, 32, workers=0)


def test_a_class_without_photos_is_named(folder):
    (folder / "val" / "n03").mkdir()
    with pytest.raises(ValueError, match=r"no images in '.*n03': expected files in .bmp"):
        load_imagenet(folder, 32, workers=0)


def test_a_class_of_one_split_alone_is_named(folder):
    (folder / "val" / "n02").rename(folder / "val" / "n03")
    with pytest.raises(ValueError, match="class 'n02' is in the train split alone"):
        load_imagenet(folder, 32, workers=0)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.95])
def test_a_broken_photo_is_named(save, seed, keep):
    path = save(noise(300, 200))
    with Path(path).open("rb+") as file:
        file.truncate(int(keep * len(file.read())))
    with pytest.raises(ValueError, match=r"cannot decode '.*photo.JPEG': expected a whole image"):
        read_photo(path, seed, image_size=32)
