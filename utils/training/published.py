"""The published training procedures, as values of the options of `prune`."""

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

# name -> dataset -> values; None stands for every other dataset
RECIPES: Mapping[str, Mapping[str | None, Mapping[str, Any]]] = MappingProxyType(
    {
        "hrank": {None: _HRANK},
        "hrankplus": {None: _HRANKPLUS, "imagenet": _HRANKPLUS_IMAGENET},
    }
)


def recipe_values(name: str, dataset: str | None) -> Mapping[str, Any]:
    """Return the values {option: value} of the recipe `name` for a dataset."""
    by_dataset = RECIPES[name]
    return by_dataset.get(dataset, by_dataset[None])
