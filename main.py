"""The commands: `python main.py [COMMAND] [options]`; without a command, `prune`."""

import sys

from utils.commands.compare import CompareConfig, compare_command
from utils.commands.controls import controls_command
from utils.commands.demo import DemoConfig, demo_command, demo_text
from utils.commands.door import run
from utils.commands.evaluate import evaluate_command
from utils.commands.export import export_command
from utils.commands.prune import prune_command, prune_text
from utils.commands.scan import scan_command
from utils.commands.train import train_command, train_text
from utils.options.controls_options import ControlsConfig
from utils.options.evaluate_options import EvaluateConfig
from utils.options.export_options import ExportConfig
from utils.options.prune_options import PruneConfig
from utils.options.scan_options import ScanConfig
from utils.options.train_options import TrainConfig
from utils.reports.compare_table import compare_text
from utils.reports.controls_table import controls_markdown
from utils.reports.evaluate_table import evaluate_text
from utils.reports.export_table import export_text
from utils.reports.scan_results import scan_markdown

COMMANDS = {
    "train": (TrainConfig, train_command, train_text, "Train a dense baseline."),
    "prune": (
        PruneConfig,
        prune_command,
        prune_text,
        "Prune by ranks and compress rates, fine-tune, and compare with the paper.",
    ),
    "evaluate": (
        EvaluateConfig,
        evaluate_command,
        evaluate_text,
        "Accuracy, MACs, parameters, size and latency of a checkpoint.",
    ),
    "scan": (
        ScanConfig,
        scan_command,
        scan_markdown,
        "Accuracy against compress rate, layer by layer, without fine-tuning.",
    ),
    "compare": (
        CompareConfig,
        compare_command,
        compare_text,
        "The published tables beside counts and runs (`--experiment controls --help`: criteria).",
    ),
    "export": (
        ExportConfig,
        export_command,
        export_text,
        "Write .pt2 and .onnx files that run without this repository.",
    ),
    "demo": (
        DemoConfig,
        demo_command,
        demo_text,
        "The whole job on a synthetic dataset, in about two minutes, with nothing to download.",
    ),
}

# `compare --experiment` has options of its own; `compare --experiment controls --help` lists them.
EXPERIMENT = (
    ControlsConfig,
    controls_command,
    controls_markdown,
    "Prune by many criteria, train on and from scratch, with several seeds, and compare.",
)


def main(argv: list[str]) -> int:
    """Run the command that `argv` spells and return the exit code."""
    if argv and argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv and not argv[0].startswith("-"):
        name, argv = argv[0], argv[1:]
    else:
        name = "prune"
    if name not in COMMANDS:
        print(
            f"main.py: error: unknown command {name!r}: expected one of {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    config, command, text, description = entry_of(name, argv)
    return run(config, command, text, argv, prog=f"main.py {name}", description=description)


def entry_of(name: str, words: list[str]) -> tuple:
    """Return a command's config class, function, text and description, as its words ask for."""
    asked = any(word.partition("=")[0] == "--experiment" for word in words)
    return EXPERIMENT if name == "compare" and asked else COMMANDS[name]


def usage() -> str:
    """Return the list of commands."""
    rows = [f"  {name:9s} {entry[-1]}" for name, entry in COMMANDS.items()]
    return "\n".join(
        [
            "usage: main.py [COMMAND] [options]   (without a command: prune)",
            "",
            *rows,
            "",
            "`main.py COMMAND --help` lists its options; rank_generation.py ranks the filters.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
