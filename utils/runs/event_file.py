"""TensorBoard's event files, written as the events come; its imports take a second."""

import contextlib
import os
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_BLOB_SEQUENCE, Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import summary

from utils.runs import processes
from utils.runs.atomic_write import refusals_named
from utils.runs.regular_file import check_regular

_BINS = 30  # as many as TensorBoard shows
_LENGTH = struct.Struct("<Q")  # of a record's bytes, which a checksum of 4 bytes follows; another
_CHECKSUM = struct.Struct("<I")  # of them stands behind the bytes


class EventFile:
    """A new event file in a folder, which TensorBoard reads after those that are there already.

    What a file of the folder holds, a tag at a step, is not written again: a run that was stopped
    amid its curves may draw them all once more. The file begins with the first event.

    torch's SummaryWriter writes from a thread of its own, where a full disk ends in a traceback.
    Here it is an error of the call; and what a call adds is in the file when it returns.

    Raises:
        ValueError: the file cannot be written, in each call.
    """

    def __init__(self, folder: Path):
        before = sorted(folder.glob("*.tfevents.*"))  # files are read in order of names
        now = max(int(time.time()), *map(_second_of, before), 0)  # a clock may go back
        name = f"events.out.tfevents.{now:010d}.{len(before):06d}.{os.getpid()}"
        self._path = folder / name if processes.is_first() else Path(os.devnull)
        self._file: BinaryIO | None = None
        self._drawn = {
            (value.tag, event.step)
            for path in before
            for event in _events_in(path)
            for value in event.summary.value
        }

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a point to a curve."""
        self._summary(summary.scalar(tag, value), step)

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Add the distribution of `values` (any shape, at least one)."""
        self._summary(summary.histogram(tag, values, _BINS), step)

    def image(self, tag: str, pixels: Tensor, description: str) -> None:
        """Add a picture, uint8 [H, W, 3], and Markdown that says what it shows."""
        found = summary.image(tag, pixels, dataformats="HWC")
        metadata = found.value[0].metadata
        metadata.summary_description = description
        metadata.plugin_data.plugin_name = "images"  # with the next, the faster of TensorBoard's
        metadata.data_class = DATA_CLASS_BLOB_SEQUENCE  # two readers finds the description
        self._summary(found)

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
        if self._file is not None:
            with contextlib.suppress(OSError):  # for bytes of an event whose call has raised
                self._file.close()

    def _summary(self, found: Summary, step: int = 0) -> None:
        """Write what has one value, if it is not drawn yet."""
        drawn = (found.value[0].tag, step)
        if drawn not in self._drawn:
            self._add(Event(summary=found, step=step))
            self._drawn.add(drawn)

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        with refusals_named(self._path):
            if self._file is None:
                self._file = self._path.open("ab")
                self._add(Event(file_version="brain.Event:2"))
            RecordWriter(self._file).write(event.SerializeToString())
            self._file.flush()


def _second_of(path: Path) -> int:
    """Return the second in the name of an event file, 0 where it has none of this century."""
    word = path.name.partition(".tfevents.")[2].partition(".")[0]
    return int(word) if word.isascii() and word.isdecimal() and len(word) == 10 else 0


def _events_in(path: Path) -> Iterator[Event]:
    """Yield the events of a file, without a last one that a killed run left unfinished.

    What is damaged ends the reading, and is said: curves are to look at, and stop no run.
    """
    try:
        check_regular(path, "event file", "a file of TensorBoard's")
        with path.open("rb") as file:
            while record := _record(file):
                yield Event.FromString(record)
    except (ValueError, OSError, DecodeError) as error:
        print(f"{path} is damaged, and read no further: {error}", file=sys.stderr)


def _record(file: BinaryIO) -> bytes:
    """Return the next record's bytes, none at the end or where the last one is unfinished.

    Raises:
        ValueError: its checksums do not agree.
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(_LENGTH.size + _CHECKSUM.size)
    if len(head) < _LENGTH.size + _CHECKSUM.size:
        return b""
    _check_sum(head[: _LENGTH.size], head[_LENGTH.size :])
    (length,) = _LENGTH.unpack_from(head)
    if length + _CHECKSUM.size > size - file.tell():
        return b""
    rest = file.read(length + _CHECKSUM.size)
    _check_sum(rest[:length], rest[length:])
    return rest[:length]


def _check_sum(content: bytes, found: bytes) -> None:
    if _CHECKSUM.unpack(found)[0] != masked_crc32c(content):
        raise ValueError("a checksum does not agree")
