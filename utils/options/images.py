"""The images that a command's options name, and how they come in batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from utils.data.gpu_loader import batches, num_batches
from utils.data.images import ImageSource, draw_images, split_validation
from utils.data.load import load_dataset
from utils.graph.network import Network
from utils.metrics.accuracy import Accuracy, measure_accuracy
from utils.options.data_options import DataOptions
from utils.options.devices import open_device
from utils.runs import processes
from utils.runs.bars import bar
from utils.training.loop import epoch_seed


@dataclass(frozen=True)
class Images:
    """Train, validation (or None) and test images, and how they come in batches."""

    train: ImageSource
    validation: ImageSource | None
    test: ImageSource
    name: str
    normalization: str
    eval_batch_size: int
    device: torch.device

    @property
    def num_classes(self) -> int:
        """Number of classes of the images."""
        return len(self.test.classes)

    def training_batches(
        self, batch_size: int, seed: int, stage: str
    ) -> Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]:
        """Return (epoch, start) -> its shuffled, augmented batches, from number `start` on.

        Of several processes, each gets its part of every batch.

        The same epoch gives the same ones. A last batch of a single image is left out: batch norm
        cannot train on it.
        """

        def batches_of(epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
            return batches(
                self.train,
                batch_size,
                self.normalization,
                device=self.device,
                augment=True,
                seed=epoch_seed(seed, f"images of {stage}", epoch),
                drop_last=self._single_left(batch_size),
                select=lambda spans: processes.part_of_each(spans[start:]),
            )

        return batches_of

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches of an epoch."""
        return num_batches(self.train, batch_size, self._single_left(batch_size))

    def _single_left(self, batch_size: int) -> bool:
        return len(self.train) > batch_size > 1 == len(self.train) % batch_size

    def evaluation_batches(self, images: ImageSource) -> Iterator[tuple[Tensor, Tensor]]:
        """Return all of `images` in order, in batches of the evaluation size.

        Of several processes, each gets a batch in turn.
        """
        how = {"device": self.device, "select": processes.in_turn}
        found = batches(images, self.eval_batch_size, self.normalization, **how)
        own = processes.in_turn(range(num_batches(images, self.eval_batch_size)))
        return iter(bar(found, total=len(own), desc=images.name, unit="batch", leave=False))

    def recalibration_batches(self, count: int, seed: int) -> Iterator[Tensor]:
        """Return at most `count` plain train images, drawn by the seed, [N, 3, H, W], N > 1.

        Of several processes, each gets a batch in turn.
        """
        count = min(count, len(self.train))
        count -= count % self.eval_batch_size == 1  # a norm needs two
        images = draw_images(self.train, count, seed)
        return (batch for batch, _ in self.evaluation_batches(images))

    def first_batch(self, images: ImageSource) -> Tensor:
        """Return the first evaluation batch, [N, 3, H, W], the same in every process."""
        images = images.subset(range(min(self.eval_batch_size, len(images))))
        batch, _ = next(batches(images, len(images), self.normalization, device=self.device))
        return batch

    def accuracies(self, model: nn.Module) -> Mapping[str, Accuracy]:
        """Return {"val": ..., "test": ...}, without "val" where nothing is held out."""
        sets = {"val": self.validation, "test": self.test}
        return {
            name: measure_accuracy(model, self.evaluation_batches(images))
            for name, images in sets.items()
            if images is not None
        }


def check_classes(network: Network, classes: Sequence[str], name: str) -> None:
    """Refuse images of other classes than the network tells apart.

    Raises:
        ValueError: their numbers differ.
    """
    if network.num_classes != len(classes):
        raise ValueError(
            f"dataset {name!r} has {len(classes)} classes: "
            f"expected the {network.num_classes} of the network"
        )


def open_images(
    options: DataOptions,
    network: Network,
    device: torch.device | None = None,
    *,
    val_fraction: float | None = None,
    any_classes: bool = False,
) -> Images:
    """Load the images that the options name and hold out `val_fraction` of train (None: nothing).

    They have the size that the network reads, and go to `device`, by default the one that the
    options name. `any_classes`: the network is yet to be built, for as many as there are.

    Raises:
        ValueError: the images cannot be loaded, or their classes are not the network's.
    """
    device = device or open_device(options.device, options.gpu)
    with processes.first_ahead():  # it may have to download them
        data = load_dataset(
            options.dataset,
            options.data_dir,
            image_size=network.image_size,
            channels=network.image_channels,
            seed=options.seed,
            workers=-(-options.workers // processes.num_processes()),  # 0 stays 0
        )
    if not any_classes:
        check_classes(network, data.train.classes, data.name)
    train, validation = data.train, None
    if val_fraction is not None:
        train, validation = split_validation(train, val_fraction, options.seed)
    return Images(
        train.to(device),
        None if validation is None else validation.to(device),
        data.test.to(device),
        data.name,
        options.normalization,
        options.eval_batch_size,
        device,
    )
