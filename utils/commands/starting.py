"""The seconds of a door's imports, in which Ctrl-C ends the program without a trace."""

import os
import signal
from types import FrameType


def end_quietly(prog: str) -> None:
    """Let SIGINT end the program in one sentence until a command takes the signal over.

    A signal that is ignored (by nohup, in the background) stays ignored.
    """
    words = f"\n{prog}: stopped by SIGINT\n".encode()

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, words)
        os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
