"""The options of automatic rates: what share of a network is to remain, and how it is found."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.runs.choices import ALLOCATIONS, ON_OFF, RUNTIMES
from utils.runs.options import option, refuse_below, refuse_given

TIMED_ALIGN = ("time", "blocks")  # ways to align that ask the clock
AUTO = -1  # the runtime's own block, as what widths are rounded to


def rounding(word: str) -> int:
    """Return the multiple that widths are rounded to, AUTO for "auto"."""
    return AUTO if word == "auto" else int(word)


@dataclass(frozen=True)
class BudgetOptions:
    """What is to remain of a network, in place of its compress rates."""

    # The other ways to say what goes, and what cannot be had with a target, with their defaults.
    _unfit: ClassVar[dict[str, object]] = {
        "compress_rate": "",
        "ratio": (),
        "rates": None,
        "layout": "hrank",
        "start_cov": 0,
        "target_params": None,
        "target_latency": None,
        "target_ms": None,
    }

    target_macs: float | None = option(
        None,
        "find rates that leave this share of the MACs, e.g. 0.5, counted in the network whose "
        "filters are removed",
        metavar="SHARE",
        group="automatic rates",
    )
    target_params: float | None = option(
        None, "the same for the parameters", metavar="SHARE", group="automatic rates"
    )
    target_latency: float | None = option(
        None,
        "the same for the time of a forward pass on --runtime, measured here; layers that a sum "
        "ties are pruned together, as by --group",
        metavar="SHARE",
        group="automatic rates",
    )
    target_ms: float | None = option(
        None, "the same in milliseconds", metavar="MS", group="automatic rates"
    )
    runtime: str = option(
        "eager",
        "runtime that measures latency targets",
        choices=RUNTIMES,
        group="automatic rates",
    )
    latency_batch_size: int = option(
        1, "images of the forward pass that is timed", group="automatic rates"
    )
    latency_threads: int | None = option(
        None,
        "CPU threads to time with; none: torch's default",
        group="automatic rates",
    )
    allocation: str = option(
        "global",
        "how a target finds rates: the same everywhere, the lowest scores of all layers first, or "
        "the least accuracy lost in a scan for what is saved",
        choices=ALLOCATIONS,
        group="automatic rates",
    )
    max_rate: float = option(
        0.9,
        "highest rate of any conv under a target",
        metavar="RATE",
        group="automatic rates",
    )
    drop_branches: str = option(
        "on",
        "let a target in time drop whole residual branches, too, whatever --max_rate says, where "
        "that loses less than narrower layers; with --allocation global and --schedule oneshot",
        choices=ON_OFF,
        group="automatic rates",
    )
    scan: Path | None = option(
        None,
        "folder of the scan for --allocation sensitivity (default: the one that `scan` with the "
        "same options writes, made where it is missing)",
        metavar="FOLDER",
        group="automatic rates",
    )

    targets: bool = option(
        False,
        "print what can be reached within --max_rate, by MACs, parameters and time on --runtime",
        group="automatic rates",
    )

    @property
    def target(self) -> tuple[str, float] | None:
        """What is to remain: ("macs", "params", "latency", its share) or ("ms", ms), else None."""
        names = ("macs", "params", "latency", "ms")
        given = {name: getattr(self, f"target_{name}") for name in names}
        return next(((name, share) for name, share in given.items() if share is not None), None)

    @property
    def by_time(self) -> bool:
        """Whether the target is one in time."""
        return self.target is not None and self.target[0] in ("latency", "ms")

    def check_target(self) -> None:
        """Refuse targets out of range, and options that do not go together with one.

        Raises:
            ValueError: so it is.
        """
        if self.target is None:
            self._check_needs_target()
            return
        name, share = self.target
        for other, default in self._unfit.items():
            value = getattr(self, other)
            if other != f"target_{name}" and value != default:
                raise ValueError(
                    f"--target_{name} {share:g} with --{other} {value}: expected one of the two"
                )
        if self.by_time:
            object.__setattr__(self, "group", True)  # a stream of several writers is one width
        elif not self.targets:
            expected = "expected it with --target_latency or --target_ms"
            refuse_given(self, ("drop_branches",), f"with --target_{name}: {expected}")
        if name == "ms" and share <= 0:
            raise ValueError(f"--target_ms is {share:g}: expected more than 0")
        if name != "ms" and not 0 < share < 1:
            raise ValueError(
                f"--target_{name} is {share:g}: expected the share that is to remain, more than 0 "
                "and less than 1"
            )
        if not 0 < self.max_rate < 1:
            raise ValueError(f"--max_rate is {self.max_rate:g}: expected more than 0, less than 1")
        refuse_below(self, 1, "latency_batch_size")
        if self.scan is not None and self.allocation != "sensitivity":
            raise ValueError(
                f"--scan {self.scan} with --allocation {self.allocation}: expected it with "
                "--allocation sensitivity alone"
            )

    def _check_needs_target(self) -> None:
        names = ("allocation", "scan")
        if not self.targets:
            names += ("max_rate", "drop_branches")
            if self.round_to != AUTO and self.align not in TIMED_ALIGN:
                names += ("runtime", "latency_batch_size", "latency_threads")
        expected = "expected --target_macs, --target_params, --target_latency or --target_ms"
        refuse_given(self, names, f"without a target: {expected}")
