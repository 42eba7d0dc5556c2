"""Calls in processes of their own, several at a time, which stop when the caller does."""

import contextlib
import io
import multiprocessing
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

import torch

from utils.runs.notes import note
from utils.runs.stop_signals import Stopped, stops_held, stops_raised

T = TypeVar("T")
_SAID_WHY = 2  # exit code of a process that told its caller what was wrong


class _Call(NamedTuple):
    """A call under way; its process says through `error` why it fails."""

    name: str
    process: BaseProcess
    error: Connection


def threads_of_each(jobs: int) -> int:
    """Return how many of this process's threads each of `jobs` processes has."""
    return max(1, torch.get_num_threads() // jobs)


def call_side_by_side(function: Callable[[T], Any], arguments: Mapping[str, T], jobs: int) -> None:
    """Call `function` with each of the named arguments, in `jobs` processes at a time.

    They are mute; notes say which call begins and which is finished. A stop of this process, or an
    error in one of the others, reaches all of them as SIGTERM, and is raised once they have ended;
    a second stop does not wait for that.

    Raises:
        ValueError: what the first call to fail raised, a ValueError or an OSError.
        ChildProcessError: a process ended without saying why.
    """
    names, running = list(arguments), {}  # the calls under way, by their processes' sentinels
    try:
        while names or running:
            while names and len(running) < jobs:
                name = names.pop(0)
                note(f"started {name}")
                with stops_held():  # none is under way that is not in `running`
                    call = _begin(name, function, arguments[name], threads_of_each(jobs))
                    running[call.process.sentinel] = call
            for sentinel in wait(running):
                call = running.pop(sentinel)
                _end(call)
                note(f"finished {call.name}; {len(names) + len(running)} to go")
    finally:
        _stop([call.process for call in running.values()])


def _begin(name: str, function: Callable[[T], Any], argument: T, threads: int) -> _Call:
    context = multiprocessing.get_context("spawn")
    error, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(function, argument, threads, sender))
    resource_tracker.ensure_running()  # its own start would unblock SIGINT
    # Ctrl-C reaches the whole group: blocked there, it is answered here alone, from the first.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()
    return _Call(name, process, error)


def _call(function: Callable[[T], Any], argument: T, threads: int, error: Connection) -> None:
    """Call the function, in its own process; an exit code says how that ended."""
    torch.set_num_threads(threads)
    try:
        with stops_raised(), contextlib.redirect_stderr(io.StringIO()):
            function(argument)
    except (ValueError, OSError) as failure:
        error.send(str(failure))
        sys.exit(_SAID_WHY)
    except Stopped as stop:
        sys.exit(128 + stop.signal)


def _end(call: _Call) -> None:
    """Take leave of a process that has ended; raise what it failed at."""
    with call.error:
        call.process.join()
        if call.process.exitcode == _SAID_WHY:
            raise ValueError(f"{call.name}: {call.error.recv()}")
        if call.process.exitcode != 0:
            raise ChildProcessError(
                f"the process of {call.name} ended with exit code {call.process.exitcode}; "
                "the same command continues from there"
            )


def _stop(processes: Sequence[BaseProcess]) -> None:
    """Let the processes save what they have and end; a stop amid that ends them at once."""
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
            process.join()
