"""Functions called in several processes at once, which find each other as those of torchrun do."""

import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from tests.command_lines import LONGEST_SECONDS
from tests.forked import server
from utils.runs import processes


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code, what its function returned, its standard error."""

    code: int
    value: Any
    err: str


def side_by_side(count: int, folder: Path, function: Callable[..., Any], *args) -> list[Outcome]:
    """Call `function(*args)` in `count` processes in `folder`; return how each of them ended."""
    context = server()
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # outlives them
    started = []
    for index in range(count):
        receiver, sender = context.Pipe(duplex=False)
        where = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count}
        where |= {"MASTER_ADDR": "localhost", "MASTER_PORT": store.port}
        where |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
        process = context.Process(target=_call, args=(where, folder, sender, function, args))
        process.start()
        sender.close()
        started.append((process, receiver))
    outcomes = []
    for index, (process, receiver) in enumerate(started):
        try:
            value = pickle.loads(receiver.recv_bytes())
        except EOFError:  # it ended without a value
            value = None
        process.join(timeout=60)
        outcomes.append(Outcome(process.exitcode, value, (folder / f"err{index}").read_text()))
    return outcomes


def values_of(count: int, folder: Path, function: Callable[..., Any], *args) -> list[Any]:
    """Return what `function(*args)` returns in each of `count` processes that joined."""
    outcomes = side_by_side(count, folder, _joined_call, function, args)
    assert [outcome.code for outcome in outcomes] == [0] * count, outcomes
    return [outcome.value for outcome in outcomes]


def _joined_call(function: Callable[..., Any], args: tuple) -> Any:
    with processes.joined():
        return function(*args)


def _call(
    where: dict[str, Any],
    folder: Path,
    sender: Connection,
    function: Callable[..., Any],
    args: tuple,
) -> None:
    signal.alarm(LONGEST_SECONDS)
    os.environ.update({name: str(value) for name, value in where.items()})
    os.chdir(folder)
    with Path(f"err{where['RANK']}").open("w") as errors:
        os.dup2(errors.fileno(), 2)
    torch.set_num_threads(1)
    try:
        sender.send_bytes(pickle.dumps(function(*args)))
    except Exception as error:  # what a door says, without the traceback of a process
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(3)
