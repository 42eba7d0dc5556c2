"""The options of `main.py train`."""

from dataclasses import dataclass
from pathlib import Path

from utils.options.data_options import ArchOptions, DataOptions, DeviceOptions
from utils.options.training_options import TrainingOptions, schedule_option
from utils.runs.options import option


@dataclass(frozen=True)
class TrainConfig(TrainingOptions, DataOptions, ArchOptions, DeviceOptions):
    """Options of `main.py train`."""

    epochs: int = option(160, "epochs", group="training")
    lr: float = option(0.1, "learning rate", flags=("--learning_rate",), group="training")
    lr_schedule: str = schedule_option("cosine")
    job_dir: Path | None = option(
        None, "folder of the run (default: result/ARCH/baseline)", group="run"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.training_recipe(self.seed)
