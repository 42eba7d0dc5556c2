"""How a door runs a command: options in, text or JSON out, one sentence for bad input."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from utils.runs import processes
from utils.runs.options import parse
from utils.runs.stop_signals import Stopped, stops_raised

BAD_INPUT = 2

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

    Bad input, a ValueError or a file that the system refuses, is one sentence on standard error
    and exit code 2. SIGINT and SIGTERM are one sentence, too, and exit code 130 or 143. With --json
    the result is one JSON object, and nothing else is on standard output.
    """
    try:
        with stops_raised(), processes.joined():
            config = parse(config_class, argv, prog=prog, description=description)
            command, text = pick(config)
            result = command(config)
            print(json.dumps(result, allow_nan=False) if config.json else text(result))
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except Stopped as stop:
        outcome = stop.outcome or "nothing was written"
        print(f"{prog}: stopped by {stop.signal.name}: {outcome}", file=sys.stderr)
        return 128 + stop.signal
    return 0
