"""The options of `main.py prune`."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from utils.options.budget_options import AUTO, TIMED_ALIGN, BudgetOptions, rounding
from utils.options.data_options import LOADS, DataOptions, DeviceOptions
from utils.options.evaluate_options import TestedOptions
from utils.options.step_options import StepOptions
from utils.options.training_options import TrainingOptions, recipe_option
from utils.options.weight_options import WeightOptions
from utils.runs.choices import LAYOUTS
from utils.runs.json_files import read_json
from utils.runs.options import as_dict, option, refuse_below, refuse_given
from utils.runs.schema import MapOf, number
from utils.training.published import recipe_values
from utils.training.schedules import Recipe

if TYPE_CHECKING:  # the command line is parsed before torch is imported, which takes seconds
    from utils.graph.network import Network

# They change no number of a pruning run.
_PASSING = ("json", "dry_run", "job_dir", "device", "gpu", "remove_zeros", "test_only")
_PASSING += ("test_model_dir", "workers", "force", "ratio", "rates")  # compress_rate has theirs


@dataclass(frozen=True)
class PruneConfig(
    StepOptions,
    BudgetOptions,
    WeightOptions,
    TrainingOptions,
    TestedOptions,
    DataOptions,
    DeviceOptions,
):
    """Options of `main.py prune`."""

    unneeded: ClassVar[dict[str, str]] = {
        "--adjust_prune_ckpt": LOADS,
        "--adjust_ckpt": LOADS,
        "--use_pretrain": "pruning starts from trained weights, those of --pretrain_dir",
        "--use_dali": "images are decoded, cropped and flipped without DALI",
        "--input_image_size": "the architecture knows the size of its images",
    }
    compress_rate: str = option(
        "",
        "share of the filters to remove of each conv, e.g. [0.95]+[0.5]*6+[0.9]*4+[0.8]*2",
        group="pruning",
    )
    ratio: tuple[float, ...] = option(
        (),
        "compress rates as plain numbers, e.g. 0.3: one for all, or one for each, with commas",
        group="pruning",
    )
    rates: Path | None = option(
        None,
        "compress rates by layer, a file {layer: rate}; names may be patterns, such as layer3.*",
        metavar="FILE.json",
        group="pruning",
    )
    layout: str = option(
        "hrank",
        "meaning of the rates: one per conv, or HRankPlus's one per stage and block",
        choices=LAYOUTS,
        group="pruning",
    )
    mode: str = option(
        "remove",
        "make tensors smaller, or keep their size and set removed filters to zero",
        choices=("remove", "mask"),
        group="pruning",
    )
    schedule: str = option(
        "oneshot",
        "oneshot: prune all convs at once; layerwise: conv by conv with fine-tuning in between, "
        "the paper's way; iterative: all convs a little more in each of --steps",
        choices=("oneshot", "layerwise", "iterative"),
        group="pruning",
    )
    start_cov: int = option(
        0,
        "the convs of the first N rates are already pruned, as --resume_mask or zeros in CKPT say",
        metavar="N",
        group="pruning",
    )
    resume_mask: Path | None = option(
        None, "HRank's mask file, for the convs of --start_cov", metavar="FILE", group="pruning"
    )
    recalibrate: int = option(
        1000,
        "training images that re-estimate the norms' statistics after each cut, before "
        "fine-tuning; 0: none",
        metavar="N",
        group="pruning",
    )
    recipe: str | None = recipe_option(recipe_values)
    distill: bool = option(False, "distill the dense network into the pruned one", group="training")
    distill_weight: float = option(
        0.9, "weight of the teacher in the loss; the labels have the rest", group="training"
    )
    distill_temperature: float = option(
        4.0, "distillation temperature: divisor of the logits", group="training"
    )
    init: str = option(
        "pruned",
        "start from the pruned network's weights, or from scratch: the same network with fresh "
        "weights, drawn by --seed",
        choices=("pruned", "scratch"),
        group="pruning",
    )
    group: bool = option(
        False,
        "prune layers that a residual sum joins together, at the mean of their rates and scores",
        group="pruning",
    )
    round_to: int = option(
        1,
        "round the number of kept filters up to a multiple of K; auto: the number of channels that "
        "--runtime computes at once, found by timing",
        type=rounding,
        metavar="K",
        group="pruning",
    )
    align: str | None = option(
        None,
        "how filters of --mode remove are left where a sum needs their channels: compact: copied "
        "into place, the fewest MACs; zeros: as zeros; blocks: given back up to the channels that "
        "--runtime computes at once; time: what is fastest there, by timing all three (default: "
        "time for a target in time, else compact, which the paper's counts are of)",
        choices=("time", "compact", "zeros", "blocks"),
        group="pruning",
    )
    remove_zeros: bool = option(
        False, "only remove filters that are already zero in --resume CKPT", group="pruning"
    )
    test_only: bool = option(
        False, "only evaluate --test_model_dir, or --resume CKPT, as `evaluate` does", group="run"
    )
    dry_run: bool = option(False, "print the plan and its costs, write nothing", group="run")
    job_dir: Path | None = option(
        None,
        "folder of the run (default: result/ARCH/prune_..., named by the options)",
        group="run",
    )

    @property
    def recalibrates(self) -> bool:
        """Whether the norms' statistics are re-estimated: after each cut of trained weights."""
        return self.recalibrate > 0 and self.init == "pruned"

    @property
    def alignment(self) -> str:
        """How channels are left that do not line up."""
        if self.align is not None:
            return self.align
        deployed = self.by_time and self.mode == "remove" and self.schedule != "iterative"
        return "time" if deployed else "compact"

    @property
    def drops(self) -> bool:
        """Whether whole branches may be dropped for a target in time."""
        fits = self.allocation == "global" and self.schedule == "oneshot"
        return self.drop_branches == "on" and fits and (self.by_time or self.targets)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_below(self, 0, "epochs")
        self.training_recipe(self.seed)  # refuses what is out of range, whatever else is asked
        if self.test_only:
            return
        self.refuse_other_granularity(shared=("schedule", "steps", "recalibrate"))
        if self.remove_zeros:
            choosing = ("pruning", "automatic rates")
            names = {field.name for field in fields(self) if field.metadata["group"] in choosing}
            why = "with --remove_zeros, which chooses no filters: expected one of them"
            refuse_given(self, names - {"remove_zeros"}, why)
            return
        if self.by_weight:
            self._check_weights()
            return
        if self.targets:
            object.__setattr__(self, "dry_run", True)
            if not (self.target or self.compress_rate or self.ratio or self.rates):
                object.__setattr__(self, "ratio", (0.0,))
        self.check_target()
        if self.recalibrate < 0:
            raise ValueError(f"--recalibrate is {self.recalibrate}: expected 0 or more")
        if not (self.compress_rate or self.ratio or self.rates or self.target):
            raise ValueError(
                "--compress_rate is missing: expected rates such as [0.1]+[0.6]*54 (or a target)"
            )
        if self.in_registry:  # of others the graph says it, once they are opened
            from utils.options.networks import outline

            self._check_rates(outline(self.arch))
        if self.init == "scratch" and self.schedule != "oneshot":
            raise ValueError(
                f"--init scratch with --schedule {self.schedule}: expected oneshot, since fresh "
                "weights have nothing to lose conv by conv"
            )
        if self.resume_mask is not None and self.start_cov == 0:
            raise ValueError(
                f"--resume_mask {self.resume_mask} is for convs that are pruned already: expected "
                "their number with --start_cov"
            )
        if self.round_to != AUTO:
            refuse_below(self, 1, "round_to")
        self._check_align()
        if self.epochs == 0 and self.schedule == "layerwise":
            raise ValueError("--epochs is 0 with --schedule layerwise: expected 1 or more")
        self.check_steps(schedule=self.schedule, epochs=self.epochs, start_cov=self.start_cov)

    def _check_align(self) -> None:
        if self.align not in (None, "compact") and self.mode == "mask":
            raise ValueError(f"--align {self.align} with --mode mask: expected --mode remove")
        if self.align in TIMED_ALIGN:
            for name, given in (
                ("schedule iterative", self.schedule == "iterative"),
                (f"start_cov {self.start_cov}", self.start_cov > 0),
            ):
                if given:
                    raise ValueError(
                        f"--align {self.align} with --{name}: expected compact or zeros, since "
                        "what is gone already stays gone"
                    )

    def with_rates_of(self, network: "Network") -> "PruneConfig":
        """Return the options with the compress rates that theirs are for this network.

        Raises:
            ValueError: there is nothing to prune, or the rates do not fit.
        """
        if not network.layers.layers:
            raise ValueError(
                f"the network {network.spec} has nothing to prune: every layer reaches its output, "
                "or an operation that nobody knows (`python main.py layers` says which)"
            )
        config = replace(self)
        config._check_rates(network)
        return config

    def _check_rates(self, network: "Network") -> None:
        """Check the rates, and let the compress rate be what --ratio or --rates says."""
        from utils.paper.rates import rates_of_layers, rates_of_ratio, read_rates

        for name in ("ratio", "rates"):
            if not getattr(self, name):
                continue
            if name == "ratio":
                rates = rates_of_ratio(self.ratio, network)
            else:
                by_layer = read_json(self.rates, MapOf(number(0, 1)), "rates {layer: rate}")
                try:
                    rates = rates_of_layers(by_layer, network)
                except ValueError as error:
                    raise ValueError(f"{self.rates}: {error}") from None
            if self.compress_rate not in ("", rates):
                raise ValueError(
                    f"--{name} and --compress_rate {self.compress_rate!r}: expected one of them"
                )
            if self.layout != "hrank":
                raise ValueError(
                    f"--{name} with --layout {self.layout}: expected --compress_rate in that layout"
                )
            object.__setattr__(self, "compress_rate", rates)
        if self.compress_rate:
            read_rates(self.compress_rate, network, self.layout)
        num_rates = network.layers.num_rates
        if not 0 <= self.start_cov < num_rates:
            raise ValueError(
                f"--start_cov is {self.start_cov}: expected at least 0, less than the {num_rates} "
                f"rates of {self.arch}"
            )

    def _check_weights(self) -> None:
        if self.schedule == "layerwise":
            raise ValueError(
                "--schedule is 'layerwise' with --granularity weight: expected oneshot or iterative"
            )
        self.check_sparsity(gradual=self.schedule == "iterative")
        self.check_steps(schedule=self.schedule, epochs=self.epochs, start_cov=self.start_cov)

    @property
    def prunes(self) -> str:
        """What goes: "filters", "weights", "zeros" that are there already, or "nothing"."""
        if self.test_only:
            return "nothing"
        if self.remove_zeros:
            return "zeros"
        return "weights" if self.by_weight else "filters"

    def identity(self, checkpoint_sha256: str | None) -> dict[str, Any]:
        """Return what makes a run the same run: its options and the dense checkpoint's bytes."""
        options = as_dict(self, without=_PASSING)
        return {"command": "prune", **options, "checkpoint_sha256": checkpoint_sha256}

    def provenance(self, checkpoint_sha256: str | None) -> dict[str, Any]:
        """Return what a pruned file says of the run that made it, whatever was pruned."""
        import torch

        return {
            "checkpoint_sha256": checkpoint_sha256,
            "schedule": self.schedule,
            "epochs": self.epochs,
            "seed": self.seed,
            "normalization": self.normalization,
            "torch": str(torch.__version__),  # a class of its own, which no safe loader reads
        }

    def training_recipe(self, seed: int) -> Recipe:
        """Return the settings of the fine-tuning.

        Raises:
            ValueError: a setting is out of range, or would do nothing.
        """
        if not self.distill:
            names = ("distill_weight", "distill_temperature")
            refuse_given(self, names, "without --distill: expected both")
        return replace(
            super().training_recipe(seed),
            distill_weight=self.distill_weight,
            distill_temperature=self.distill_temperature,
        )
