"""SIGINT and SIGTERM: they stop the program at once or, where it asks for it, a moment later."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from utils.runs import processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 10
_WAITING = b"\nstopping after this step; Ctrl-C once more stops at once\n"


class Stopped(KeyboardInterrupt):
    """A signal stopped the program; `outcome` says in words what is left behind, once known.

    `amid` is True where a second SIGINT did, amid what is else not interrupted.
    """

    def __init__(self, number: int, outcome: str = "", *, amid: bool = False):
        super().__init__(number, outcome)
        self.signal = signal.Signals(number)
        self.outcome, self.amid = outcome, amid


class HeldStops:
    """What the signals do: raise Stopped or, while they are `held`, be noted as `waiting`."""

    def __init__(self) -> None:
        self.held, self.waiting = False, None
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A worker, forked from us: what reaches the whole group is ours to answer. If we do
            # not end the worker in time, the alarm does.
            if number == signal.SIGTERM:
                signal.alarm(_GRACE_SECONDS)
            return
        again = self.waiting is not None and number == signal.SIGINT
        if not self.held or again:
            raise Stopped(number, amid=self.held)
        if self.waiting is None:
            self.waiting = number
            os.write(2, _WAITING)  # print may be what the signal came amid

    def check(self) -> None:
        """Raise Stopped if a signal waits; of several processes, in all if it waits in one."""
        number = processes.largest(self.waiting or 0)
        if number:
            raise Stopped(number)


@contextlib.contextmanager
def stops_raised() -> Iterator[None]:
    """Let the signals raise Stopped within the block; then they do again what they did before.

    A signal that is ignored (by nohup, in the background) stays ignored. Python lets only the main
    thread have this; in any other, nothing changes.
    """
    handler, before = HeldStops(), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        for number, old in before.items():
            if old is not signal.SIG_IGN:
                signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def stops_held() -> Iterator[HeldStops]:
    """Hold back the first signal within a block of `stops_raised`; Stopped is raised at the end.

    A second SIGINT is not held back. Yields what says, as `waiting`, whether a signal waits;
    outside of `stops_raised` none ever does.
    """
    found = [signal.getsignal(number) for number in _SIGNALS]
    handler = next((one for one in found if isinstance(one, HeldStops)), HeldStops())
    handler.held, handler.waiting = True, None
    try:
        yield handler
    finally:
        handler.held = False
    handler.check()


@contextlib.contextmanager
def stops_leaving(outcome: str) -> Iterator[None]:
    """Say what a stop within the block leaves behind, where no block within it has said so."""
    try:
        yield
    except Stopped as stop:
        stop.outcome = stop.outcome or outcome
        raise
