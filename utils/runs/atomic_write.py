"""Files that are either whole or not there: written beside their place, then moved into it."""

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from utils.runs import processes
from utils.runs.regular_file import is_there

_SUFFIX = ".unfinished"


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO]:
    """Yield a file that becomes `path` when the block ends, and vanishes if the block raises.

    Parent folders are created. Readers of `path` see the old bytes or the new ones, never a part,
    whenever the process or the machine stops. Of several processes, all of which must come here,
    the first one's file is kept.

    Raises:
        ValueError: the system refuses: no permission, no room.
    """
    with processes.writing() as here, (_replacing if here else _discarding)(path, mode) as file:
        yield file


def _discarding(path: str | os.PathLike, mode: str) -> IO:
    return Path(os.devnull).open(mode)


@contextlib.contextmanager
def _replacing(path: str | os.PathLike, mode: str) -> Iterator[IO]:
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    with refusals_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        try:
            with unfinished.open(mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


@contextlib.contextmanager
def refusals_named(path: str | os.PathLike) -> Iterator[None]:
    """Turn what the system has against writing `path` in the block into a ValueError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot write {path} ({reason}): expected a writable place") from error


def check_writable(folder: Path) -> None:
    """Refuse a folder that could not be made and written to.

    Raises:
        ValueError: so it is, or there is a link to nothing in its place.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if is_there(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"cannot write into {folder} ({existing} is no folder to write to): "
            "expected a writable place"
        )


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Delete what killed writers left in `folder`; only for a folder that nobody else writes to."""
    for leftover in Path(folder).glob(f".*{_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_open(path, "w") as file:
        file.write(text)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` to `path` as indented JSON in its own key order, atomically.

    Raises:
        ValueError: `value` holds NaN or an infinity, which JSON has no word for.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows as a table with a column for every name that one of them has, atomically."""
    with atomic_open(path, "w") as file:
        columns = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_tensors(path: str | os.PathLike, value: Any) -> None:
    """Write tensors, and the plain containers around them, as torch.save does, atomically."""
    with atomic_open(path) as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # torch's own, for bytes that the system did not take
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def write_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write one array as .npy, atomically; the name is kept as given, no suffix is added."""
    with atomic_open(path) as file:
        np.save(file, array, allow_pickle=False)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut: it is an entry of the folder, not of the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
