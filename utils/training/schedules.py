"""The training recipe: how long, how fast, how the learning rate falls."""

import math
from dataclasses import dataclass

SCHEDULES = ("step", "cosine", "constant")


@dataclass(frozen=True)
class Recipe:
    """SGD's settings for one training or fine-tuning.

    `decay_epochs` and `decay_factor` are for the "step" schedule: the learning rate is multiplied
    by the factor from each of these epochs on, counted from 0, as torch's MultiStepLR does.

    Raises:
        ValueError: a setting outside its range.
    """

    epochs: int
    lr: float
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "step"
    decay_epochs: tuple[int, ...] = ()
    decay_factor: float = 0.1
    seed: int = 0
    label_smoothing: float = 0.0

    def __post_init__(self):
        increasing = sorted(set(self.decay_epochs)) == list(self.decay_epochs)
        positive = all(epoch >= 1 for epoch in self.decay_epochs)
        _check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _check("lr", self.lr, 0 < self.lr < math.inf, "a number above 0")
        _check("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "0 <= momentum < 1")
        _check("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        _check("schedule", self.schedule, self.schedule in SCHEDULES, f"one of {SCHEDULES}")
        _check("decay_epochs", self.decay_epochs, increasing and positive, "1 or more, increasing")
        _check("decay_factor", self.decay_factor, 0 < self.decay_factor <= 1, "above 0, at most 1")
        smoothing = self.label_smoothing
        _check("label_smoothing", smoothing, 0 <= smoothing < 1, "0 <= label_smoothing < 1")


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0; it is the same for the whole epoch."""
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
    decays = sum(epoch >= start for start in recipe.decay_epochs)
    return recipe.lr * recipe.decay_factor**decays


def _check(name: str, value: object, legal: bool, expected: str) -> None:
    if not legal:
        raise ValueError(f"{name} is {value!r}: expected {expected}")
