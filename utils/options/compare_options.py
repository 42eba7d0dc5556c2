"""The options of `main.py compare`."""

from dataclasses import dataclass
from pathlib import Path

from utils.options.data_options import arch_name
from utils.paper.tables import published_rows
from utils.runs.options import option


@dataclass(frozen=True)
class FigureOptions:
    """What `compare` draws."""

    figures: Path | None = option(
        None,
        "folder for figures: accuracy and latency against MACs, with their points in .csv files, "
        "and the layers of every run",
        metavar="FOLDER",
        group="figures",
    )
    evaluated: tuple[Path, ...] = option(
        (),
        "what `evaluate --against CKPT --json` printed, in files, for the figure of latency",
        metavar="FILE,...",
        group="figures",
    )

    def __post_init__(self) -> None:
        if self.evaluated and self.figures is None:
            raise ValueError(f"--evaluated {self.evaluated[0]} without --figures: expected both")


@dataclass(frozen=True)
class CompareConfig(FigureOptions):
    """Options of `main.py compare`."""

    arch: str | None = option(
        None, "only this network's rows", metavar="ARCH", type=arch_name, group="comparison"
    )
    rank_conv: Path = option(
        Path("rank_conv"),
        "folder that holds the rank files of each network in ARCH/",
        flags=("--rank_conv_prefix",),
        metavar="FOLDER",
        group="comparison",
    )
    job_dir: tuple[Path, ...] = option(
        (),
        "folders of finished runs of `prune`, separated by commas",
        metavar="FOLDER,...",
        group="comparison",
    )
    json: bool = option(False, "print one JSON object instead of tables", group="comparison")

    def __post_init__(self) -> None:
        super().__post_init__()
        known = dict.fromkeys(row.arch for row in published_rows())
        if self.arch is not None and self.arch not in known:
            raise ValueError(
                f"nothing was published for arch {self.arch!r}: expected one of {', '.join(known)}"
            )
