"""TensorBoard's event files, written as the events come; its imports take a second."""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import summary

from utils.runs import processes
from utils.runs.atomic_write import refusals_named

_BINS = 30  # as many as TensorBoard shows


class EventFile:
    """A new event file in a folder, which TensorBoard reads after those that are there already.

    torch's SummaryWriter writes from a thread of its own, where a full disk ends in a traceback.
    Here it is an error of the call; and what a call adds is in the file when it returns.

    Raises:
        ValueError: the file cannot be written, here and in each call.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None):
        """Open the file; what other files hold of the steps >= `purge_step` counts no more."""
        before = sum(1 for _ in folder.glob("*.tfevents.*"))  # files are read in order of names
        name = f"events.out.tfevents.{int(time.time()):010d}.{before:06d}.{os.getpid()}"
        self._path = folder / name if processes.is_first() else Path(os.devnull)
        with refusals_named(self._path):
            self._file = self._path.open("ab")
        self._add(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a point to a curve."""
        self._summary(summary.scalar(tag, value), step)

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Add the distribution of `values` (any shape)."""
        self._summary(summary.histogram(tag, values, _BINS), step)

    def text(self, tag: str, markdown: str) -> None:
        """Add a page of Markdown."""
        self._summary(summary.text(tag, markdown))

    def hparams(
        self, options: Mapping[str, bool | int | float | str], metrics: Mapping[str, float]
    ) -> None:
        """Add options, and the names of the curves that say what came of them."""
        for found in summary.hparams(dict(options), dict(metrics)):
            self._summary(found)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # for bytes of an event whose call has raised already
            self._file.close()

    def _summary(self, value: Summary, step: int = 0) -> None:
        self._add(Event(summary=value, step=step))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        with refusals_named(self._path):
            RecordWriter(self._file).write(event.SerializeToString())
            self._file.flush()
