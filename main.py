"""The commands: `python main.py [COMMAND] [options]`; without a command, `prune`."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from utils.commands.starting import end_quietly

if __name__ == "__main__":
    end_quietly("main.py")

from utils.commands.compare import CompareConfig, compare_command
from utils.commands.controls import controls_command
from utils.commands.demo import DemoConfig, demo_command, demo_text
from utils.commands.door import Command, always, refuse_command, run, usage
from utils.commands.evaluate import evaluate_command, test_only_command
from utils.commands.export import export_command
from utils.commands.layers import layers_command
from utils.commands.prune import prune_command
from utils.commands.prune_weights import prune_weights_command
from utils.commands.prune_zeros import prune_zeros_command
from utils.commands.scan import scan_command
from utils.commands.train import train_command, train_text
from utils.options.controls_options import ControlsConfig
from utils.options.evaluate_options import EvaluateConfig
from utils.options.export_options import ExportConfig
from utils.options.layers_options import LayersConfig
from utils.options.prune_options import PruneConfig
from utils.options.scan_options import ScanConfig
from utils.options.train_options import TrainConfig
from utils.reports.compare_table import compare_text
from utils.reports.controls_table import controls_markdown
from utils.reports.evaluate_table import evaluate_text
from utils.reports.export_table import export_text
from utils.reports.layers_table import layers_text
from utils.reports.scan_results import scan_markdown
from utils.reports.screen import prune_screen
from utils.reports.weight_summary import weights_markdown
from utils.reports.zeros_summary import zeros_markdown

# What `prune` does, by what its options say is to go.
PRUNING = {
    "filters": (prune_command, prune_screen),
    "weights": (prune_weights_command, weights_markdown),
    "zeros": (prune_zeros_command, zeros_markdown),
    "nothing": (test_only_command, evaluate_text),
}


class Entry(NamedTuple):
    """A command's options, what it says of itself, an example, and what it does with options."""

    config: type
    description: str
    example: str
    pick: Callable[[Any], Command]


COMMANDS = {
    "train": Entry(
        TrainConfig,
        "Train a dense baseline.",
        "train --arch resnet_20 --recipe modern --epochs 60",
        always(train_command, train_text),
    ),
    "prune": Entry(
        PruneConfig,
        "Prune by ranks and compress rates, fine-tune, and compare with the paper.",
        "prune --arch resnet_56 --resume CKPT --target_macs 0.5",
        lambda config: PRUNING[config.prunes],
    ),
    "evaluate": Entry(
        EvaluateConfig,
        "Accuracy, MACs, parameters, size and latency of a checkpoint.",
        "evaluate --arch resnet_56 --resume CKPT --against RUN/pruned.pt",
        always(evaluate_command, evaluate_text),
    ),
    "scan": Entry(
        ScanConfig,
        "Accuracy against compress rate, layer by layer, without fine-tuning.",
        "scan --arch resnet_56 --resume CKPT --criterion l1",
        always(scan_command, scan_markdown),
    ),
    "layers": Entry(
        LayersConfig,
        "What of a network may be pruned: layers, groups, rank sites, shares of the MACs.",
        "layers --arch torchvision:resnet18 --image_size 64",
        always(layers_command, layers_text),
    ),
    "compare": Entry(
        CompareConfig,
        "The published tables beside counts and runs (`--experiment controls --help`: criteria).",
        "compare --arch resnet_56",
        always(compare_command, compare_text),
    ),
    "export": Entry(
        ExportConfig,
        "Write .pt2 and .onnx files that run without this repository.",
        "export --resume RUN/pruned.pt",
        always(export_command, export_text),
    ),
    "demo": Entry(
        DemoConfig,
        "The whole job on a synthetic dataset, in about two minutes, with nothing to download.",
        "demo",
        always(demo_command, demo_text),
    ),
}

# `compare --experiment` has options of its own; `compare --experiment controls --help` lists them.
EXPERIMENT = Entry(
    ControlsConfig,
    "Prune by many criteria, train on and from scratch, with several seeds, and compare.",
    "compare --experiment controls --arch resnet_20 --resume CKPT",
    always(controls_command, controls_markdown),
)


def main(argv: list[str]) -> int:
    """Run the command that `argv` spells and return the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage((name, entry.description, entry.example) for name, entry in COMMANDS.items()))
        return 0
    name, *argv = argv if not argv[0].startswith("-") else ["prune", *argv]
    if name not in COMMANDS:
        return refuse_command(name, COMMANDS)
    config, description, example, pick = entry_of(name, argv)
    said = f"{description} Example: python main.py {example}"
    return run(config, pick, argv, prog=f"main.py {name}", description=said)


def entry_of(name: str, words: list[str]) -> Entry:
    """Return a command's entry, as its words ask for."""
    asked = any(word.partition("=")[0] == "--experiment" for word in words)
    return EXPERIMENT if name == "compare" and asked else COMMANDS[name]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
