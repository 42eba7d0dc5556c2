"""Names for the functions that a network calls, which hold from one forward pass to the next."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class CallSite:
    """One call of a function in a forward pass.

    It is known by the module `path` whose code makes it, the module that this code called last
    `before` it ("" for none), the function's name, and how many calls of that function there were
    at this point. So functions that run once for each image, or for each thing found in it, do not
    shift what comes after them.
    """

    path: str
    before: str
    function: str
    number: int


class CallSites:
    """Names the functions that a network calls, in the order they run.

    Args:
        paths: {id of a module: its path}; code of another module counts as its caller's.
    """

    def __init__(self, paths: Mapping[int, str]):
        self._paths = paths
        self._running = [("", "")]  # (module, the module that its code called last)
        self._counts: Counter[tuple[str, str, str]] = Counter()

    @property
    def path(self) -> str:
        """The module whose code is running, "" for the network's own."""
        return self._running[-1][0]

    def enter(self, module: nn.Module) -> None:
        """Note that a module is called."""
        self._running.append((self._paths.get(id(module), self.path), ""))

    def leave(self) -> None:
        """Note that the running module has returned."""
        path, _ = self._running.pop()
        self._running[-1] = (self.path, path)

    def next(self, function: str) -> CallSite:
        """Return the name of a call that is made now."""
        place = (*self._running[-1], function)
        self._counts[place] += 1
        return CallSite(*place, self._counts[place] - 1)
