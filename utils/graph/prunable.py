"""The layers of a network that pruning may make narrower, their rates, and where each is ranked."""

from dataclasses import dataclass

from utils.graph.call_sites import CallSite


@dataclass(frozen=True)
class Site:
    """Feature maps to rank: the output of a module, or its channels from `start` to `stop`.

    With a `call` they are what this call of a function gives in eval mode; `module` then only says
    where that is.
    """

    module: str
    start: int = 0
    stop: int | None = None
    call: CallSite | None = None

    def __str__(self) -> str:
        whole = self.start == 0 and self.stop is None
        return self.module if whole else f"{self.module}[{self.start}:{self.stop}]"


@dataclass(frozen=True)
class RankLayer:
    """One prunable conv: the file its ranks are in, and the maps they are the ranks of.

    `rate` is the position of its compress rate, `counted_rate` of the one that the official counter
    of MACs takes for it. A conv that `follows` another keeps the filters which that one keeps.
    Where there are no maps to rank, `site` is None, and `no_rank` says why.
    """

    conv: str
    file: str
    site: Site | None
    rate: int
    counted_rate: int
    follows: str | None = None
    no_rank: str = ""


@dataclass(frozen=True)
class RankLayers:
    """The prunable convs in the order of their rates.

    `num_rates` of them are expected; the official code ignores up to `ignored_rates` more. With
    `by_group` a rate is that of a group of tied layers, found in the graph.
    """

    layers: tuple[RankLayer, ...]
    num_rates: int
    ignored_rates: int = 0
    by_group: bool = False

    def scored(self) -> tuple[RankLayer, ...]:
        """Return those that have scores of their own: all but those that follow another."""
        return tuple(layer for layer in self.layers if layer.follows is None)

    def ranked(self) -> tuple[RankLayer, ...]:
        """Return those that have maps to rank."""
        return tuple(layer for layer in self.layers if layer.site is not None)

    def scored_by_rank(self) -> tuple[RankLayer, ...]:
        """Return those whose scores, by ranks, are ranks: they are scored, and have maps."""
        return tuple(layer for layer in self.scored() if layer.site is not None)

    def sites(self) -> tuple[Site, ...]:
        """Return where maps are ranked, each place once: convs may share one."""
        return tuple(dict.fromkeys(layer.site for layer in self.ranked()))
