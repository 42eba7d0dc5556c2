"""The options of `main.py layers`."""

from dataclasses import dataclass

from utils.options.data_options import DataOptions, DeviceOptions
from utils.options.evaluate_options import TestedFileOptions
from utils.runs.choices import SITES
from utils.runs.options import option


@dataclass(frozen=True)
class LayersConfig(TestedFileOptions, DataOptions, DeviceOptions):
    """Options of `main.py layers`."""

    sites: str = option(
        "official", "rank sites to show, as in rank_generation.py", choices=SITES, group="layers"
    )
    group: bool = option(False, "tie layers across sums, as `prune --group` does", group="layers")
