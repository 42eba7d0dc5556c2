"""What the publications say of a network, looked up once, where it is opened."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from utils.paper.hrankplus import LAYOUTS, Layout
from utils.paper.tables import PaperRow, rows_of

# Where HRank's counter of MACs takes removed input channels off: DenseNet's transitions alone.
# Everywhere else it leaves a conv its inputs, whatever was removed before it. For DenseNet's first
# conv it takes `24 * rate` off, a fraction; `int(24 * rate)`, as many as really go, is meant here.
_COUNTED_INPUTS = {
    "densenet_40": {
        "trans1.conv1": ("conv1", *(f"dense1.{i}.conv1" for i in range(12))),
        "trans2.conv1": ("trans1.conv1", *(f"dense2.{i}.conv1" for i in range(12))),
    }
}

# Official stages of fine-tuning go rate by rate, but ResNet-50's block by block: they end with
# these rates' convs.
_STAGE_ENDS = {"resnet_50": (1, 5, 8, 11, 15, 18, 21, 24, 28, 31, 34, 37, 40, 43, 47, 50, 53)}


@dataclass(frozen=True)
class Official:
    """What HRank and HRankPlus say of a network; of most networks, nothing."""

    hrank: tuple[PaperRow, ...] = ()  # published rows, baseline first
    hrankplus: tuple[PaperRow, ...] = ()
    counted_inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """{conv whose inputs HRank's counter of MACs counts: the convs whose filters they are}."""
    stage_ends: tuple[int, ...] = ()
    """Rates that end a stage of the layer-by-layer schedule; none: each does."""
    slim: Layout | None = None
    """What HRankPlus's rates stand for."""

    def rows(self, layout: str) -> tuple[PaperRow, ...]:
        """Return the published rows with rates of a layout, "hrank" or "hrankplus"."""
        return {"hrank": self.hrank, "hrankplus": self.hrankplus}[layout]


def official_facts(name: str) -> Official:
    """Return what the publications say of the network of that name."""
    return Official(
        rows_of(name, "hrank"),
        rows_of(name, "hrankplus"),
        _COUNTED_INPUTS.get(name, {}),
        _STAGE_ENDS.get(name, ()),
        LAYOUTS.get(name),
    )
