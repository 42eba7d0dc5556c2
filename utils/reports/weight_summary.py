"""The summary of fine-grained pruning: sizes in bytes, and all of it for people, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn as nn

from utils.metrics.size import parameter_size
from utils.paper.markdown import counted, millions, table
from utils.pruning.magnitude import prunable_weights
from utils.reports.summary import accuracy_table, step_cells, step_names

_FILES = {
    "dense": "as torch.save writes it, whatever is zero",
    "dense_deflated": "the dense network deflated",
    "pruned_deflated": "the pruned network deflated: `pruned.pt`, which loads as any other file",
}


def weight_sizes(model: nn.Module, bits: Sequence[int]) -> list[dict[str, int]]:
    """Return the bytes of all parameters at each number of bits: all, nonzeros, and with places.

    `bitmap_bytes` is for nonzeros and one bit more for each weight of a conv or linear, which says
    whether it is there: a format that can really be read back.
    """
    flags = sum(weight.numel() for weight in prunable_weights(model).values())
    found = []
    for count in bits:
        size = parameter_size(model, count)
        row = {"bits": count, "dense_bytes": size.dense_bytes}
        row |= {"nonzero_bytes": size.nonzero_bytes}
        found.append(row | {"bitmap_bytes": size.nonzero_bytes + -(-flags // 8)})
    return found


def weights_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary of fine-grained pruning (of its dry run too) as Markdown tables."""
    layers, pattern = summary["layers"], summary["pattern"]
    weights, zeros = (sum(row[name] for row in layers) for name in ("weights", "zeros"))
    rows = [
        (x["layer"], f"{x['zeros']:,} of {x['weights']:,}", f"{x['zeros'] / x['weights']:.1%}")
        for x in [*layers, {"layer": "all", "weights": weights, "zeros": zeros}]
    ]
    how = f"sparsity {summary['sparsity']}, threshold {summary['threshold']}"
    how = f"pattern {pattern}" if pattern != "unstructured" else how
    parts = [
        f"# {summary['arch']}: weights by magnitude, {how}, {summary['schedule']}",
        "## Layers",
        table(("layer", "zeros", "sparsity"), rows),
    ]
    if pattern != "unstructured" and summary["left_dense"]:
        left = ", ".join(summary["left_dense"])
        parts.append(f"Left dense, since their input channels are no multiple of 4: {left}.")
    if "accuracy" in summary:
        parts += [
            "## Accuracy",
            accuracy_table(summary["accuracy"]),
            *_steps(summary),
            _data(summary),
        ]
        parts += ["## Size", _sizes(summary), _files(summary["file_bytes"])]
    macs = millions(summary["physical"]["dense"]["macs"])
    parts.append(
        f"The tensors keep their size: one image costs {macs} MACs, pruned or not. Whether "
        "torch.sparse makes the zeros pay is measured by `main.py evaluate --sparse`."
    )
    return "\n\n".join(parts) + "\n"


def _steps(summary: Mapping[str, Any]) -> list[str]:
    rows = [
        (number, f"{row['sparsity']:.1%}", *step_cells(row))
        for number, row in enumerate(summary["steps"], start=1)
        if "finetuned" in row
    ]
    names = ("step", "sparsity", *step_names(summary["steps"]))
    return [table(names, rows)] if len(rows) > 1 else []


def _data(summary: Mapping[str, Any]) -> str:
    options, epoch = summary["options"], summary["best_epoch"]
    words = [
        f"Data: {summary['dataset']}, {summary['train_images']} train images, normalized as "
        f"{options['normalization']}",
        f"seed {options['seed']}",
        counted(options["epochs"], "epoch") + " of each step" * (len(summary["steps"]) > 1),
        *([f"best epoch {epoch}, by --select_on {options['select_on']}"] if epoch else []),
    ]
    return "; ".join(words) + "."


def _sizes(summary: Mapping[str, Any]) -> str:
    rows = [
        (f"{x['bits']} bits", *(_megabytes(x[f"{name}_bytes"]) for name in _SIZES))
        for x in summary["sizes"]
    ]
    return table(("parameters", *_SIZES.values()), rows)


_SIZES = {
    "dense": "all",
    "nonzero": "nonzeros",
    "bitmap": "nonzeros, and a bit for each weight that says where",
}


def _files(found: Mapping[str, int]) -> str:
    rows = [(title, _megabytes(found[name])) for name, title in _FILES.items()]
    return table(("file, 32 bits", "measured"), rows)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3f} MB"
