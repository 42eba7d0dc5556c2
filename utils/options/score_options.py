"""The options of what scores a network's filters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.options.data_options import ArchOptions
from utils.runs.choices import CRITERIA, OF_WEIGHTS, RANK_CRITERIA
from utils.runs.options import option


@dataclass(frozen=True)
class ScoreOptions(ArchOptions):
    """What scores the filters of a network."""

    criterion: str = option(
        "rank", "criterion that scores the filters", choices=CRITERIA, group="pruning"
    )
    rank_conv: Path | None = option(
        None,
        "folder of the rank files (default: rank_conv/ARCH)",
        flags=("--rank_conv_prefix",),
        group="pruning",
    )
    force: bool = option(
        False,
        "accept ranks of another checkpoint, or of images with another normalization",
        group="pruning",
    )

    linear_criterion: str | None = option(
        None,
        "criterion for layers that have no rank (linears, maps of one pixel), with --criterion "
        "rank (default: they are not pruned)",
        choices=(*OF_WEIGHTS, "random"),
        group="pruning",
    )

    @property
    def rank_folder(self) -> Path:
        """Where the rank files are."""
        return self.rank_conv or Path("rank_conv") / self.arch_folder


def how_scored(config: ScoreOptions) -> dict[str, Any]:
    """Return what the options of a command say to `score_layers` and `make_plan`.

    Raises:
        ValueError: --linear_criterion without ranks, where it would do nothing.
    """
    if config.linear_criterion and config.criterion not in RANK_CRITERIA:
        raise ValueError(
            f"--linear_criterion {config.linear_criterion} with --criterion {config.criterion}: "
            "expected it with ranks, since that scores linears itself"
        )
    names = ("criterion", "rank_folder", "seed", "force", "normalization", "linear_criterion")
    return {name: getattr(config, name) for name in names}
