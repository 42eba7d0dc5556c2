"""The training recipe: how long, how fast, how the learning rate falls."""

import math
from dataclasses import dataclass

SCHEDULES = ("step", "cosine", "exponential", "constant")
AMP = ("auto", "off", "bfloat16")
CHANNELS_LAST = ("auto", "off", "on")


@dataclass(frozen=True)
class Recipe:
    """SGD's settings for one training or fine-tuning.

    `decay_epochs` and `decay_factor` are for the "step" schedule: the learning rate is multiplied
    by the factor from each of these epochs on, counted from 0, as torch's MultiStepLR does.
    During the first `warmup_epochs` the rate rises with every step.

    Gradients of `accumulate` batches make one step, cut to `clip_norm`. Training ends `patience`
    epochs after the best. `ema` is the decay of the averaged weights that are evaluated and kept.
    `distill_*` are for a training that is given a teacher: its share of the loss and the softness
    of its answers. `amp` and `channels_last` change the arithmetic, on a GPU by default
    (the latter on a CPU, too, see `memory_layout`).

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
    warmup_epochs: int = 0
    clip_norm: float | None = None
    accumulate: int = 1
    patience: int | None = None
    ema: float | None = None
    distill_weight: float = 0.9
    distill_temperature: float = 4.0
    amp: str = "auto"
    channels_last: str = "auto"
    compile: bool = False

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
        warmup, most = self.warmup_epochs, f"0 or more, less than the {self.epochs} epochs"
        _check("warmup_epochs", warmup, 0 <= warmup < self.epochs, most)
        self._check_step()

    def _check_step(self):
        norm, patience, ema = self.clip_norm, self.patience, self.ema
        weight, temperature = self.distill_weight, self.distill_temperature
        _check("clip_norm", norm, norm is None or 0 < norm < math.inf, "a number above 0")
        _check("accumulate", self.accumulate, self.accumulate >= 1, "at least 1")
        _check("patience", patience, patience is None or patience >= 1, "at least 1")
        _check("ema", ema, ema is None or 0 <= ema < 1, "0 <= ema < 1")
        _check("distill_weight", weight, 0 <= weight <= 1, "0 <= distill_weight <= 1")
        above_0 = 0 < temperature < math.inf
        _check("distill_temperature", temperature, above_0, "a number above 0")
        _check("amp", self.amp, self.amp in AMP, f"one of {AMP}")
        last = self.channels_last
        _check("channels_last", last, last in CHANNELS_LAST, f"one of {CHANNELS_LAST}")


def learning_rate(recipe: Recipe, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Return the learning rate of step `step` of the `steps` of an epoch, both counted from 0.

    Only the warm-up tells the steps of an epoch apart: it rises in a straight line to 1, at its
    last step. "exponential" falls to 0.96 of itself with each epoch and, as HRankPlus has it, warms
    up by one stair an epoch. "cosine" ends its fall with the epochs, and starts it behind the
    warm-up, before which HRankPlus lets it go on backwards.
    """
    rate = recipe.lr * _decay(recipe, epoch)
    if epoch < recipe.warmup_epochs:
        done = epoch * steps + (1 if recipe.schedule == "exponential" else step)
        rate *= (1 + done) / (recipe.warmup_epochs * steps)
    return rate


def _decay(recipe: Recipe, epoch: int) -> float:
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "exponential":
        return 0.96**epoch
    if recipe.schedule == "cosine":
        start = recipe.warmup_epochs
        return (1 + math.cos(math.pi * (epoch - start) / (recipe.epochs - start))) / 2
    return recipe.decay_factor ** sum(epoch >= start for start in recipe.decay_epochs)


def _check(name: str, value: object, legal: bool, expected: str) -> None:
    if not legal:
        raise ValueError(f"{name} is {value!r}: expected {expected}")
