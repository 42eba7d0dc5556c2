"""How a door runs a command: options in, text or JSON out, one sentence for bad input."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from utils.runs.options import parse

BAD_INPUT, INTERRUPTED = 2, 130


def run(
    config_class: type,
    command: Callable[[Any], dict[str, Any]],
    text: Callable[[dict[str, Any]], str],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
) -> int:
    """Parse `argv`, run the command, print its result, and return the exit code.

    Bad input, a ValueError or a file that the system refuses, is one sentence on standard error
    and exit code 2. With --json the result is one JSON object, and nothing else is on standard
    output.
    """
    try:
        config = parse(config_class, argv, prog=prog, description=description)
        result = command(config)
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    print(json.dumps(result, allow_nan=False) if config.json else text(result))
    return 0
