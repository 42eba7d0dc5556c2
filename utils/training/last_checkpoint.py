"""last.pt: what a run that was stopped saved, and that it is whole before any of it is taken up."""

from typing import Any

import torch
from torch import Tensor

from utils.runs.checkpoint import load_file
from utils.runs.job_folder import JobFolder
from utils.runs.regular_file import is_there
from utils.runs.schema import (
    FLAG,
    OBJECT,
    TENSOR,
    TEXT,
    Kind,
    MapOf,
    Nullable,
    check,
    number,
    whole,
)
from utils.training.records import RECORD

_MAY_DIFFER = ("lr", "fused", "foreach")  # in an optimizer's settings, from stop to start


def _is_even(under_way: dict[str, Any] | None) -> bool:
    tally = (under_way or {"tally": {"losses": (), "correct": (), "sizes": ()}})["tally"]
    scalars = all(value.numel() == 1 for name in ("losses", "correct") for value in tally[name])
    return scalars and len(tally["losses"]) == len(tally["correct"]) == len(tally["sizes"])


_LAST = (
    {
        "state_dict": OBJECT,
        "optimizer": {
            "state": MapOf({"momentum_buffer": Nullable(TENSOR)}),
            "param_groups": [{"lr": number(0), "fused": Nullable(FLAG), "foreach": Nullable(FLAG)}],
        },
        "step": {
            "batches": whole(0),
            "images": whole(0),
            "gradients": MapOf(TENSOR),
            "finite_steps": whole(0),
            "average": Nullable({"updates": whole(0), "weights": OBJECT}),
        },
        "stage": TEXT,
        "epoch": whole(-1),
        "best_epoch": whole(0),
        "finished": [TEXT],
        "under_way": Nullable(
            {
                "tally": {
                    "losses": [TENSOR],
                    "correct": [TENSOR],
                    "sizes": [whole(1)],
                    "seconds": number(0),
                },
                "random": [TENSOR],
            }
        ),
        "seconds": number(0),
        "log_lines": whole(0),
        "records": [RECORD],
    },
    Kind(
        "a record of each epoch, the best among them",
        lambda saved: (
            saved["epoch"] == len(saved["records"]) - 1
            and saved["best_epoch"] <= max(saved["epoch"], 0)
        ),
    ),
    Kind("a loss and a number right of each step", lambda saved: _is_even(saved["under_way"])),
)


def load_last(checkpoints: JobFolder) -> dict[str, Any] | None:
    """Return what last.pt holds, None where there is none.

    Raises:
        ValueError: it cannot be loaded, or is not what `Stage` saves.
    """
    if not is_there(checkpoints.last):
        return None
    saved = load_file(checkpoints.last)
    check(saved, _LAST, f"{checkpoints.last}", "what a run saved when it was stopped")
    return saved


def load_optimizer(optimizer: torch.optim.SGD, saved: dict[str, Any]) -> None:
    """Load an optimizer's state, which is of the same settings and parameters.

    Raises:
        ValueError: it is not.
    """
    _check_settings(saved, optimizer.state_dict())
    optimizer.load_state_dict(saved)
    _check_shapes(optimizer)


def _check_settings(saved: dict[str, Any], own: dict[str, Any]) -> None:
    """Check that an optimizer's saved groups are its own ones, but for rate and device."""
    found, expected = (
        [{name: group[name] for name in group if name not in _MAY_DIFFER} for group in groups]
        for groups in (saved["param_groups"], own["param_groups"])
    )
    if found != expected:
        raise ValueError(f"its optimizer's settings are {found}, expected {expected}")


def _check_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Check that what an optimizer keeps of a parameter has its shape."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            fits = value is None or (isinstance(value, Tensor) and value.shape == parameter.shape)
            if not fits or name != "momentum_buffer":
                raise ValueError(f"its optimizer's {name!r} does not fit its parameter")
