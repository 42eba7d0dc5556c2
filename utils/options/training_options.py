"""Options of a command that trains, and the recipe they spell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from utils.runs.options import option, refuse_below
from utils.training.published import RECIPES, training_values
from utils.training.schedules import AMP, CHANNELS_LAST, SCHEDULES, Recipe

_OFFICIAL_NAMES = {"cos": "cosine", "exp": "exponential", "fixed": "constant"}


def schedule_name(word: str) -> str:
    """Return the name of a learning rate schedule that HRankPlus may spell otherwise."""
    return _OFFICIAL_NAMES.get(word, word)


def recipe_option(values_of: Callable[..., Mapping[str, Any]]) -> Any:
    """Return the option --recipe; values_of(recipe, dataset, epochs) are what it stands for."""
    return option(
        None,
        "a complete procedure: as published by HRank or HRankPlus, or a modern one; other flags "
        "override it, and with fewer --epochs the warm-up is at most a quarter of them",
        choices=tuple(RECIPES),
        presets=lambda given: values_of(given["recipe"], given.get("dataset"), given.get("epochs")),
        group="training",
    )


def schedule_option(default: str) -> Any:
    """Return the option --lr_schedule."""
    return option(
        default,
        "learning rate schedule; cos, exp and fixed are accepted, too",
        choices=SCHEDULES,
        flags=("--lr_type",),
        type=schedule_name,
        group="training",
    )


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained; the defaults are the official fine-tuning's."""

    recipe: str | None = recipe_option(training_values)
    epochs: int = option(15, "epochs of fine-tuning (of each layer or step)", group="training")
    lr: float = option(0.01, "learning rate", flags=("--learning_rate",), group="training")
    lr_decay_step: tuple[int, ...] = option(
        (5, 10), "epochs at which the learning rate falls to a tenth", group="training"
    )
    lr_schedule: str = schedule_option("step")
    warmup_epochs: int = option(
        0, "warm-up epochs, in which the learning rate rises step by step", group="training"
    )
    train_batch_size: int = option(
        128, "images per step", flags=("--batch_size",), group="training"
    )
    momentum: float = option(0.9, "momentum of SGD", group="training")
    weight_decay: float = option(5e-4, "weight decay of SGD", group="training")
    label_smoothing: float = option(
        0.0, "label smoothing", flags=("--label_smooth",), group="training"
    )
    clip_norm: float | None = option(
        None, "clip the norm of the whole gradient to this value", group="training"
    )
    accumulate: int = option(
        1, "accumulate the gradients of N batches for a step", metavar="N", group="training"
    )
    ema: float | None = option(
        None,
        "evaluate and keep an exponential moving average of the weights, e.g. 0.999",
        metavar="DECAY",
        group="training",
    )
    patience: int | None = option(
        None, "stop N epochs after the best one", metavar="N", group="training"
    )
    select_on: str = option(
        "val",
        "how the best epoch is chosen: on a validation split held out of the training images, on "
        "the test images (as the official code does), or not at all (the last epoch)",
        choices=("val", "test", "last"),
        group="training",
    )
    val_fraction: float = option(
        0.1, "share of the training images held out for --select_on val", group="training"
    )
    amp: str = option(
        "auto",
        "train in bfloat16 where float32 is not needed; auto: on a GPU",
        choices=AMP,
        group="speed",
    )
    channels_last: str = option(
        "auto",
        "store images and weights channels last; auto: on a GPU and, in a training of five minutes "
        "or more, on a CPU where a few timed steps are faster so",
        choices=CHANNELS_LAST,
        group="speed",
    )
    compile: bool = option(
        False, "compile the network, which takes minutes, for faster steps", group="speed"
    )

    @property
    def held_out(self) -> float | None:
        """Share of the train images that training must not see; None where it sees all."""
        return self.val_fraction if self.select_on == "val" else None

    def training_recipe(self, seed: int) -> Recipe:
        """Return the settings of the training.

        Raises:
            ValueError: a setting is out of range.
        """
        refuse_below(self, 0, "epochs")
        if not 0 < self.val_fraction < 1:
            expected = "expected more than 0, less than 1"
            raise ValueError(f"validation fraction: {expected}, got {self.val_fraction}")
        if self.patience is not None and self.select_on == "last":
            raise ValueError(
                f"--patience is {self.patience} and --select_on 'last': expected val or test, "
                "since the last epoch is never worse than the best"
            )
        return Recipe(
            epochs=self.epochs or self.warmup_epochs + 1,  # without any, all else is checked
            lr=self.lr,
            batch_size=self.train_batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.lr_schedule,
            decay_epochs=self.lr_decay_step,
            seed=seed,
            label_smoothing=self.label_smoothing,
            warmup_epochs=self.warmup_epochs,
            clip_norm=self.clip_norm,
            accumulate=self.accumulate,
            ema=self.ema,
            patience=self.patience,
            amp=self.amp,
            channels_last=self.channels_last,
            compile=self.compile,
        )
