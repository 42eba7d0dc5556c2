"""The log of a run: one JSON line an epoch, exact, and TensorBoard curves to look at."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from utils.runs import processes
from utils.runs.atomic_write import refusals_named, write_text
from utils.runs.job_folder import JobFolder
from utils.runs.json_files import MOST_BYTES, read_json_line
from utils.runs.regular_file import check_regular, is_there, read_text
from utils.runs.schema import OBJECT

if TYPE_CHECKING:
    from utils.runs.event_file import EventFile

_EXPECTED = "the log.jsonl of a run"


class RunLog:
    """Writes `log.jsonl` and the TensorBoard event files of a run's folder; a context manager.

    Each line and each set of scalars is on disk when its call returns. What is drawn already, a tag
    at a step, is not drawn again; a run that draws nothing leaves no event file. Of several
    processes the first writes.
    """

    def __init__(self, folder: JobFolder, *, keep_lines: int | None = None):
        """Continue the log in `folder`, or start it.

        Args:
            folder: the run's folder.
            keep_lines: cut `log.jsonl` back to so many lines first; None keeps all whole lines,
                and leaves the file as it is until a line is added.
        """
        self._folder = folder
        self._events: EventFile | None = None
        self._kept = _whole_lines(folder.log)
        self._size = _size_of(self._kept)
        if keep_lines is not None:
            self.cut_back(keep_lines)
        elif not self._kept and not is_there(folder.log):
            self._restore()

    @property
    def lines(self) -> int:
        """How many lines `log.jsonl` has."""
        return len(self._kept)

    def cut_back(self, lines: int) -> None:
        """Drop all but the first `lines` lines.

        Raises:
            ValueError: there are fewer lines than that.
        """
        if self.lines < lines:
            raise ValueError(
                f"{self._folder.log} has {self.lines} lines: expected at least the {lines} written "
                f"before the run stopped, bring them back or delete {self._folder.path}"
            )
        del self._kept[lines:]
        self._size = _size_of(self._kept)
        self._restore()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Append one line to `log.jsonl`; lines of this run that are gone are written again."""
        line = json.dumps(record, allow_nan=False) + "\n"  # ASCII alone
        self._restore()
        path = self._folder.log
        if processes.is_first():
            with refusals_named(path), path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        self._kept.append(line)
        self._size += len(line)

    def _restore(self) -> None:
        """Write `log.jsonl` anew where it has another size than its lines have."""
        path = self._folder.log
        size = check_regular(path, "log", _EXPECTED) if is_there(path) else -1
        if processes.from_first(lambda: size) != self._size:
            write_text(path, "".join(self._kept))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add one point at `step` to each of the named curves."""
        for tag, value in values.items():
            self._event_file().scalar(tag, value, step)

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Add the distribution of `values` (any shape) at `step`."""
        self._event_file().histogram(tag, values, step)

    def image(self, tag: str, pixels: Tensor, description: str) -> None:
        """Add a picture, uint8 [H, W, 3], and Markdown that says what it shows."""
        self._event_file().image(tag, pixels, description)

    def text(self, tag: str, markdown: str) -> None:
        """Add a page of Markdown."""
        self._event_file().text(tag, markdown)

    def hparams(self, options: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Add the run's options and what came of them to TensorBoard's table of runs.

        The table has the columns of one of the runs: they should be the same in all, with None
        for a metric that this run has not.
        """
        plain = {name: _cell(value) for name, value in options.items()}
        self._event_file().hparams(plain, metrics)
        self.scalars({tag: value for tag, value in metrics.items() if value is not None}, step=0)

    def close(self) -> None:
        """Finish the event file; the log can still be written to, in a new one."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _event_file(self) -> "EventFile":
        if self._events is None:
            self._events = open_events(self._folder.path)
        return self._events


def open_events(folder: Path) -> "EventFile":
    """Return a new event file in `folder`."""
    with warnings.catch_warnings():
        # its import takes a second, and some versions of TensorBoard call the deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        from utils.runs.event_file import EventFile
    return EventFile(folder)


def read_log(
    path: str | os.PathLike, schema: Any = OBJECT, expected: str = "a record"
) -> list[dict[str, Any]]:
    """Return the records of a `log.jsonl`, without a last line that a killed run left unfinished.

    `expected` says what a line should be, which fits the schema.

    Raises:
        ValueError: there is no such file, or a line is not JSON, or does not fit the schema.
    """
    check_regular(path, "log", _EXPECTED)
    return [
        read_json_line(line, schema, f"log {path}, line {number}", expected)
        for number, line in enumerate(_whole_lines(Path(path)), start=1)
    ]


def _whole_lines(path: Path) -> list[str]:
    if not is_there(path):
        return []
    text = read_text(path, "log", _EXPECTED, most_bytes=MOST_BYTES)
    return [f"{line}\n" for line in text.split("\n")[:-1]]


def _size_of(lines: list[str]) -> int:
    return sum(len(line.encode()) for line in lines)


def _cell(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
