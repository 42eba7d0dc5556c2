"""Files that are either whole or not there: written beside their place, then moved into it."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

_SUFFIX = ".unfinished"


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO]:
    """Yield a file that becomes `path` when the block ends, and vanishes if the block raises.

    Parent folders are created. Readers of `path` see the old bytes or the new ones, never a part,
    whenever the process or the machine stops.

    Raises:
        ValueError: the folder or the file in it cannot be created.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    file = _create(path, unfinished, mode)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


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


def write_tensors(path: str | os.PathLike, value: Any) -> None:
    """Write tensors, and the plain containers around them, as torch.save does, atomically."""
    with atomic_open(path) as file:
        torch.save(value, file)


def write_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write one array as .npy, atomically; the name is kept as given, no suffix is added."""
    with atomic_open(path) as file:
        np.save(file, array, allow_pickle=False)


def _create(path: Path, unfinished: Path, mode: str) -> IO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        return unfinished.open(mode, encoding=None if "b" in mode else "utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot write {path} ({reason}): expected a writable place") from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut: it is an entry of the folder, not of the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
