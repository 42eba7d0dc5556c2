"""The options of `rank_generation.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.options.data_options import LOADS, DataOptions, DeviceOptions, NetworkOptions
from utils.runs.choices import SITES
from utils.runs.options import option, refuse_below


@dataclass(frozen=True)
class RankConfig(NetworkOptions, DataOptions, DeviceOptions):
    """Options of rank_generation.py."""

    unneeded: ClassVar[dict[str, str]] = {
        "--adjust_ckpt": LOADS,
        "--start_idx": "all layers are ranked in one sweep of the images",
        "--job_dir": "the rank files are all that is written",
    }
    num_images: int = option(500, "images to rank on", group="ranks")
    limit: int | None = option(
        None, "batches to rank on, instead of --num_images (official)", group="ranks"
    )
    batch_size: int = option(128, "images per batch", flags=("--train_batch_size",), group="ranks")
    split: str = option("train", "which images", choices=("train", "test"), group="ranks")
    augment: bool = option(
        False, "crop and flip the images, as the official code did", group="ranks"
    )
    exact: bool = option(
        False,
        "decide maps near the tolerance with float64 singular values, so that every machine gives "
        "the same ranks",
        group="ranks",
    )
    sites: str = option(
        "official",
        "where the maps are taken: as the official code does (after pooling, after residual sums; "
        "of networks that it does not know, as conv), each conv's own activation, or as the next "
        "layer reads them",
        choices=SITES,
        group="ranks",
    )
    output: Path | None = option(
        None,
        "folder for the rank files (default: rank_conv/ARCH[_limitN][_sites_SITES])",
        group="ranks",
    )
    force: bool = option(
        False,
        "overwrite rank files that git tracks, or that were made from another checkpoint",
        group="ranks",
    )
    tensorboard: Path | None = option(
        None,
        "also draw the ranks of each layer and the feature maps of an image, highest rank first, "
        "into this folder, such as result/ARCH/ranks",
        metavar="FOLDER",
        group="ranks",
    )
    report: bool = option(
        False,
        "also study how much the ranks depend on the images, and write tables and figures into "
        "OUTPUT/report/",
        group="report",
    )
    report_images: tuple[int, ...] = option(
        (100, 250, 500, 768, 2000), "numbers of images to compare", group="report"
    )
    compress_rate: str = option(
        "",
        "rates whose cut the report judges (default: those of the official README)",
        group="report",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_below(self, 1, "num_images", "limit", "batch_size")
        if not self.report_images or min(self.report_images) < 2:
            given = ",".join(map(str, self.report_images))
            raise ValueError(f"--report_images is {given!r}: expected numbers of at least 2")
        if self.report and self.images_wanted < 2:
            raise ValueError(f"--report on {self.images_wanted} image: expected at least 2")

    @property
    def images_wanted(self) -> int:
        """Number of images to rank on."""
        return self.num_images if self.limit is None else self.limit * self.batch_size

    @property
    def images_needed(self) -> int:
        """Number of images to rank for the rank files and the report."""
        if not self.report:
            return self.images_wanted
        from utils.rank.rank_study import DRAWS

        return max(DRAWS * self.images_wanted, *self.report_images)

    @property
    def folder(self) -> Path:
        """Where the rank files go."""
        suffix = "" if self.limit is None else f"_limit{self.limit}"
        suffix += "" if self.sites == "official" else f"_sites_{self.sites}"
        return self.output or Path("rank_conv") / f"{self.arch_folder}{suffix}"
