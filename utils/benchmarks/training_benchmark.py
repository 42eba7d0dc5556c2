"""The speed of training: images per second here and by the official recipe, side by side.

`python -m utils.benchmarks.training_benchmark [--write] [options]` measures and prints it;
`--write` stores the numbers beside this file and renews the table on its page.
"""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision

from utils.benchmarks.training_contest import Recipes, contestants_of, speeds
from utils.commands.door import always, run
from utils.data.gpu_loader import num_batches
from utils.data.load import load_dataset
from utils.metrics.cost import physical_cost
from utils.options.data_options import DeviceOptions
from utils.options.devices import open_device
from utils.options.networks import draw_network
from utils.paper.markdown import counted, millions, table
from utils.paper.pages import write_block
from utils.planning.plan import Planned, make_plan
from utils.runs.atomic_write import write_text
from utils.runs.environment import environment
from utils.runs.notes import note
from utils.runs.options import option, refuse_below
from utils.training.schedules import Recipe

MEASURED = Path(__file__).with_suffix(".json")  # {"cpu" or "cuda": what was measured there}
NETWORKS = {  # compress rates: HRank's README; for ResNet-20, without a row, those of ResNet-110
    "resnet_20": "[0.1]+[0.4]*18",
    "resnet_56": "[0.1]+[0.60]*35+[0.0]*2+[0.6]*6+[0.4]*3+[0.1]+[0.4]+[0.1]+[0.4]+[0.1]+[0.4]+"
    "[0.1]+[0.4]",
    "vgg_16_bn": "[0.95]+[0.5]*6+[0.9]*4+[0.8]*2",
}
FORMS = {"dense": "dense", "masked": "masked", "removed": "masked"}  # here -> officially

_ARITHMETIC = {
    "same": "float32 on both sides",
    "auto": "float32 officially, here what `train` takes on the device",
}
_HEADER = ("threads", "network", "filters", "MACs", "official", "here", "ratio", "pipeline here")


@dataclass(frozen=True)
class BenchmarkConfig(DeviceOptions):
    """Options of the benchmark."""

    dataset: str = option(
        "cifar10", "the images", choices=("cifar10", "folder", "shapes"), group="data"
    )
    data_dir: Path = option(
        Path("data"), "folder of cifar10, or of image folders: train/ and test/", group="data"
    )
    networks: tuple[str, ...] = option(
        tuple(NETWORKS), "networks to train, separated by commas", group="measuring"
    )
    threads: tuple[int, ...] = option((1,), "numbers of torch's threads", group="measuring")
    steps: int = option(1, "steps that are timed, after one of warm-up", group="measuring")
    repeats: int = option(3, "rounds, of whose speeds the median counts", group="measuring")
    train_batch_size: int = option(128, "images per step", group="measuring")
    arithmetic: str = option(
        "same",
        "of training here: the official float32, or what `train` takes on the device",
        choices=("same", "auto"),
        group="measuring",
    )
    write: bool = option(False, "store the numbers, renew their page", group="run")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.networks:
            if name not in NETWORKS:
                known = ", ".join(NETWORKS)
                raise ValueError(f"--networks has {name!r}: expected some of {known}")
        refuse_below(self, 1, "steps", "repeats")
        if min(self.threads, default=0) < 1:
            raise ValueError(f"--threads is {self.threads}: expected 1 or more")
        if self.write and set(self.networks) != set(NETWORKS):
            raise ValueError("--write stores all networks: expected no --networks with it")

    def recipe(self) -> Recipe:
        """Return the recipe of a step, the official fine-tuning's."""
        choice = "auto" if self.arithmetic == "auto" else "off"
        size = self.train_batch_size
        return Recipe(epochs=1, lr=0.01, batch_size=size, amp=choice, channels_last=choice)


def plan_network(network: str, num_classes: int, seed: int) -> Planned:
    """Return a network of NETWORKS with fresh weights, and what its rates leave of it, by L1 norm.

    Ranks, for which a network must be trained, leave as many filters of every conv.
    """
    return make_plan(
        draw_network(network, seed, num_classes),
        compress_rate=NETWORKS[network],
        criterion="l1",
        rank_folder=Path(),
        seed=seed,
    )


