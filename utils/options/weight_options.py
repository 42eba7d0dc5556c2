"""The options of fine-grained pruning, and which other options go with it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from utils.pruning.layer_sparsity import parse_sparsity
from utils.runs.options import option, refuse_given

GRANULARITIES = ("filter", "weight")
PATTERNS = ("unstructured", "2:4")
_GROUP = "fine-grained pruning"
_FILTERS = ("pruning", "automatic rates")  # groups of options for filters alone


@dataclass(frozen=True)
class GranularityOptions:
    """What is pruned, a filter or a weight at a time."""

    granularity: str = option(
        "filter",
        "prune whole filters, or single weights of small magnitude, which makes no tensor smaller",
        choices=GRANULARITIES,
        group="pruning",
    )

    @property
    def by_weight(self) -> bool:
        """Whether single weights are pruned."""
        return self.granularity == "weight"

    def refuse_other_granularity(self, *, shared: Collection[str]) -> None:
        """Refuse options that only the other granularity has.

        `shared` names options for pruning that both have.

        Raises:
            ValueError: one of them is not at its default.
        """
        foreign, other = (_FILTERS, "filter") if self.by_weight else ((_GROUP,), "weight")
        names = {field.name for field in fields(self) if field.metadata["group"] in foreign}
        refuse_given(
            self,
            names - {"granularity", *shared},
            f"with --granularity {self.granularity}: expected it with --granularity {other} alone",
        )


@dataclass(frozen=True)
class WeightOptions(GranularityOptions):
    """How single weights are pruned."""

    sparsity: str = option(
        "",
        "share of the weights to zero in every conv and linear, e.g. 0.8, or by layers: "
        "conv1=0.3,layer1=0.6,0.8; biases and norms stay",
        group=_GROUP,
    )
    threshold: str = option(
        "layer",
        "apply the share to every layer, or to all layers together",
        choices=("layer", "global"),
        group=_GROUP,
    )
    pattern: str = option(
        "unstructured",
        "zeros anywhere, or 2 in every 4 neighbouring input channels, which GPUs accelerate",
        choices=PATTERNS,
        group=_GROUP,
    )
    bits: tuple[int, ...] = option(
        (32, 16, 8), "bits per weight for which sizes are shown", group=_GROUP
    )

    def check_sparsity(self, *, gradual: bool) -> None:
        """Refuse sparsities that are missing or do not go together; `gradual`: in several steps.

        Raises:
            ValueError: so it is.
        """
        if any(bits < 1 for bits in self.bits):
            given = ",".join(map(str, self.bits))
            raise ValueError(f"--bits is {given}: expected numbers of 1 or more")
        if self.pattern != "unstructured":
            unfit = {"sparsity": self.sparsity, "threshold global": self.threshold == "global"}
            unfit |= {"schedule iterative": gradual}
            for flag in (flag for flag, given in unfit.items() if given):
                raise ValueError(
                    f"--{flag} with --pattern {self.pattern}: expected it without, since the "
                    "pattern fixes how many weights go"
                )
            return
        if not self.sparsity:
            raise ValueError("--sparsity is missing: expected a share of the weights such as 0.8")
        if parse_sparsity(self.sparsity).by_name and self.threshold == "global":
            raise ValueError(
                f"--sparsity is {self.sparsity!r} with --threshold global: expected one number, "
                "since one threshold applies to all layers"
            )


def pruned_by(options: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a run's options prune, and by what: ("filters", "l1"), for example."""
    if options.get("granularity") == "weight":
        return "weights", "magnitude"
    return "filters", options["criterion"]
