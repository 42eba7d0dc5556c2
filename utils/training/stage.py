"""A stage of training on disk: what is saved after each epoch, and how it is taken up again."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from utils.runs.atomic_write import write_tensors
from utils.runs.checkpoint import fill_model, load_file, weights_of
from utils.runs.job_folder import JobFolder
from utils.runs.log import RunLog
from utils.training.records import accuracies_in, curves_of


@dataclass(frozen=True)
class Progress:
    """How far a run is, as its last checkpoint says: epoch `epoch` (from 0) of `stage` is done."""

    stage: str
    epoch: int
    finished: tuple[str, ...]  # the stages before it


def read_progress(checkpoints: JobFolder) -> Progress | None:
    """Return how far the run in this folder is, None before the end of its first epoch.

    Raises:
        ValueError: last.pt cannot be loaded, or is no checkpoint of a run.
    """
    if not checkpoints.last.exists():
        return None
    saved = _load_last(checkpoints)
    return Progress(saved["stage"], saved["epoch"], tuple(saved["finished"]))


@dataclass
class Stage:
    """A stage under way: what it trains, where it writes, and the records of its epochs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    checkpoints: JobFolder
    name: str
    log: RunLog | None
    select_on: str
    step_offset: int
    finished: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0

    def resume(self) -> None:
        """Take up the state that the last checkpoint of this stage holds, if there is one."""
        saved = _load_last(self.checkpoints) if self.checkpoints.last.exists() else None
        if saved is not None and saved["stage"] == self.name:
            self._take_up(saved)
        elif saved is not None:
            self.finished = [*saved["finished"], saved["stage"]]
        if self.name in self.finished:
            raise ValueError(
                f"stage {self.name!r} is over in {self.checkpoints.last}, which is in "
                f"{saved['stage']!r}: expected to go on from there"
            )
        if self.log is not None:
            next_step = self.step_offset + len(self.records)
            self.log.cut_back(saved["log_lines"] if saved else 0, purge_step=next_step)

    def complete(self, record: dict[str, Any], *, images_per_second: float) -> None:
        """Log an epoch, then save it.

        The order is what makes a stop harmless. A line without its last.pt is cut away and
        written again. last.pt goes before best.pt: until it is there, best.pt may be the
        outcome of the stage before, and a best.pt that is then missing is made from it.
        """
        self.records.append(record)
        epoch = len(self.records) - 1
        if self._improves():
            self.best_epoch = epoch
        if self.log is not None:
            self.log.epoch(record)
            curves = curves_of(record) | {"speed/images_per_second": images_per_second}
            self.log.scalars(curves, self.step_offset + epoch)
        self._write_last()
        if self.best_epoch == epoch:
            self._write_best()

    @contextlib.contextmanager
    def naming(self, epoch: int) -> Iterator[None]:
        """Say in a ValueError which epoch it is from, counted from 1 as the bar does."""
        try:
            yield
        except ValueError as error:
            place = f"{self.name}, epoch {epoch + 1}" if self.name else f"epoch {epoch + 1}"
            raise ValueError(f"{place}: {error}") from error

    def _take_up(self, saved: dict[str, Any]) -> None:
        fill_model(self.model, saved["state_dict"], self.checkpoints.last)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.finished, self.records = saved["finished"], saved["records"]
        self.best_epoch = saved["best_epoch"]
        if self.best_epoch == saved["epoch"]:
            self._write_best()

    def _improves(self) -> bool:
        if self.select_on == "last":
            return True
        key = f"{self.select_on}_correct"
        if key not in self.records[-1]:
            measured = ", ".join(accuracies_in(self.records[-1]))
            raise ValueError(f"select_on is {self.select_on!r}: expected 'last' or {measured}")
        first = len(self.records) == 1
        return first or self.records[-1][key] > self.records[self.best_epoch][key]

    def _write_last(self) -> None:
        content = {"state_dict": weights_of(self.model), "optimizer": self.optimizer.state_dict()}
        content |= {"stage": self.name, "epoch": len(self.records) - 1}
        content |= {"best_epoch": self.best_epoch, "finished": self.finished}
        content |= {"log_lines": self.log.lines if self.log else 0, "records": self.records}
        write_tensors(self.checkpoints.last, content)

    def _write_best(self) -> None:
        accuracies = accuracies_in(self.records[self.best_epoch])
        content = {"state_dict": weights_of(self.model), "stage": self.name}
        content |= {"epoch": self.best_epoch}
        content |= {"accuracy": {name: asdict(value) for name, value in accuracies.items()}}
        write_tensors(self.checkpoints.best, content)


def _load_last(checkpoints: JobFolder) -> dict[str, Any]:
    saved = load_file(checkpoints.last)
    if not isinstance(saved, dict) or "log_lines" not in saved:
        raise ValueError(f"{checkpoints.last} is no checkpoint of a run: expected one of fit's")
    return saved
