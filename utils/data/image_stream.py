"""Images that stay in their files and are read batch by batch, by worker processes."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from utils.data.images import ImageSource

# (path, seed of the random crop, or None for a plain image) -> pixels, uint8 [3, H, W]
Read = Callable[[str, int | None], Tensor]


@dataclass(frozen=True, eq=False)
class ImageStream(ImageSource):
    """Images in `files`, decoded by `read` in as many processes as `workers` (0: in this one)."""

    files: Sequence[str]
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    read: Read
    workers: int

    def subset(self, indices: Tensor | Sequence[int], name: str | None = None) -> "ImageStream":
        """Return the images at `indices`, in that order, under the same name or another."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        files = [self.files[index] for index in indices.tolist()]
        return replace(self, files=files, labels=self.labels[indices], name=name or self.name)

    def to(self, device: torch.device | str) -> "ImageStream":
        """Return the stream itself: it holds no images in memory."""
        return self

    def pixels(
        self,
        order: Tensor,
        spans: Sequence[slice],
        *,
        device: torch.device,
        crops: torch.Generator | None,
    ) -> Iterator[Tensor]:
        """Yield batches as every source does, the same ones whatever the number of workers.

        Raises:
            ValueError: a file cannot be read.
        """
        files = [self.files[index] for index in order.tolist()]
        wanted = list(zip(files, _seeds(len(order), crops), strict=True))
        loader = DataLoader(
            _BatchReader(self.read, wanted[:1]),
            batch_size=None,  # an item is a batch
            sampler=(wanted[span] for span in spans),
            num_workers=min(self.workers, len(spans)),
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else it would draw from the run's random numbers
        )
        for found in _begin(loader):
            if isinstance(found, ValueError):
                raise found
            yield found.to(device, non_blocking=True)


class _BatchReader:
    """Reads the files of a batch, [(path, seed)] -> uint8 [B, 3, H, W]."""

    def __init__(self, read: Read, some: list[tuple[str, int | None]]) -> None:
        self.read, self.some = read, some

    def __getitem__(self, batch: list[tuple[str, int | None]]) -> Tensor | ValueError:
        try:
            # a batch of no image has the size of the others all the same
            images = torch.stack([self.read(path, seed) for path, seed in batch or self.some])
            return images[: len(batch)]
        except ValueError as error:  # raised here, it would come out with a worker's traceback
            return error


def _seeds(num_images: int, crops: torch.Generator | None) -> list[int] | list[None]:
    """Return a seed for each image of an epoch, so that no worker's random numbers decide."""
    if crops is None:
        return [None] * num_images
    return torch.randint(2**63 - 1, (num_images,), generator=crops).tolist()


def _begin(loader: DataLoader) -> Iterator[Tensor | ValueError]:
    """Start the workers. They decode images, and wait for no thread of this process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*multi-threaded, use of fork", DeprecationWarning)
        return iter(loader)
