"""The options of `main.py export`."""

from dataclasses import dataclass
from pathlib import Path

from utils.options.data_options import DataOptions, DeviceOptions
from utils.options.evaluate_options import TestedFileOptions
from utils.runs.choices import BEST_FORMATS, FORMATS
from utils.runs.options import option


@dataclass(frozen=True)
class ExportConfig(TestedFileOptions, DataOptions, DeviceOptions):
    """Options of `main.py export`."""

    device: str = option("cpu", "where to export and check", choices=("auto", "cpu"), group="run")
    format: str = option(
        "all",
        "pt2, onnx (which needs the packages onnx, onnxscript and onnxruntime), or all: pt2, and "
        "onnx where they are installed",
        choices=("all", *FORMATS),
        group="export",
    )
    runtime: str | None = option(
        None,
        "write the one file that this runtime runs best: .onnx, or for eager a .pt2 with its norms "
        "folded into convs and channels last, whatever is fastest here on --eval_batch_size images",
        choices=tuple(BEST_FORMATS),
        group="export",
    )
    output: Path | None = option(
        None,
        "folder, or a file, whose ending follows the format; none: beside the checkpoint",
        group="export",
    )
    with_normalization: bool = option(
        False,
        "put the normalization into the files, which then take pixels in [0, 1]",
        group="export",
    )
    random_images: bool = option(
        False, "check on noise, if the dataset is not available", group="export"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        best = BEST_FORMATS.get(self.runtime)
        if best and self.format not in ("all", best):
            raise ValueError(
                f"--format {self.format} with --runtime {self.runtime}: expected {best}, which it "
                "runs best"
            )
