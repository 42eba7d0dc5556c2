"""How a door runs a command: options in, text or JSON out, one sentence for bad input."""

import errno
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

from utils.options.data_options import OwnSpecError
from utils.runs import processes
from utils.runs.hints import did_you_mean
from utils.runs.options import parse
from utils.runs.stop_signals import Stopped, stops_raised

BAD_INPUT = 2
# torch says so in a RuntimeError, and in many words; on a GPU in a class of its own
_OUT_OF_MEMORY = re.compile(
    r"not enough memory|can't allocate memory|out of memory|Storage size calculation overflowed"
    r"|Unable to allocate|multiplication overflow"
)

# What a command does with its config, and what its result is for people.
Command = tuple[Callable[[Any], dict[str, Any]], Callable[[dict[str, Any]], str]]


def always(command: Callable[[Any], dict[str, Any]], text: Callable[[dict], str]) -> Callable:
    """Return the function that picks this command, whatever the config says."""
    return lambda config: (command, text)


def run(
    config_class: type,
    pick: Callable[[Any], Command],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
) -> int:
    """Parse `argv`, run the command picked by it, print its result, and return the exit code.

    Bad input, a ValueError or a file or memory that the system refuses, is one sentence on
    standard error and exit code 2. SIGINT and SIGTERM are one sentence, too, and exit code 130 or
    143. With --json the result is one JSON object, and nothing else is on standard output.
    """
    try:
        with stops_raised(), processes.joined():
            config = parse(config_class, argv, prog=prog, description=description)
            command, text = pick(config)
            result = command(config)
            print(json.dumps(result, allow_nan=False) if config.json else text(result))
    except OwnSpecError as error:  # the words that name the code are the user's to say
        again = f"python {prog} {shlex.join(argv)} {error.words}"
        print(f"{prog}: error: {error}, that is: {again}", file=sys.stderr)
        return BAD_INPUT
    except (ValueError, OSError, MemoryError, RecursionError, RuntimeError) as error:
        sentence = _sentence(error, config_class)
        if sentence is None:
            raise
        print(f"{prog}: error: {sentence}", file=sys.stderr)
        return BAD_INPUT
    except Stopped as stop:
        outcome = stop.outcome or "nothing was written"
        print(f"{prog}: stopped by {stop.signal.name}: {outcome}", file=sys.stderr)
        return 128 + stop.signal
    return 0


def refuse_command(name: str, known: Iterable[str]) -> int:
    """Say on standard error that nobody knows the command, and return the exit code."""
    names = list(known)
    expected = f"expected one of {', '.join(names)}{did_you_mean(name, names)}"
    print(f"main.py: error: unknown command {name!r}: {expected}", file=sys.stderr)
    return BAD_INPUT


def usage(commands: Iterable[tuple[str, str, str]]) -> str:
    """Return the list of commands, of each its name, what it does, and an example."""
    rows = [
        f"  {name:9s} {description}\n{'':12s}python main.py {example}"
        for name, description, example in commands
    ]
    first = "usage: main.py [COMMAND] [options]   (without a command: prune)"
    last = "`main.py COMMAND --help` lists its options; rank_generation.py ranks the filters."
    return "\n".join([first, "", *rows, "", last])


def _sentence(error: Exception, config_class: type) -> str | None:
    """Return what an error that the user can cause says; None for one that is our own."""
    if isinstance(error, RecursionError):
        return "what was read is nested too deep: expected files and options as they are documented"
    if isinstance(error, OSError) and not isinstance(error, ValueError):
        named = [str(name) for name in (error.filename, error.filename2) if name is not None]
        if error.errno == errno.ENOMEM or not (named and error.strerror):
            return str(error) if error.errno != errno.ENOMEM else _no_memory(error, config_class)
        return f"cannot use {' and '.join(named)} ({error.strerror}): expected another path or file"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        return _no_memory(error, config_class)
    return str(error) if isinstance(error, ValueError) else None


def _no_memory(error: Exception, config_class: type) -> str:
    """Return that there is too little memory, how much was asked for, and which options ask."""
    asked = re.search(r"[\d.]+ ?(?:bytes|[KMGT]iB)", str(error))
    flags = [f"--{field.name}" for field in fields(config_class) if "batch_size" in field.name]
    smaller = f"a smaller {' or '.join(flags)}" if flags else "a smaller network or fewer images"
    return (
        f"the memory does not suffice{f' for {asked[0]} more' if asked else ''}: expected {smaller}"
    )
