"""The options of `main.py scan`."""

from dataclasses import dataclass
from pathlib import Path

from utils.options.data_options import DataOptions, DeviceOptions, NetworkOptions
from utils.options.score_options import ScoreOptions
from utils.options.weight_options import GranularityOptions
from utils.runs.options import option, refuse_below

DEFAULT_IMAGES = 1000


@dataclass(frozen=True)
class ScanConfig(ScoreOptions, GranularityOptions, NetworkOptions, DataOptions, DeviceOptions):
    """Options of `main.py scan`."""

    rates: tuple[float, ...] = option(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "compress rates (of weights: sparsities) to try, on one layer at a time",
        group="scan",
    )
    group: bool = option(
        False,
        "prune layers that a residual sum joins as one, at the mean of their scores",
        group="scan",
    )
    split: str = option(
        "val",
        "images to evaluate: the validation split of --select_on val, or the test images",
        choices=("val", "test"),
        group="scan",
    )
    val_fraction: float = option(
        0.1, "share of the training images that is held out for val", group="scan"
    )
    num_images: int | None = option(
        None,
        f"images to evaluate (default: {DEFAULT_IMAGES}, or as many as there are)",
        group="scan",
    )
    recalibrate: int = option(
        200,
        "train images from which the norms' statistics are re-estimated at each rate, for a second "
        "table, which --allocation sensitivity goes by; 0: none",
        metavar="N",
        group="scan",
    )
    job_dir: Path | None = option(
        None, "folder of the run (default: result/ARCH/scan_..., named by the options)", group="run"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_other_granularity(shared=())
        if self.by_weight and self.group:
            raise ValueError("--group with --granularity weight: expected one of them")
        in_order = list(self.rates) == sorted(set(self.rates))
        if not self.rates or not in_order or not all(0 <= rate < 1 for rate in self.rates):
            given = ",".join(f"{rate:g}" for rate in self.rates)
            raise ValueError(
                f"--rates is {given!r}: expected ascending rates, at least 0 and less than 1"
            )
        refuse_below(self, 1, "num_images")
        refuse_below(self, 0, "recalibrate")