def benchmark_command(config: BenchmarkConfig) -> dict[str, Any]:
    """Measure both recipes and return their speeds, those of all rounds.

    Raises:
        ValueError: bad input, or more steps than an epoch of the images has.
    """
    device = open_device(config.device, config.gpu)
    data = load_dataset(config.dataset, config.data_dir, image_size=32, seed=config.seed)
    images = data.train
    available = num_batches(images, config.train_batch_size, drop_last=True) - 1
    if config.steps > available:
        raise ValueError(
            f"--steps is {config.steps}: expected at most {available} with {len(images)} images "
            f"in batches of {config.train_batch_size}: one batch is for warm-up"
        )
    recipes = Recipes(images, config.recipe(), device)
    made = environment(device) | {"torchvision": torchvision.__version__}
    made["command"] = shlex.join(
        ["python", "-m", "utils.benchmarks.training_benchmark", *sys.argv[1:]]
    )
    measured = {
        "environment": made,
        "dataset": data.name,
        "train_images": len(images),
        "train_batch_size": config.train_batch_size,
        "steps": config.steps,
        "repeats": config.repeats,
        "arithmetic": config.arithmetic,
        "seed": config.seed,
        "rows": [
            row
            for threads in config.threads
            for row in _rows(config, recipes, len(images.classes), threads)
        ],
    }
    if config.write:
        _write(measured, device.type)
    return measured


def _rows(
    config: BenchmarkConfig, recipes: Recipes, num_classes: int, threads: int
) -> Iterator[dict[str, Any]]:
    """Yield the speeds of the images alone, then of each network in each of its FORMS."""
    rounds = {"repeats": config.repeats, "device": recipes.device}
    with _torch_threads(threads):
        note(f"{counted(threads, 'thread')}: the images alone")
        alone = speeds(recipes.images_alone(), steps=None, **rounds)
        yield {"threads": threads, "network": None, "images_per_second": alone}
        for network in config.networks:
            note(f"{counted(threads, 'thread')}: {network}")
            planned = plan_network(network, num_classes, config.seed)
            found = speeds(contestants_of(planned, recipes), steps=config.steps, **rounds)
            for form, officially in FORMS.items():
                model = planned.slim if form == "removed" else planned.dense.model
                both = {"official": found[f"official {officially}"], "here": found[f"here {form}"]}
                yield {
                    "threads": threads,
                    "network": network,
                    "filters": form,
                    "macs": physical_cost(model, planned.dense.example).macs,
                    "images_per_second": both,
                }


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def benchmark_text(measured: Mapping[str, Any]) -> str:
    """Return the table of the median speeds and, below it, on what they were measured."""
    made, rows = measured["environment"], measured["rows"]
    pipeline = {
        row["threads"]: median(row["images_per_second"]["here"])
        for row in rows
        if row["network"] is None
    }
    provenance = (
        f"Images per second on {made['device']} ({made['cpus']} CPU cores), the median of "
        f"{counted(measured['repeats'], 'round')} of {counted(measured['steps'], 'step')}; "
        f"{measured['dataset']}, {measured['train_images']} train images in batches of "
        f"{measured['train_batch_size']}; {_ARITHMETIC[measured['arithmetic']]}; seed "
        f"{measured['seed']}; torch {made['torch']}, torchvision {made['torchvision']}; "
        f"commit {made['commit']}."
    )
    lines = table(_HEADER, [_cells(row, pipeline[row["threads"]]) for row in rows])
    return f"{lines}\n\n{provenance}\n\n    {made['command']}"


def stored_text(stored: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the tables of what MEASURED stores, by kind of device."""
    return "\n\n".join(benchmark_text(measured) for measured in stored.values())


def _cells(row: Mapping[str, Any], pipeline: float) -> tuple[str, ...]:
    """Return the cells of a row; `pipeline` is the speed of the images alone."""
    official, here = (median(row["images_per_second"][side]) for side in ("official", "here"))
    speed = (f"{official:.0f}", f"{here:.0f}", f"{here / official:.2f}")
    if row["network"] is None:
        return (str(row["threads"]), "none, images alone", "", "", *speed, "")
    macs, share = millions(row["macs"]), f"{100 * here / pipeline:.1f}%"
    return (str(row["threads"]), row["network"], row["filters"], macs, *speed, share)


def _write(measured: Mapping[str, Any], device: str) -> None:
    """Store what was measured in place of what that kind of device had; renew the page."""
    stored = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    stored = dict(sorted({**stored, device: measured}.items()))
    write_text(MEASURED, json.dumps(stored, indent=1) + "\n")
    write_block("training_benchmark", stored_text(stored))


def main(argv: Sequence[str]) -> int:
    """Measure, print the table or with --json the numbers, and return the exit code."""
    return run(
        BenchmarkConfig,
        always(benchmark_command, benchmark_text),
        argv,
        prog="training_benchmark",
        description="Images per second of training, here and by the official recipe.",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
