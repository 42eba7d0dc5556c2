"""The folder of a run: the names of its files, and that one run at a time writes them."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from utils.runs import processes
from utils.runs.atomic_write import refusals_named, remove_unfinished, write_json
from utils.runs.json_files import read_json
from utils.runs.regular_file import check_regular, is_there
from utils.runs.schema import OBJECT
from utils.runs.stop_signals import stops_leaving

_ABSENT = object()


def named_by(name: str, options: Mapping[str, Any]) -> str:
    """Return a folder's name: `name` and a digest, which other options change."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    return f"{name}_{digest[:8]}"


@dataclass(frozen=True)
class JobFolder:
    """Where the files of one run lie; making one touches no disk."""

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def budget(self) -> Path:
        return self.path / "budget.json"

    @property
    def align(self) -> Path:
        return self.path / "align.json"

    @property
    def layout(self) -> Path:
        return self.path / "channels_last.json"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    @property
    def steps(self) -> Path:
        return self.path / "checkpoints" / "steps.pt"

    @property
    def pruned(self) -> Path:
        return self.path / "pruned.pt"

    @property
    def summary_json(self) -> Path:
        return self.path / "summary.json"

    @property
    def summary_markdown(self) -> Path:
        return self.path / "summary.md"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"


@contextlib.contextmanager
def open_job(path: str | os.PathLike, config: Mapping[str, Any]) -> Iterator[JobFolder]:
    """Yield the run folder at `path`, created or continued, closed to other runs until the end.

    `config` (what JSON can hold) is written at the first opening and must be the same at the next.
    The lock belongs to the first process: however that ends, the folder is free again.

    Raises:
        ValueError: the folder cannot be written, another run is in it, or it was started with
            other options.
    """
    folder = JobFolder(path)
    with _locked(folder), stops_leaving("the same command continues from there"):
        for place in (folder.path, folder.last.parent):
            remove_unfinished(place)
        if is_there(folder.config):
            _check_same_options(folder, config)
        else:
            write_json(folder.config, config)
        yield folder


@contextlib.contextmanager
def _locked(folder: JobFolder) -> Iterator[None]:
    with _locked_by_us(folder) if processes.is_first() else contextlib.nullcontext():
        processes.meet()
        yield


@contextlib.contextmanager
def _locked_by_us(folder: JobFolder) -> Iterator[None]:
    with _open_lock(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read(20).decode(errors="replace").strip() or "unknown"
            raise ValueError(
                f"{folder.path} is in use by another run (process {owner}): "
                "expected a folder of its own, wait for that run or give another --job_dir"
            ) from None
        os.register_at_fork(after_in_child=file.close)  # else a worker would outlive us with it
        with refusals_named(folder.lock):
            file.truncate(0)
            file.write(b"%d\n" % os.getpid())
        yield


def _open_lock(folder: JobFolder) -> IO[bytes]:
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if is_there(folder.lock):
            check_regular(folder.lock, "file", "the lock of a run's folder")
        return folder.lock.open("a+b", buffering=0)  # not "w": another must still read whose it is
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"cannot use {folder.path} as the run's folder ({reason}): expected a writable place"
        ) from error


def _check_same_options(folder: JobFolder, config: Mapping[str, Any]) -> None:
    before = read_json(folder.config, OBJECT, "a run's options")
    now = json.loads(json.dumps(config))  # as JSON gives it back: tuples become lists
    for name in [*now, *(name for name in before if name not in now)]:
        old, new = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if old != new:
            raise ValueError(
                f"{folder.path} was started with {name} {_in_words(old)}, not {_in_words(new)}: "
                f"give another --job_dir, or delete {folder.path} to start again"
            )


def _in_words(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)
