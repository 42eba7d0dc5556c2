"""The commands: `python main.py [COMMAND] [options]`; without a command, `prune`.

What a command does is imported once its options are read, since torch takes seconds.
"""

import sys
from functools import partial
from typing import Any, NamedTuple

from utils.commands.starting import end_quietly

if __name__ == "__main__":
    end_quietly("main.py")

from utils.commands.door import Command, refuse_command, run, usage
from utils.options.compare_options import CompareConfig
from utils.options.controls_options import ControlsConfig
from utils.options.demo_options import DemoConfig
from utils.options.evaluate_options import EvaluateConfig
from utils.options.export_options import ExportConfig
from utils.options.layers_options import LayersConfig
from utils.options.prune_options import PruneConfig
from utils.options.scan_options import ScanConfig
from utils.options.train_options import TrainConfig


class Entry(NamedTuple):
    """A command's options, what it is for, and an example."""

    config: type
    description: str
    example: str


COMMANDS = {
    "train": Entry(
        TrainConfig,
        "Train a dense baseline.",
        "train --arch resnet_20 --recipe modern --epochs 60",
    ),
    "prune": Entry(
        PruneConfig,
        "Prune by ranks and compress rates, fine-tune, and compare with the paper.",
        "prune --arch resnet_56 --resume CKPT --target_macs 0.5",
    ),
    "evaluate": Entry(
        EvaluateConfig,
        "Accuracy, MACs, parameters, size and latency of a checkpoint.",
        "evaluate --arch resnet_56 --resume CKPT --against RUN/pruned.pt",
    ),
    "scan": Entry(
        ScanConfig,
        "Accuracy against compress rate, layer by layer, without fine-tuning.",
        "scan --arch resnet_56 --resume CKPT --criterion l1",
    ),
    "layers": Entry(
        LayersConfig,
        "What of a network may be pruned: layers, groups, rank sites, shares of the MACs.",
        "layers --arch torchvision:resnet18 --image_size 64",
    ),
    "compare": Entry(
        CompareConfig,
        "The published tables beside counts and runs (`--experiment controls --help`: criteria).",
        "compare --arch resnet_56",
    ),
    "export": Entry(
        ExportConfig,
        "Write .pt2 and .onnx files that run without this repository.",
        "export --resume RUN/pruned.pt",
    ),
    "demo": Entry(
        DemoConfig,
        "The whole job on a synthetic dataset, in about two minutes, with nothing to download.",
        "demo",
    ),
}

# `compare --experiment` has options of its own; `compare --experiment controls --help` lists them.
EXPERIMENT = Entry(
    ControlsConfig,
    "Prune by many criteria, train on and from scratch, with several seeds, and compare.",
    "compare --experiment controls --arch resnet_20 --resume CKPT",
)


def main(argv: list[str]) -> int:
    """Run the command that `argv` spells and return the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage((name, entry.description, entry.example) for name, entry in COMMANDS.items()))
        return 0
    name, *argv = argv if not argv[0].startswith("-") else ["prune", *argv]
    if name not in COMMANDS:
        return refuse_command(name, COMMANDS)
    entry = entry_of(name, argv)
    pick = partial(command_of, "controls" if entry is EXPERIMENT else name)
    said = f"{entry.description} Example: python main.py {entry.example}"
    return run(entry.config, pick, argv, prog=f"main.py {name}", description=said)


def entry_of(name: str, words: list[str]) -> Entry:
    """Return a command's entry, as its words ask for."""
    asked = any(word.partition("=")[0] == "--experiment" for word in words)
    return EXPERIMENT if name == "compare" and asked else COMMANDS[name]


def command_of(name: str, config: Any) -> Command:
    """Return what a command does with its options, and what writes its result for people."""
    match name if name != "prune" else f"prune {config.prunes}":
        case "train":
            from utils.commands.train import train_command as command
            from utils.commands.train import train_text as text
        case "prune filters":
            from utils.commands.prune import prune_command as command
            from utils.reports.screen import prune_screen as text
        case "prune weights":
            from utils.commands.prune_weights import prune_weights_command as command
            from utils.reports.screen import weights_screen as text
        case "prune zeros":
            from utils.commands.prune_zeros import prune_zeros_command as command
            from utils.reports.screen import zeros_screen as text
        case "prune nothing":
            from utils.commands.evaluate import test_only_command as command
            from utils.reports.evaluate_table import evaluate_text as text
        case "evaluate":
            from utils.commands.evaluate import evaluate_command as command
            from utils.reports.evaluate_table import evaluate_text as text
        case "scan":
            from utils.commands.scan import scan_command as command
            from utils.reports.screen import scan_screen as text
        case "layers":
            from utils.commands.layers import layers_command as command
            from utils.reports.layers_table import layers_text as text
        case "compare":
            from utils.commands.compare import compare_command as command
            from utils.reports.compare_table import compare_text as text
        case "controls":
            from utils.commands.controls import controls_command as command
            from utils.reports.controls_table import controls_markdown as text
        case "export":
            from utils.commands.export import export_command as command
            from utils.reports.export_table import export_text as text
        case "demo":
            from utils.commands.demo import demo_command as command
            from utils.commands.demo import demo_text as text
    return command, text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
