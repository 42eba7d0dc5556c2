"""Files of other kinds than 8-bit RGB: the right pixels in both ways to read, or a refusal."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.data.image_folder import load_image_folder
from utils.data.imagenet import read_photo

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (16, 16), np.uint8)
COLOUR = RANDOM.integers(0, 256, (16, 16, 3), np.uint8)


def in_folder(path: Path) -> torch.Tensor:
    return load_image_folder(path.parents[2], 16).train.images[0]


def as_photo(path: Path) -> torch.Tensor:
    return read_photo(str(path), None, image_size=16)


def as_cropped_photo(path: Path) -> torch.Tensor:
    return read_photo(str(path), 3, image_size=16)


READERS = (in_folder, as_photo, as_cropped_photo)


@pytest.fixture
def saved(tmp_path):
    """A function that saves an image, in a format whatever the name, as the folder's only one."""

    def save(name: str, picture: Image.Image, **options) -> Path:
        for split in ("train", "test"):
            place = tmp_path / name / split / "a" / "image.png"
            place.parent.mkdir(parents=True)
            picture.save(place, **{"format": "PNG", **options})
        return tmp_path / name / "train" / "a" / "image.png"

    return save


def palette(transparent: bool):
    picture = Image.fromarray(COLOUR).quantize(8)
    if transparent:
        picture.info["transparency"] = picture.getpixel((0, 0))
    return picture


def with_alpha(grey: bool, least: int):
    alpha = np.full((16, 16, 1), 255, np.uint8)
    alpha[3, 4] = least
    return Image.fromarray(np.concatenate([GREY[..., None] if grey else COLOUR, alpha], axis=2))


def sixteen_bits():
    """Greys that lie within half of 257 of 257 times an 8-bit one."""
    near = RANDOM.integers(-128, 129, (16, 16))
    return Image.fromarray((GREY.astype(int) * 257 + near).clip(0, 65535).astype(np.uint16))


INKS = RANDOM.integers(0, 256, (16, 16, 4), np.uint8)
# the share of white paper under an ink, of each of three, and what the black ink leaves of it
PRINTED = np.rint((255.0 - INKS[..., :3]) * (255.0 - INKS[..., 3:]) / 255)
THREE_GREYS = np.stack([GREY] * 3, axis=2)
TIFF = {"format": "TIFF"}
RIGHT = {
    "grey": (Image.fromarray(GREY), {}, THREE_GREYS),
    "16-bit grey": (sixteen_bits(), {}, THREE_GREYS),
    "16-bit grey TIFF": (sixteen_bits(), TIFF, THREE_GREYS),
    "alpha": (with_alpha(False, 0), {}, COLOUR),
    "grey alpha": (with_alpha(True, 100), {}, THREE_GREYS),
    "palette": (palette(False), {}, np.array(palette(False).convert("RGB"))),
    "black and white": (
        Image.fromarray(GREY > 127),
        {},
        np.where(THREE_GREYS > 127, 255, 0),
    ),
    "CMYK": (Image.fromarray(INKS, "CMYK"), TIFF, PRINTED),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", RIGHT)
def test_the_pixels_are_those_of_an_rgb_image_of_the_same_colours(saved, kind, read):
    picture, options, expected = RIGHT[kind]
    plain = saved("plain", Image.fromarray(expected.astype(np.uint8)))
    found, wanted = read(saved("odd", picture, **options)).int(), read(plain).int()
    assert (found - wanted).abs().max() <= (kind == "CMYK")  # which PIL rounds otherwise


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("number", range(1, 9))
def test_a_turn_that_exif_tells_is_made(saved, number, read):
    """The picture, turned back from upright as each of the standard's eight numbers has it."""
    upright = COLOUR[:12]
    rows = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[number]
    exif = Image.Exif()
    exif[0x0112] = number
    stored = Image.fromarray(np.ascontiguousarray(rows))
    found = read(saved("turned", stored, exif=exif))
    assert torch.equal(found, read(saved("upright", Image.fromarray(upright))))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("picture", "options", "expected"),
    [
        (Image.fromarray(GREY.astype(np.int32)), TIFF, "holds whole numbers of 32 bits"),
        (Image.fromarray(GREY.astype(np.float32)), TIFF, "holds floats of 32 bits"),
        (palette(True), {}, "has transparent pixels"),
    ],
)
def test_an_image_whose_colours_no_file_tells_is_refused(saved, read, picture, options, expected):
    path = saved("odd", picture, **options)
    with pytest.raises(ValueError, match=rf"image '.*image\.png' {expected}: expected"):
        read(path)


@pytest.mark.parametrize("read", READERS)
def test_a_flipped_bit_of_a_png_is_found(saved, read):
    path = saved("plain", Image.fromarray(COLOUR))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # amid the pixels, which random ones are stored as they are
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot decode '.*image\.png': expected a whole image"):
        read(path)


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_among_the_images_is_named_at_once(saved, read):
    path = saved("plain", Image.fromarray(COLOUR))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"image\.png is a pipe: expected an image file"):
        read(path)


def test_files_that_are_no_images_are_counted_and_named(saved, capsys):
    path = saved("plain", Image.fromarray(COLOUR))
    for name in ("b.tif", "c.tif", "a.txt", "d.gif", ".hidden"):
        (path.parent / name).touch()
    in_folder(path)
    assert "train: 4 files are skipped (a.txt, b.tif, c.tif, ...), images" in (
        capsys.readouterr().err
    )
