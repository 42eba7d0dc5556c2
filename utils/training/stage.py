"""A stage of training on disk: what is saved of it, and how it is taken up again."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from utils.runs.atomic_write import write_tensors
from utils.runs.checkpoint import fill_model, state_dict_of, weights_of
from utils.runs.job_folder import JobFolder
from utils.runs.log import RunLog
from utils.training.last_checkpoint import load_last, load_optimizer
from utils.training.random_numbers import random_state, set_random_state
from utils.training.records import accuracies_in, curves_of
from utils.training.steps import TrainingStep
from utils.training.tally import Tally


@dataclass(frozen=True)
class Progress:
    """How far a run is: epoch `epoch` (from 0) of `stage` is done, of -1 perhaps some steps."""

    stage: str
    epoch: int
    finished: tuple[str, ...]  # the stages before it


def read_progress(checkpoints: JobFolder) -> Progress | None:
    """Return how far the run in this folder is, None before its first checkpoint.

    Raises:
        ValueError: last.pt cannot be loaded, or is no checkpoint of a run.
    """
    saved = load_last(checkpoints)
    return saved and Progress(saved["stage"], saved["epoch"], tuple(saved["finished"]))


@dataclass
class Stage:
    """A stage under way: what it trains, where it writes, and what came of it so far.

    `records` are of whole epochs; `tally` is of the epoch under way. `seconds` is the time that
    the run took, earlier stages and calls included, as it was saved last.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: TrainingStep
    checkpoints: JobFolder
    name: str
    log: RunLog | None
    select_on: str
    step_offset: int
    finished: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    _begun: float = field(default_factory=time.perf_counter)
    _under_way: dict[str, Any] | None = None  # the epoch in which last.pt was written, if it was

    def resume(self) -> None:
        """Take up the state that the last checkpoint of this stage holds, if there is one."""
        saved = load_last(self.checkpoints)
        self.seconds = saved["seconds"] if saved else 0.0
        self._begun -= self.seconds
        if saved is not None and saved["stage"] == self.name:
            self._take_up(saved)
        elif saved is not None:
            self.finished = [*saved["finished"], saved["stage"]]
        if self.name in self.finished:
            raise ValueError(
                f"stage {self.name!r} is over in {self.checkpoints.last}, which is in "
                f"{saved['stage']!r}: expected to continue from there"
            )
        if self.log is not None:
            self._cut_log_back(saved["log_lines"] if saved else None)
            if self.records:
                self._draw()

    def _cut_log_back(self, lines: int | None) -> None:
        """Cut the log back to the lines of last.pt, None without one: then one may stand there."""
        if lines is None and self.log.lines > 1:
            raise ValueError(
                f"{self.checkpoints.last} is missing, and {self.checkpoints.log} has "
                f"{self.log.lines} lines: expected both of a run that was stopped, bring it back "
                f"or delete {self.checkpoints.path} to start again"
            )
        self.log.cut_back(lines or 0)

    def begin_epoch(self) -> int:
        """Return how many of the next epoch's steps are made, and take up what they left."""
        self.tally = Tally()
        if self._under_way is not None:
            self.tally = Tally(**self._under_way["tally"])
            with self._unfit_named():
                set_random_state(self.model, self._under_way["random"])
            self._under_way = None
        return len(self.tally)

    def pause(self) -> None:
        """Save the run amid an epoch, where it is between two steps or behind the last."""
        state = {"tally": self.tally.state_dict(), "random": random_state(self.model)}
        self._write_last(under_way=state)

    def complete(self, record: dict[str, Any]) -> None:
        """Log an epoch, then save it.

        The order is what makes a stop harmless. A line without its last.pt is cut away and
        written again. last.pt goes before best.pt: until it is there, best.pt may be the
        outcome of the stage before, and a best.pt that is then missing is made from it.
        TensorBoard's point, which may miss and may not change, is of a saved epoch.
        """
        self.records.append(record)
        epoch = len(self.records) - 1
        if self._improves():
            self.best_epoch = epoch
        if self.log is not None:
            self.log.epoch(record)
        self._write_last()
        if self.best_epoch == epoch:
            self._write_best()
        if self.log is not None:
            speed = sum(self.tally.sizes) / self.tally.seconds
            self._draw({"training/images_per_second": speed})

    @property
    def place(self) -> str:
        """The stage and the epoch under way, counted from 1 as the bar does."""
        epoch = f"epoch {len(self.records) + 1}"
        return f"{self.name}, {epoch}" if self.name else epoch

    @contextlib.contextmanager
    def naming_place(self) -> Iterator[None]:
        """Say in a ValueError which epoch it is from."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}") from error

    def _draw(self, more: Mapping[str, float] | None = None) -> None:
        """Add the last epoch to TensorBoard's curves, unless it is drawn already."""
        curves = curves_of(self.records[-1]) | {"training/stage": len(self.finished) + 1}
        self.log.scalars(curves | (more or {}), self.step_offset + len(self.records) - 1)

    def _take_up(self, saved: dict[str, Any]) -> None:
        last, key = self.checkpoints.last, f"{self.select_on}_correct"
        with self._unfit_named():
            if self.select_on != "last" and any(key not in record for record in saved["records"]):
                raise ValueError(f"a record lacks {key!r}, which selects the best")
            fill_model(self.model, state_dict_of(saved, last), last)
            load_optimizer(self.optimizer, saved["optimizer"])
            self.step.load_state_dict(saved["step"])
        self.finished, self.records = saved["finished"], saved["records"]
        self.best_epoch, self._under_way = saved["best_epoch"], saved["under_way"]
        if self.best_epoch == saved["epoch"] and self._under_way is None:
            self._write_best()

    @contextlib.contextmanager
    def _unfit_named(self) -> Iterator[None]:
        """Turn what anyone has against the content of last.pt into a ValueError that names it."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{self.checkpoints.last} does not fit the run ({reason}): expected what the run "
                "saved when it was stopped"
            ) from error

    def _improves(self) -> bool:
        if self.select_on == "last":
            return True
        key = f"{self.select_on}_correct"
        if key not in self.records[-1]:
            measured = ", ".join(accuracies_in(self.records[-1]))
            raise ValueError(f"select_on is {self.select_on!r}: expected 'last' or {measured}")
        first = len(self.records) == 1
        return first or self.records[-1][key] > self.records[self.best_epoch][key]

    def _write_last(self, under_way: dict[str, Any] | None = None) -> None:
        self.seconds = time.perf_counter() - self._begun
        content = {"state_dict": weights_of(self.model), "optimizer": self.optimizer.state_dict()}
        content |= {"step": self.step.state_dict()}
        content |= {"stage": self.name, "epoch": len(self.records) - 1}
        content |= {"best_epoch": self.best_epoch, "finished": self.finished}
        content |= {"under_way": under_way, "seconds": self.seconds}
        content |= {"log_lines": self.log.lines if self.log else 0, "records": self.records}
        write_tensors(self.checkpoints.last, content)

    def _write_best(self) -> None:
        accuracies = accuracies_in(self.records[self.best_epoch])
        content = {"state_dict": weights_of(self.step.evaluated), "stage": self.name}
        content |= {"epoch": self.best_epoch}
        content |= {"accuracy": {name: asdict(value) for name, value in accuracies.items()}}
        write_tensors(self.checkpoints.best, content)
