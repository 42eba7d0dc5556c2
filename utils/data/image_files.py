"""Image files in class folders: <split>/<class>/*, found and decoded."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from utils.runs.regular_file import check_regular

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ClassFiles = dict[str, list[str]]  # {class name: its files}, both sorted


def list_splits(
    root: Path, train_names: Sequence[str], test_names: Sequence[str]
) -> tuple[ClassFiles, ClassFiles]:
    """Return the train and the test files, each of the first folder named that has class folders.

    Files in subfolders belong to the class, too; hidden ones are passed over, and so are
    other suffixes, which is said on standard error.

    Raises:
        ValueError: a folder is missing or holds no images, or the splits have different classes.
    """
    if not root.is_dir():
        expected = f"{train_names[-1]}/ and {test_names[0]}/"
        raise ValueError(f"image folder {str(root)!r} does not exist: expected {expected}")
    train = _list_classes(_find_split(root, train_names))
    test = _list_classes(_find_split(root, test_names))
    _check_same_classes(root, list(train), list(test))
    return train, test


def labels_of(classes: ClassFiles) -> tuple[list[str], Tensor]:
    """Return all files, class by class, with their labels [N] int64."""
    files = [path for paths in classes.values() for path in paths]
    counts = torch.tensor([len(paths) for paths in classes.values()])
    return files, torch.arange(len(classes)).repeat_interleave(counts)


def decode_image(path: str, picture: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Return the pixels of what `picture` makes of the image, uint8 [3, H, W].

    `picture` is given the opened file, not decoded yet, and returns an RGB image, which `upright`
    makes of what files hold.

    Raises:
        ValueError: the file is not a whole image, or not one that has an 8-bit RGB image's colours.
    """
    check_regular(path, "image", "an image file")
    try:
        with Image.open(path) as image:
            if image.format == "PNG":  # whose decoder does not look at the checksums
                with Image.open(path) as again:
                    again.verify()
            return np.array(picture(image)).transpose(2, 0, 1)
    except _ColourError as error:
        raise ValueError(f"image {path!r} {error}") from None
    except Exception as error:  # PIL's decoders raise a dozen unrelated types on damaged files
        raise ValueError(f"cannot decode {path!r}: expected a whole image ({error})") from error


class _ColourError(ValueError):
    """A whole image, whose colours cannot be told; the words follow its name."""


def upright(image: Image.Image) -> Image.Image:
    """Return an image as it is to be seen: RGB, turned as its EXIF data say; decodes it.

    Grey values of 16 bits are scaled to 8, to the nearest; CMYK, palettes and grey become RGB as
    PIL does it. Of an alpha channel, the colours that lie under it are taken, as torchvision does.

    Raises:
        ValueError: values of 32 bits, whose black and white no file tells, or pixels that a palette
            or a key makes transparent, which have no colour of their own.
    """
    turn = _TURNS.get(_orientation(image))
    clear = "transparency" in image.info
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        if clear:
            raise _ColourError("has a transparent grey: expected opaque pixels")
        grey = np.asarray(image).astype(np.float64)  # in either order of bytes
        image = Image.fromarray(np.rint(grey / 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = {"I": "whole numbers", "F": "floats"}[image.mode]
        raise _ColourError(f"holds {kind} of 32 bits: expected 8 or 16 bits")
    elif clear:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise _ColourError("has transparent pixels: expected opaque ones")
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Return EXIF's number for how an image is turned; 1, upright, where its data are broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the data are beside the image: it is whole without
        return 1


def _find_split(root: Path, names: Sequence[str]) -> Path:
    """Return the first folder of `names` that has class folders (ImageNet's test/ has none)."""
    for name in names:
        if (root / name).is_dir() and _subfolders(root / name):
            return root / name
    expected = " or ".join(f"{name}/<class>/" for name in names)
    raise ValueError(f"image folder {str(root)!r}: expected {expected} with images, found none")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _list_classes(split: Path) -> ClassFiles:
    classes, others = {}, []
    for folder in _subfolders(split):
        classes[folder.name] = _list_images(folder, others)
    for name, files in classes.items():
        if not files:
            suffixes = " ".join(IMAGE_SUFFIXES)
            found = f", found {_some(others)}" if others else ""
            raise ValueError(
                f"no images in {str(split / name)!r}: expected files in {suffixes}{found}"
            )
    if others:
        suffixes = " ".join(IMAGE_SUFFIXES)
        print(
            f"{split}: {len(others)} files are skipped ({_some(others)}), images are those "
            f"in {suffixes}",
            file=sys.stderr,
        )
    return classes


def _some(files: Sequence[str]) -> str:
    return ", ".join(Path(name).name for name in files[:3]) + ", ..." * (len(files) > 3)


def _list_images(folder: Path, others: list[str]) -> list[str]:
    """Return the image files under `folder`, as words: a million `Path`s are slow and large.

    Files of other suffixes, but for hidden ones, are added to `others`.
    """
    images = []
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            if not name.startswith("."):
                found = images if name.lower().endswith(IMAGE_SUFFIXES) else others
                found.append(os.path.join(place, name))  # noqa: PTH118
    return sorted(images)


def _check_same_classes(root: Path, train: list[str], test: list[str]) -> None:
    only_one = sorted(set(train) ^ set(test))
    if only_one:
        where = "train" if only_one[0] in train else "test"
        raise ValueError(
            f"image folder {str(root)!r}: class {only_one[0]!r} is in the {where} split alone "
            f"({len(train)} train classes, {len(test)} test classes), expected the same classes"
        )
