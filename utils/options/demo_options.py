"""The options of `main.py demo`."""

from dataclasses import dataclass
from pathlib import Path

from utils.options.data_options import DeviceOptions
from utils.runs.options import option


@dataclass(frozen=True)
class DemoConfig(DeviceOptions):
    """Options of `main.py demo`."""

    job_dir: Path = option(Path("result/demo"), "folder of the demo's runs", group="run")
    compress_rate: str = option(
        "",
        "share of the filters to remove (default: 0.35 of each layer, which halves the MACs)",
        group="run",
    )
    baseline_epochs: int = option(8, "epochs of the baseline", group="run")
    epochs: int = option(4, "epochs of fine-tuning", group="run")
    num_images: int = option(500, "images to rank on", group="run")
