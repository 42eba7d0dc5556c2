"""The options of `main.py compare --experiment`."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from utils.options.data_options import DataOptions, DeviceOptions, NetworkOptions
from utils.options.prune_options import PruneConfig
from utils.options.training_options import TrainingOptions, schedule_option
from utils.pruning.compress_rates import format_rates
from utils.runs.choices import CRITERIA, RANK_CRITERIA
from utils.runs.options import option, refuse_below, shared_options


class Experiment(NamedTuple):
    """What a grid compares; `control` is the criterion that the others must beat."""

    criteria: tuple[str, ...]
    control: str
    inits: tuple[str, ...]
    rates: tuple[float, ...]


EXPERIMENTS = {
    "controls": Experiment(
        ("rank", "l1", "l2", "fpgm", "bn_scale", "random", "reverse_rank"),
        control="random",
        inits=("pruned", "scratch"),
        rates=(0.4,),
    ),
    "sorting": Experiment(
        ("first", "input_norm"),
        control="first",
        inits=("pruned",),
        rates=(0.1, 0.2, 0.3, 0.4, 0.5),
    ),
}


@dataclass(frozen=True)
class ControlsConfig(TrainingOptions, NetworkOptions, DataOptions, DeviceOptions):
    """Options of `main.py compare --experiment`."""

    experiment: str = option(
        "controls",
        "controls: what the criterion and the weights that it leaves are worth; sorting: the first "
        "filters of every conv against those whose inputs the next layer weighs most",
        choices=tuple(EXPERIMENTS),
        group="experiment",
    )
    criteria: tuple[str, ...] = option(
        (), "criteria to compare (default: the experiment's)", group="experiment"
    )
    rates: tuple[float, ...] = option(
        (), "compress rates, each for all convs (default: the experiment's)", group="experiment"
    )
    compress_rate: str = option(
        "", "one level with rates of its own, in place of --rates", group="experiment"
    )
    seeds: tuple[int, ...] = option(
        (0, 1, 2),
        "what each run is repeated with: order and crops of the images, random's filters, fresh "
        "weights",
        group="experiment",
    )
    rank_conv: Path | None = option(
        None,
        "folder of the rank files (default: JOB_DIR/rank_conv, made where it is missing)",
        flags=("--rank_conv_prefix",),
        group="experiment",
    )
    num_images: int = option(500, "images to rank on", group="experiment")
    jobs: int = option(
        1,
        "runs at the same time, each in a process of its own with its share of the threads",
        group="experiment",
    )
    epochs: int = option(2, "epochs of every run", group="training")
    lr: float = option(0.05, "learning rate", flags=("--learning_rate",), group="training")
    lr_schedule: str = schedule_option("cosine")
    select_on: str = option(
        "last",
        "which epoch counts: the best on a validation split held out of the training images, the "
        "best on the test images, or the last",
        choices=("val", "test", "last"),
        group="training",
    )
    seed: int = option(0, "seed of the images to rank on; for the runs: --seeds", group="run")
    job_dir: Path | None = option(
        None,
        "folder of the experiment, and in it one of each run (default: result/ARCH/EXPERIMENT_...)",
        group="run",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.untrained:
            raise ValueError("--untrained with --experiment: expected a trained checkpoint")
        for name, known in (("criteria", CRITERIA), ("rates", None), ("seeds", None)):
            values = getattr(self, name)
            if len(set(values)) < len(values) or not set(values) <= set(known or values):
                expected = f"some of {', '.join(known)}" if known else "numbers"
                raise ValueError(f"--{name} is {values}: expected {expected}, each once")
        if not self.seeds:
            raise ValueError("--seeds is empty: expected at least one, such as 0,1,2")
        if self.compress_rate and self.rates:
            raise ValueError("--compress_rate with --rates: expected one of them")
        refuse_below(self, 1, "epochs", "jobs")
        list(self.runs(Path(), checkpoint=None, ranks=Path()))  # refuses what is wrong with them

    @property
    def plan(self) -> Experiment:
        """The experiment, with what is asked for in place of its own."""
        known = EXPERIMENTS[self.experiment]
        return known._replace(
            criteria=self.criteria or known.criteria, rates=self.rates or known.rates
        )

    def levels(self) -> dict[str, str]:
        """Return {name: compress rates of the network} of each level of pruning."""
        if self.compress_rate:
            return {"own": self.compress_rate}
        from utils.options.networks import outline_of

        convs = outline_of(self).layers.num_rates
        return {f"{rate:g}": format_rates([rate] * convs) for rate in self.plan.rates}

    def runs(
        self, folder: Path, *, checkpoint: Path | None, ranks: Path
    ) -> Iterator[tuple[str, PruneConfig]]:
        """Yield the level and the options of every run, seed by seed.

        Each has its folder in `folder`: criterion_init_level_seed.
        """
        shared = shared_options(PruneConfig, self) | {
            "resume": checkpoint,
            "json": False,
            "num_images": PruneConfig.num_images,  # those here are for rank files
            "rates": None,
        }
        plan, levels = self.plan, self.levels()
        for seed, level, criterion, init in product(self.seeds, levels, plan.criteria, plan.inits):
            own = {
                "criterion": criterion,
                "rank_conv": ranks if criterion in RANK_CRITERIA else None,
                "compress_rate": levels[level],
                "init": init,
                "seed": seed,
                "job_dir": folder / f"{criterion}_{init}_{level}_{seed}",
                "workers": -(-self.workers // self.jobs),  # 0 stays 0
            }
            yield level, PruneConfig(**shared | own)
