"""Two recipes of training, the official and this repository's, timed in turns."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.benchmarks.official_recipe import (
    OfficialMasks,
    PilImages,
    official_batches,
    official_epoch,
)
from utils.data.gpu_loader import batches
from utils.data.images import ImageSet
from utils.metrics.latency import rotated, wait_for
from utils.planning.plan import Planned
from utils.removal.masks import ChannelMasks
from utils.training.loop import train_epoch
from utils.training.schedules import Recipe
from utils.training.steps import TrainingStep, make_optimizer

_NORMALIZATION = "cifar10"

Batches = Iterator[tuple[Tensor, Tensor]]  # images [B, 3, S, S], labels [B]
AfterStep = Callable[[], None] | None


@dataclass(frozen=True)
class Contestant:
    """One way to train: `start(seed)` begins an epoch, `use` takes its batches, one by one."""

    start: Callable[[int], Batches]
    use: Callable[[Batches], Any]


class Recipes:
    """Both recipes on the same images, with CIFAR-10's mean and deviation."""

    def __init__(self, images: ImageSet, recipe: Recipe, device: torch.device):
        self._official_images = PilImages(images, _NORMALIZATION)
        self._images = images.to(device)
        self._recipe = recipe
        self.device = device

    def official(self, model: nn.Module, after_step: AfterStep = None) -> Contestant:
        """Return the official recipe of training `model`."""
        recipe = self._recipe
        optimizer = torch.optim.SGD(
            model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
        )
        how = {"optimizer": optimizer, "device": self.device, "after_step": after_step}
        return Contestant(self._official_batches, partial(official_epoch, model, **how))

    def here(self, model: nn.Module, after_step: AfterStep = None) -> Contestant:
        """Return this repository's recipe of training `model`."""
        optimizer = make_optimizer(model, self._recipe)
        step = TrainingStep(model, optimizer, self._recipe, after_step=after_step)
        return Contestant(self._batches_here, partial(train_epoch, step))

    def images_alone(self) -> dict[str, Contestant]:
        """Return both recipes without a network: their images reach the device, and no more."""
        starts = {"official": self._official_batches, "here": self._batches_here}
        return {name: Contestant(start, self._read) for name, start in starts.items()}

    def _official_batches(self, seed: int) -> Batches:
        return official_batches(self._official_images, self._recipe.batch_size, seed)

    def _batches_here(self, seed: int) -> Batches:
        how = {"device": self.device, "augment": True, "seed": seed}
        return batches(self._images, self._recipe.batch_size, _NORMALIZATION, **how)

    def _read(self, found: Batches) -> None:
        for batch in found:
            _ = [tensor.to(self.device) for tensor in batch]


def speeds(
    contestants: Mapping[str, Contestant],
    *,
    steps: int | None,
    repeats: int,
    device: torch.device,
) -> dict[str, list[float]]:
    """Return the images per second of each contestant in each round, {name: [repeats]}.

    In a round each begins an epoch, takes one batch that is not timed and then `steps` batches
    (None: the rest of the epoch); every round begins with another contestant.
    """
    names, found = list(contestants), {name: [] for name in contestants}
    for turn in range(repeats):
        for name in rotated(names, turn):
            found[name].append(round(_speed(contestants[name], turn, steps, device), 2))
    return found


def _speed(contestant: Contestant, seed: int, steps: int | None, device: torch.device) -> float:
    taken = contestant.start(seed)  # held here: its workers shall not end within the time
    started, images = 0.0, 0

    def timed() -> Batches:
        nonlocal started, images
        yield next(taken)
        wait_for(device)
        started = time.perf_counter()
        for batch in islice(taken, steps):
            images += len(batch[1])
            yield batch

    contestant.use(timed())
    wait_for(device)
    return images / (time.perf_counter() - started)


def contestants_of(planned: Planned, recipes: Recipes) -> dict[str, Contestant]:
    """Return both recipes on the dense and the masked network and, here alone, the removed one.

    Each trains a copy of its own, from the same weights.
    """
    graph, masks = planned.graph, planned.plan.masks()

    def dense() -> nn.Module:
        return copy.deepcopy(planned.dense.model).to(recipes.device)

    officially, here = dense(), dense()  # masked
    return {
        "official dense": recipes.official(dense()),
        "here dense": recipes.here(dense()),
        "official masked": recipes.official(
            officially, OfficialMasks(officially, graph, masks).apply
        ),
        "here masked": recipes.here(here, ChannelMasks(here, graph, masks).apply),
        "here removed": recipes.here(copy.deepcopy(planned.slim).to(recipes.device)),
    }
