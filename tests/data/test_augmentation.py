"""Laws of the batched crops: what one image at a time would give."""

import torch
from torchvision.transforms import functional as one_at_a_time

from utils.data.augmentation import PADDING, crop_and_flip


def crop_and_flip_one(image, offset, flip):
    """The slow, obvious version, on one PIL image, with torchvision's own operations."""
    height, width = image.shape[1:]
    picture = one_at_a_time.pad(one_at_a_time.to_pil_image(image), PADDING)
    picture = one_at_a_time.crop(picture, *offset, height, width)
    return one_at_a_time.pil_to_tensor(one_at_a_time.hflip(picture) if flip else picture)


def test_batched_crops_are_the_crops_of_one_image_at_a_time(make_set):
    offsets = torch.cartesian_prod(torch.arange(9), torch.arange(9)).repeat(2, 1)  # every one
    flips = torch.arange(162) < 81
    images = make_set(162).images
    expected = [
        crop_and_flip_one(image, offset.tolist(), flip)
        for image, offset, flip in zip(images, offsets, flips, strict=True)
    ]
    assert torch.equal(crop_and_flip(images, offsets, flips), torch.stack(expected))


def test_crops_of_images_that_are_not_square():
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).view(2, 3, 4, 6)
    offsets, flips = torch.tensor([[0, 8], [5, 3]]), torch.tensor([True, False])
    expected = [crop_and_flip_one(images[i], offsets[i].tolist(), bool(flips[i])) for i in range(2)]
    assert torch.equal(crop_and_flip(images, offsets, flips), torch.stack(expected))
