"""Options of a command that trains, and the recipe they spell."""

from dataclasses import dataclass

from utils.runs.options import option
from utils.training.schedules import SCHEDULES, Recipe

_OFFICIAL_NAMES = {"cos": "cosine", "exp": "exponential", "fixed": "constant"}


def schedule_name(word: str) -> str:
    """Return the name of a learning rate schedule that HRankPlus may spell otherwise."""
    return _OFFICIAL_NAMES.get(word, word)


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained; the defaults are the official fine-tuning's."""

    epochs: int = option(15, "epochs of fine-tuning (of each layer, layerwise)", group="training")
    lr: float = option(0.01, "learning rate", flags=("--learning_rate",), group="training")
    lr_decay_step: tuple[int, ...] = option(
        (5, 10), "epochs at which the learning rate falls to a tenth", group="training"
    )
    lr_schedule: str = option(
        "step",
        "how it falls; cos, exp and fixed are known, too",
        choices=SCHEDULES,
        flags=("--lr_type",),
        type=schedule_name,
        group="training",
    )
    warmup_epochs: int = option(0, "epochs in which it rises, step by step", group="training")
    train_batch_size: int = option(
        128, "images per step", flags=("--batch_size",), group="training"
    )
    momentum: float = option(0.9, "momentum of SGD", group="training")
    weight_decay: float = option(5e-4, "weight decay of SGD", group="training")
    label_smoothing: float = option(
        0.0, "label smoothing", flags=("--label_smooth",), group="training"
    )
    select_on: str = option(
        "val",
        "what the best epoch is chosen by: a validation split held out of train, the test images "
        "(as the official code does), or nothing (the last epoch)",
        choices=("val", "test", "last"),
        group="training",
    )
    val_fraction: float = option(
        0.1, "share of train held out for --select_on val", group="training"
    )

    @property
    def held_out(self) -> float | None:
        """Share of the train images that training must not see; None where it sees all."""
        return self.val_fraction if self.select_on == "val" else None

    def training_recipe(self, seed: int) -> Recipe:
        """Return the settings of the training; `epochs` must not be 0.

        Raises:
            ValueError: a setting is out of range.
        """
        return Recipe(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.train_batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.lr_schedule,
            decay_epochs=self.lr_decay_step,
            seed=seed,
            label_smoothing=self.label_smoothing,
            warmup_epochs=self.warmup_epochs,
        )
