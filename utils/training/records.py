"""The record of an epoch: one flat dict, a line of log.jsonl, a point on TensorBoard's curves."""

from collections.abc import Mapping
from typing import Any

from utils.metrics.accuracy import Accuracy
from utils.runs.schema import NUMBER, TEXT, Kind, number, whole

_COLUMNS = ("correct", "images", "loss", "top1_percent")


def _adds_up(record: Mapping[str, Any]) -> bool:
    names = {
        key.removesuffix(f"_{column}")
        for key in record
        for column in _COLUMNS
        if key.endswith(f"_{column}") and not key.startswith("train_")
    }
    numbers = all(NUMBER.fits(value) for key, value in record.items() if key != "stage")
    whole_rows = all(f"{name}_{column}" in record for name in names for column in _COLUMNS)
    if not (numbers and whole_rows):
        return False
    return all(
        0 <= record[f"{name}_correct"] <= record[f"{name}_images"] >= 1
        and record[f"{name}_loss"] >= 0
        for name in names
    )


RECORD = (  # the schema of an epoch_record with its stage, epoch and learning rate
    {
        "stage": TEXT,
        "epoch": whole(0),
        "lr": number(0),
        "train_loss": NUMBER,
        "train_top1_percent": number(0),
    },
    Kind("whole rows of finite numbers, with no more right answers than images", _adds_up),
)


def epoch_record(trained: Accuracy, measured: Mapping[str, Accuracy]) -> dict[str, int | float]:
    """Return train_loss, train_top1_percent, and correct, images, loss, top1_percent of the rest.

    No wall-clock times: the records of two equal runs are equal.
    """
    columns = {"train_loss": trained.loss, "train_top1_percent": trained.top1_percent}
    for name, accuracy in measured.items():
        columns[f"{name}_correct"] = accuracy.correct
        columns[f"{name}_images"] = accuracy.images
        columns[f"{name}_loss"] = accuracy.loss
        columns[f"{name}_top1_percent"] = accuracy.top1_percent
    return columns


def accuracies_in(record: Mapping[str, Any]) -> dict[str, Accuracy]:
    """Return the accuracies that epoch_record was given as measured."""
    names = [key.removesuffix("_correct") for key in record if key.endswith("_correct")]
    return {
        name: Accuracy(record[f"{name}_correct"], record[f"{name}_images"], record[f"{name}_loss"])
        for name in names
    }


def curves_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the TensorBoard curves of a record: loss/train, accuracy/train, loss/val, ..."""
    curves = {"training/learning_rate": record["lr"]}
    for key, value in record.items():
        if key.endswith("_loss"):
            curves[f"loss/{key.removesuffix('_loss')}"] = value
        elif key.endswith("_top1_percent"):
            curves[f"accuracy/{key.removesuffix('_top1_percent')}"] = value
    return curves
