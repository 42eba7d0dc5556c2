"""Laws of image folders: pixels as they are, or as torchvision resizes them, or an error."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as one_at_a_time

from utils.data.image_folder import load_image_folder


@pytest.fixture
def folder(tmp_path, write_image):
    """Two classes of 8x8 images, two to train on and one to test on each."""
    for seed, name in enumerate(("ant", "bee")):
        write_image(tmp_path / "train" / name / "0.png", seed=seed)
        write_image(tmp_path / "train" / name / "1.png", seed=seed + 10)
        write_image(tmp_path / "test" / name / "0.png", seed=seed + 20)
    return tmp_path


def test_png_pixels_come_back_exactly_and_sorted(tmp_path, write_image):
    pixels = {
        (split, name, file): write_image(tmp_path / split / name / f"{file}.png", seed=seed)
        for seed, (split, name, file) in enumerate(
            (split, name, file) for split in ("test", "train") for name in "cab" for file in "20"
        )
    }
    dataset = load_image_folder(tmp_path, 8)
    assert dataset.name == tmp_path.name
    for split, image_set in (("train", dataset.train), ("test", dataset.test)):
        assert image_set.classes == ("a", "b", "c")
        assert image_set.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert image_set.name == f"{tmp_path.name} {split}"
        expected = np.stack([pixels[split, name, file] for name in "abc" for file in "02"])
        assert np.array_equal(image_set.images.permute(0, 2, 3, 1).numpy(), expected)


def test_real_images_survive_the_folder(tmp_path, cifar10_arrays):
    for split in ("train", "test"):
        for index in range(40):
            folder = tmp_path / split / str(cifar10_arrays[f"{split}_labels"][index])
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(cifar10_arrays[f"{split}_images"][index])
            picture.save(folder / f"{index:02}.png")
    dataset = load_image_folder(tmp_path, 32)
    for split, image_set in (("train", dataset.train), ("test", dataset.test)):
        order = np.argsort(cifar10_arrays[f"{split}_labels"][:40], kind="stable")
        expected = cifar10_arrays[f"{split}_images"][:40][order]
        assert np.array_equal(image_set.images.permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize(("width", "height"), [(8, 8), (40, 31), (17, 90), (5, 7), (8, 11)])
def test_other_sizes_are_resized_and_cropped_as_torchvision_does(
    folder, write_image, width, height
):
    pixels = write_image(folder / "test" / "ant" / "0.png", width, height)
    picture = one_at_a_time.resize(Image.fromarray(pixels), 8)
    expected = one_at_a_time.pil_to_tensor(one_at_a_time.center_crop(picture, 8))
    assert torch.equal(load_image_folder(folder, 8).test.images[0], expected)


def test_val_stands_in_for_test(folder, write_image):
    (folder / "test").rename(folder / "val")
    plain = load_image_folder(folder, 8)
    write_image(folder / "test" / "unlabelled.png")  # as in ImageNet
    assert torch.equal(load_image_folder(folder, 8).test.images, plain.test.images)


def test_grey_images_become_rgb_and_other_files_are_passed_over(folder):
    Image.new("L", (8, 8), 77).save(folder / "test" / "ant" / "0.png")
    (folder / "test" / "ant" / "notes.txt").write_text("not an image")
    (folder / "test" / "ant" / "._0.png").write_text("not an image either")
    images = load_image_folder(folder, 8).test.images
    assert len(images) == 2
    assert images[0].unique().tolist() == [77]


def test_images_in_subfolders_belong_to_the_class(folder, write_image):
    write_image(folder / "test" / "bee" / "deeper" / "1.PNG")
    assert load_image_folder(folder, 8).test.labels.tolist() == [0, 1, 1]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"image folder '.*nowhere' does not exist"):
        load_image_folder(tmp_path / "nowhere", 8)


@pytest.mark.parametrize(
    ("split", "expected"), [("train", "train/<class>/"), ("test", "test/<class>/ or val/<class>/")]
)
def test_a_missing_split_is_named(folder, split, expected):
    (folder / split).rename(folder / "elsewhere")
    with pytest.raises(ValueError, match=f"expected {expected} with images, found none"):
        load_image_folder(folder, 8)


def test_a_class_without_images_is_named(folder):
    (folder / "train" / "cow").mkdir()
    with pytest.raises(ValueError, match=r"no images in '.*cow': expected files in .bmp"):
        load_image_folder(folder, 8)


def test_classes_of_one_split_alone_are_named(folder):
    (folder / "test" / "bee").rename(folder / "test" / "wasp")
    with pytest.raises(ValueError, match="class 'bee' is in the train split alone"):
        load_image_folder(folder, 8)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_file_is_named(folder, write_image, suffix):
    path = folder / "train" / "bee" / f"2.{suffix}"
    write_image(path, 64, 64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cannot decode '.*2.{suffix}': expected a whole image"):
        load_image_folder(folder, 8)


def test_a_file_that_is_no_image_is_named(folder):
    (folder / "train" / "ant" / "0.png").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"cannot decode '.*0.png'"):
        load_image_folder(folder, 8)


def test_more_memory_than_the_limit_is_refused_before_decoding(folder):
    (folder / "train" / "ant" / "0.png").write_bytes(b"never read")
    with pytest.raises(ValueError, match=r"needs .* GiB of memory .* expected at most"):
        load_image_folder(folder, 8, memory_limit_bytes=6 * 3 * 8 * 8 - 1)


def test_an_impossible_size_is_refused(folder):
    with pytest.raises(ValueError, match="image size: expected at least 1 pixel, got 0"):
        load_image_folder(folder, 0)
