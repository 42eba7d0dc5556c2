"""The pages' table of torchvision networks: half of their filters removed, and the law checked.

`python -m utils.benchmarks.networks_table [--write] [networks...]` measures and prints it;
`--write` measures all of them, stores the numbers beside this file and renews their page.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torchvision
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph, trace_channels
from utils.graph.groups import channel_groups
from utils.metrics.cost import counts, physical_cost
from utils.metrics.difference import largest_difference
from utils.paper.markdown import table
from utils.paper.measured import change
from utils.paper.pages import write_block
from utils.pruning.group_plan import plan_groups
from utils.pruning.scores import score_filters
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters
from utils.runs.atomic_write import write_text
from utils.runs.borrowed_state import evaluating, training
from utils.runs.environment import environment
from utils.runs.notes import note

MEASURED = Path(__file__).with_suffix(".json")

NETWORKS = {  # image sizes
    "resnet18": 224,
    "resnet50": 224,
    "vgg16_bn": 224,
    "densenet121": 224,
    "googlenet": 224,
    "inception_v3": 299,
    "mobilenet_v2": 224,
    "mobilenet_v3_small": 224,
    "efficientnet_b0": 224,
    "shufflenet_v2_x1_0": 224,
    "squeezenet1_1": 224,
    "regnet_y_400mf": 224,
    "mnasnet1_0": 224,
    "convnext_tiny": 224,
}
RATE, SEED, REPEATS, BATCH = 0.5, 0, 3, 2

_HEADER = (
    "network",
    "parameters",
    "MACs, physical",
    "eval: difference (relative)",
    "train: difference (relative)",
    "trace",
    "remove",
)


def build(network: str) -> nn.Module:
    """Return the untrained torchvision network, without auxiliary heads.

    Raises:
        ValueError: if `network` is not one of NETWORKS.
    """
    if network not in NETWORKS:
        raise ValueError(f"unknown network {network!r}: expected one of {', '.join(NETWORKS)}")
    with_heads = network in ("googlenet", "inception_v3")
    options = {"aux_logits": False, "init_weights": False} if with_heads else {}
    return torchvision.models.get_model(network, weights=None, **options)


@torch.no_grad()
def enliven(model: nn.Module, images: Tensor, seed: int) -> None:
    """Make an untrained network give logits of order 1 that depend on every layer, in place.

    Norms get random scales and shifts and running statistics measured on `images`, layer scales
    are drawn near 1 instead of 1e-6, the classifier is scaled, and nothing is dropped: a smaller
    network would draw other random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm
    for module in model.modules():
        if isinstance(module, norms):
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.uniform_(-0.5, 0.5, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # a plain average over the pass below
        if isinstance(getattr(module, "layer_scale", None), nn.Parameter):
            module.layer_scale.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, nn.modules.dropout._DropoutNd | torchvision.ops.StochasticDepth):
            module.p = 0.0
    with training(model):
        logits = model(images)
    classifier = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    for parameter in classifier.parameters():
        parameter /= logits.std()


def planned_masks(
    model: nn.Module, graph: ChannelGraph, *, across_sums: bool, rate: float = RATE
) -> dict[str, Tensor]:
    """Return the masks of the filters with the largest L1 norms: {layer: bool [filters]}."""
    groups = channel_groups(graph, across_sums=across_sums)
    return plan_groups(groups, score_filters(model, graph, "l1"), rate).masks()


def differences(
    masked: nn.Module, removed: nn.Module, images: Tensor
) -> dict[str, dict[str, float]]:
    """Return {mode: the largest |removed - masked| logit, and the largest |masked| logit}."""
    found = {}
    for mode in (evaluating, training):
        with mode(masked), mode(removed):
            largest, scale = largest_difference(masked, removed, images)
        found[mode.__name__] = {"largest_difference": largest, "scale": scale}
    return {"eval": found["evaluating"], "train": found["training"]}


def measure(network: str) -> Iterator[dict[str, Any]]:
    """Yield what is measured with filters pruned one by one, and then with `across_sums`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = build(network).eval()
        images = torch.randn(2 * BATCH, 3, NETWORKS[network], NETWORKS[network])
    enliven(model, images, SEED)
    image = images[:1]
    graph, trace_seconds = _timed(lambda: trace_channels(model, image))
    for across_sums in (False, True):
        masks = planned_masks(model, graph, across_sums=across_sums)
        removed, remove_seconds = _timed(lambda masks=masks: remove_filters(model, graph, masks))
        masked = copy.deepcopy(model)
        ChannelMasks(masked, graph, masks).apply()
        costs = {"dense": physical_cost(model, image), "pruned": physical_cost(removed, image)}
        yield {
            "network": network,
            "image_size": NETWORKS[network],
            "across_sums": across_sums,
            **{k: counts(c) for k, c in costs.items()},
            "logits": differences(masked.double(), removed.double(), images[:BATCH].double()),
            "trace_seconds": round(trace_seconds, 3),
            "remove_seconds": round(remove_seconds, 3),
        }


def _timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """Return the action's result and the median of its times in seconds."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


def networks_table(measured: Mapping[str, Any]) -> str:
    """Return the table of what was measured and, below it, on what."""
    made = measured["environment"]
    provenance = (
        f"`{made['command']}`; seed {measured['seed']}; {made['device']}, {made['threads']} of "
        f"{made['cpus']} threads; torch {made['torch']}, torchvision {made['torchvision']}; "
        f"commit {made['commit']}."
    )
    return f"{table(_HEADER, [_row(row) for row in measured['rows']])}\n\n{provenance}"


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["network"] + " `--group`" * row["across_sums"],
        change(row, "parameters"),
        change(row, "macs"),
        *(_difference(row["logits"][mode]) for mode in ("eval", "train")),
        f"{row['trace_seconds']:.2f} s",
        f"{row['remove_seconds']:.2f} s",
    )


def _difference(logits: Mapping[str, float]) -> str:
    largest = logits["largest_difference"]
    return f"{largest:.0e} ({largest / logits['scale']:.0e})"


def _measure_all(networks: Iterable[str]) -> dict[str, Any]:
    rows = []
    for network in networks:
        note(f"measuring {network}")
        rows += measure(network)
    made = environment(torch.device("cpu")) | {"torchvision": torchvision.__version__}
    made["command"] = "python -m utils.benchmarks.networks_table --write"
    return {"environment": made, "seed": SEED, "rows": rows}


def main(argv: Sequence[str]) -> None:
    """Measure the named networks, or all, and print the table."""
    parser = argparse.ArgumentParser(prog="networks_table", description=__doc__)
    parser.add_argument("networks", nargs="*", help="which of them to measure (all)")
    parser.add_argument("--write", action="store_true", help="store the numbers, renew their page")
    options = parser.parse_args(argv)
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown:
        parser.error(f"unknown network {unknown[0]!r}: expected one of {', '.join(NETWORKS)}")
    if options.write and options.networks:
        parser.error("--write measures all networks: expected no names with it")
    measured = _measure_all(options.networks or NETWORKS)
    print(networks_table(measured))
    if options.write:
        write_text(MEASURED, json.dumps(measured, indent=1) + "\n")
        write_block("networks", networks_table(measured))


if __name__ == "__main__":
    main(sys.argv[1:])
