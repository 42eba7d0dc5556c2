"""Whole training procedures, the published ones among them, as values of the options."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Of the HRank README; its code trains 15 epochs a layer where nothing is said.
_HRANK = {
    "schedule": "layerwise",
    "epochs": 30,
    "lr": 0.01,
    "lr_schedule": "step",
    "lr_decay_step": (5, 10),
    "warmup_epochs": 0,
    "train_batch_size": 128,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "label_smoothing": 0.0,
    "select_on": "test",
    "recalibrate": 0,  # statistics are trained alone
}
_HRANKPLUS = _HRANK | {
    "schedule": "oneshot",
    "epochs": 150,
    "lr_decay_step": (50, 100),
    "train_batch_size": 256,
}
_HRANKPLUS_IMAGENET = _HRANKPLUS | {
    "epochs": 90,
    "lr": 0.1,
    "lr_decay_step": (30, 60, 80),
    "warmup_epochs": 5,
    "train_batch_size": 64,
    "weight_decay": 1e-4,
    "label_smoothing": 0.1,
}
# Not published as such: what has become usual since, with HRankPlus's number of epochs.
_MODERN = {
    "schedule": "oneshot",
    "epochs": 150,  # HRankPlus's, so that the two can be compared
    "lr": 0.05,  # high rates regain more than the last, low ones (Renda et al., ICLR 2020)
    "lr_schedule": "cosine",  # no epochs to choose, and small steps at the end
    "lr_decay_step": (),
    "warmup_epochs": 5,  # what pruning broke makes large gradients first
    "train_batch_size": 128,  # HRank's, and twice the steps of HRankPlus's
    "momentum": 0.9,
    "weight_decay": 5e-4,  # HRank's
    "label_smoothing": 0.1,  # against overfitting, which 150 epochs of so few images bring
    "select_on": "val",  # no choice is made on the test images
    "recalibrate": 1000,
}
_MODERN_IMAGENET = _MODERN | {
    "epochs": 90,
    "train_batch_size": 256,  # for which lr 0.1 is usual; half of it, as weights are trained
    "weight_decay": 1e-4,  # HRankPlus's
}

# name -> dataset -> values; None stands for every other dataset
RECIPES: Mapping[str, Mapping[str | None, Mapping[str, Any]]] = MappingProxyType(
    {
        "hrank": {None: _HRANK},
        "hrankplus": {None: _HRANKPLUS, "imagenet": _HRANKPLUS_IMAGENET},
        "modern": {None: _MODERN, "imagenet": _MODERN_IMAGENET},
    }
)


def recipe_values(name: str, dataset: str | None, epochs: int | None = None) -> Mapping[str, Any]:
    """Return the values {option: value} of the recipe `name` for pruning on a dataset.

    Its warm-up is for its own number of epochs; of other `epochs` it takes a quarter at most.
    """
    by_dataset = RECIPES[name]
    values = by_dataset.get(dataset, by_dataset[None])
    if epochs is None:
        return values
    return {**values, "warmup_epochs": min(values["warmup_epochs"], epochs // 4)}


def training_values(name: str, dataset: str | None, epochs: int | None = None) -> Mapping[str, Any]:
    """Return the values of the recipe `name` that are for any training, not for pruning alone."""
    values = recipe_values(name, dataset, epochs)
    of_pruning = ("schedule", "recalibrate")
    return {option: value for option, value in values.items() if option not in of_pruning}
