"""ImageNet, or photos in class folders like its: large, of any size, never all in memory."""

from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from utils.data.image_files import ClassFiles, decode_image, labels_of, list_splits, upright
from utils.data.image_stream import ImageStream
from utils.data.images import Dataset

_TRAIN, _TEST = ("ILSVRC2012_img_train", "train"), ("val",)
_RESIZED = 256 / 224  # the shorter side of a test image, by the side of its central crop


def load_imagenet(data_dir: str | Path, image_size: int, workers: int) -> Dataset:
    """Return the photos under `data_dir`, read as `read_photo` does, by so many processes.

    The train images are in ILSVRC2012_img_train/<class>/ or train/<class>/, the test images in
    val/<class>/, and come sorted by path; so do the classes.

    Raises:
        ValueError: a folder is missing or holds no images, or the splits have different classes.
    """
    from torchvision import transforms  # noqa: F401  here once, not in each worker of each epoch

    train, test = list_splits(Path(data_dir), _TRAIN, _TEST)

    def stream(classes: ClassFiles, name: str) -> ImageStream:
        read = partial(read_photo, image_size=image_size)
        return ImageStream(*labels_of(classes), tuple(classes), name, read, workers)

    return Dataset(stream(train, "imagenet train"), stream(test, "imagenet val"), "imagenet")


def read_photo(path: str, seed: int | None, *, image_size: int) -> Tensor:
    """Return one photo, uint8 [3, image_size, image_size]: the standard transforms of ImageNet.

    With a seed, RandomResizedCrop and a random flip, as the seed alone decides. Without one,
    Resize and CenterCrop, to 256 and to 224 pixels or in that proportion. There a large JPEG is
    decoded at a half, a quarter or an eighth of its size, as long as no side is enlarged later.

    Raises:
        ValueError: the file is not a whole image.
    """
    from torchvision import transforms  # takes seconds to import

    def plain(photo: Image.Image) -> Image.Image:
        shorter = round(image_size * _RESIZED)
        photo.draft(None, (shorter, shorter))
        resized = transforms.Resize(shorter)(upright(photo))
        return transforms.CenterCrop(image_size)(resized)

    def cropped(photo: Image.Image) -> Image.Image:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            crop = transforms.RandomResizedCrop(image_size)(upright(photo))
            return transforms.RandomHorizontalFlip()(crop)

    return torch.from_numpy(decode_image(path, plain if seed is None else cropped))
