"""The pages' claim on any network: networks of five libraries with half of their filters removed.

`python -m utils.benchmarks.sweep SWEEP.csv --beside OTHER.csv --commit COMMIT` takes in the rows of
a sweep of that commit (one network each: pruned, held against its masked twin, trained by one step)
and columns `tp_...` of another, what Torch-Pruning made of the same networks; stores them beside
this file, and renews the blocks on the pages. `--render` only renews the blocks.
"""

import argparse
import csv
import importlib.metadata
import json
import statistics
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from utils.paper.markdown import table
from utils.paper.pages import write_block
from utils.runs.atomic_write import write_json
from utils.runs.environment import environment

STORED = Path(__file__).with_suffix(".json")
COLLECTIONS = {  # what the names of networks begin with: how pages call it
    "torchvision": "torchvision",
    "segmentation": "torchvision, segmentation",
    "detection": "torchvision, detection",
    "timm": "timm, convolutional",
    "timm_tokens": "timm, with tokens",
    "ultralytics": "ultralytics",
    "smp": "segmentation-models-pytorch",
    "transformers": "transformers",
}
LIBRARIES = ("torchvision", "timm", "segmentation-models-pytorch", "ultralytics", "transformers")
REASONS = {  # why networks keep more than others remove, or most of what they have
    "grouped convs lose whole groups, where Torch-Pruning makes every group narrower": (
        "torchvision/regnet_y_400mf",
        "torchvision/resnext50_32x4d",
        "timm/resnext50_32x4d",
        "timm/regnety_002",
        "timm/regnetz_b16",
        "transformers/RegNet",
    ),
    "filters are standardized over all their input channels, so those have to stay": (
        "timm/resnetv2_50x1_bit",
    ),
    "a learned number is added to every channel, to those without filters, too; convs that pad, or "
    "have neither bias nor norm, cannot take that up": ("timm/hgnetv2_b0",),
    "its code computes with the number of channels of what it reads, so those have to stay": (
        "torchvision/swin_t",
    ),
}
SHARES = ("one_left", "one_macs_left", "sums_left", "sums_macs_left")
GAPS = ("one_eval", "one_train", "sums_eval", "sums_train")
SAME, AHEAD, MOST = 1e-9, 1.0, 60.0  # of an output's scale; points; percent of the parameters
_HEADER = (
    *("collection", "networks", "smaller", "refused", "wrong", "parameters left", "MACs left"),
    *("trace", "Torch-Pruning runs", "as masked", "parameters left", "here, of these"),
)
_EACH = (
    *("network", "one by one", "across sums", "MACs", "difference", "trace"),
    *("Torch-Pruning", "its MACs", "its difference"),
)


def outcome(row: Mapping[str, str], other: Mapping[str, str]) -> dict[str, Any]:
    """Return what is stored of a network: a sweep's row, and Torch-Pruning's columns, if any."""
    found: dict[str, Any] = {"network": row["network"], "verdict": row["verdict"]}
    if row["error"]:
        found["error"] = row["error"].removeprefix("ValueError: ")
    numbers = (*SHARES, *GAPS, "trace_s")
    found |= {name: float(row[name]) for name in numbers if row[name]}
    ran = other.get("tp_ok", "")
    if ran:
        names = {"parameters_left": "tp_params_left", "macs_left": "tp_macs_left"}
        apart = other["tp_vs_masked"]
        theirs = {key: float(other[name]) for key, name in names.items() if other[name]}
        if apart:  # the largest difference from the masked network, of its scale; or another shape
            theirs["difference"] = "shape" if apart.startswith("shape") else float(apart)
        found["torch_pruning"] = {"ran": ran == "True", **theirs}
    return found


def claim(stored: Mapping[str, Any]) -> str:
    """Return the short claim: how many networks come out smaller, how equal, and which do not."""
    rows = stored["rows"]
    good, refused, wrong = (_of(rows, v) for v in ("ok", "refused", "WRONG"))
    largest = max(max(row[gap] for gap in GAPS) for row in good)
    tried = [row for row in rows if "torch_pruning" in row]
    ran = [row for row in tried if row["torch_pruning"]["ran"]]
    apart = [row for row in _checked(ran) if not _as_masked(row)]
    names = ", ".join(row["network"].rpartition("/")[2] for row in refused)
    return _wrapped(
        f"**Any network.** Of {len(rows)} networks of five libraries {len(good)} come out smaller, "
        f"{len(wrong) or 'none'} wrong (at most {largest:.0e} of the output from the masked "
        f"network, eval and train mode). Refused: {names or 'none'}. Torch-Pruning 1.6.1 runs "
        f"{len(ran)} of {len(tried)}; {len(apart)} of {len(_checked(ran))} compared are not equal."
    )


def sweep_text(stored: Mapping[str, Any]) -> str:
    """Return the claim's table by collection, its limits by name, and every network's row."""
    rows, made = stored["rows"], stored["environment"]
    groups = [(name, _collection(rows, key)) for key, name in COLLECTIONS.items()]
    summary = [(name, *_summary(group)) for name, group in groups if group]
    lines = [table(_HEADER, [*summary, ("all", *_summary(rows))]), "", *limits(rows), ""]
    each = table(_EACH, [_network(row) for row in rows if row["verdict"] == "ok"])
    lines += ["<details><summary>Every network</summary>", "", each, "", "</details>", ""]
    versions = ", ".join(f"{name} {made[name]}" for name in ("torch", *LIBRARIES) if name in made)
    lines.append(
        f"{made['device']}, 1 thread, beside other work; {versions}; commit {made['commit']}."
    )
    return "\n".join(lines)


def limits(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each network that is refused, and for each reason why others keep more.

    Raises:
        ValueError: one keeps more and has no reason in REASONS, or has one and does not.
    """
    refused = _of(rows, "refused")
    lines = [_wrapped(f"- refused: {row['network']}: {row['error']}") for row in refused]
    more = {row["network"]: row for row in rows if row["verdict"] == "ok" and _keeps_more(row)}
    told = {name for names in REASONS.values() for name in names}
    if told != more.keys():
        raise ValueError(f"REASONS: expected those of {sorted(more)}, got {sorted(told)}")
    for why, names in REASONS.items():
        shares = ", ".join(f"{name} {more[name]['sums_left']:.0f}%" for name in names)
        lines.append(_wrapped(f"- {shares}: {why}"))
    return lines


def _keeps_more(row: Mapping[str, Any]) -> bool:
    """True if Torch-Pruning leaves fewer parameters and runs, or most stay both ways."""
    theirs = row.get("torch_pruning", {}).get("parameters_left", 100.0)
    left = row["sums_left"]
    return left > theirs + AHEAD or min(left, row["one_left"]) > MOST


def _summary(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    good, wrong = _of(rows, "ok"), _of(rows, "WRONG")
    counts = (len(rows), len(good), len(_of(rows, "refused")), len(wrong))
    shares = [f"{_left(good, name):.1f}%" if good else "" for name in ("sums_left", SHARES[3])]
    times = [row["trace_s"] for row in rows if "trace_s" in row]
    trace = f"{statistics.median(times):.2f} s" if times else ""
    tried = [row for row in rows if "torch_pruning" in row]
    if not tried:
        return (*map(str, counts), *shares, trace, "not tried", "", "", "")
    ran = [row for row in tried if row["torch_pruning"]["ran"]]
    both = [row for row in ran if row["verdict"] == "ok"]
    beside = ("", "")
    if both:
        medians = (statistics.median(map(_theirs, both)), _left(both, "sums_left"))
        beside = tuple(f"{median:.1f}%" for median in medians)
    runs = f"{len(ran)} of {len(tried)}"
    checked = len(_checked(ran))
    same = f"{sum(map(_as_masked, ran))} of {checked}" if checked else ""
    return (*map(str, counts), *shares, trace, runs, same, *beside)


def _network(row: Mapping[str, Any]) -> tuple[str, ...]:
    other = row.get("torch_pruning")
    theirs = ("not tried" if other is None else "fails", "", "")
    if other and other["ran"]:
        apart = other.get("difference", "")
        apart = _size(apart) if isinstance(apart, float) else apart and f"another {apart}"
        theirs = (f"{other['parameters_left']:.1f}%", f"{other['macs_left']:.1f}%", apart)
    return (
        row["network"],
        *(f"{row[name]:.1f}%" for name in ("one_left", "sums_left", "sums_macs_left")),
        _size(max(row[gap] for gap in GAPS)),
        f"{row['trace_s']:.2f} s",
        *theirs,
    )


def _versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed here."""
    owners = importlib.metadata.packages_distributions()
    modules = {name: name.replace("-", "_") for name in LIBRARIES}
    found = {name: owners[module][0] for name, module in modules.items() if module in owners}
    return {name: importlib.metadata.version(owner) for name, owner in found.items()}


def _size(difference: float) -> str:
    return f"{difference:.0e}" if difference else "0"


def _wrapped(text: str) -> str:
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_on_hyphens=False)


def _of(rows: Sequence[Mapping[str, Any]], verdict: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["verdict"] == verdict]


def _collection(rows: Sequence[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["network"].partition("/")[0] == key]


def _left(rows: Sequence[Mapping[str, Any]], share: str) -> float:
    return statistics.median(row[share] for row in rows)


def _theirs(row: Mapping[str, Any]) -> float:
    return row["torch_pruning"]["parameters_left"]


def _checked(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the networks whose twins by Torch-Pruning were held against the masked ones."""
    return [row for row in rows if "difference" in row["torch_pruning"]]


def _as_masked(row: Mapping[str, Any]) -> bool:
    apart = row["torch_pruning"].get("difference")
    return isinstance(apart, float) and apart <= SAME


def main(argv: Sequence[str]) -> None:
    """Store a sweep if one is given, and renew the blocks."""
    parser = argparse.ArgumentParser(prog="sweep", description=__doc__)
    parser.add_argument("sweep", nargs="?", type=Path, help="the rows of a sweep, as CSV")
    parser.add_argument("--beside", type=Path, help="a CSV with the columns tp_...")
    parser.add_argument("--commit", help="what the sweep ran on")
    parser.add_argument("--render", action="store_true", help="only renew the blocks")
    options = parser.parse_args(argv)
    if options.render == bool(options.sweep and options.beside and options.commit):
        parser.error("expected SWEEP.csv --beside OTHER.csv --commit COMMIT, or --render")
    if not options.render:
        rows, others = (
            list(csv.DictReader(path.read_text().splitlines()))
            for path in (options.sweep, options.beside)
        )
        beside = {row["network"]: row for row in others}
        found = [outcome(row, beside.get(row["network"], {})) for row in rows]
        made = environment(torch.device("cpu"))
        told = {"device": made["device"], "torch": made["torch"], **_versions()}
        write_json(STORED, {"environment": told | {"commit": options.commit}, "rows": found})
    stored = json.loads(STORED.read_text())
    write_block("any_network", claim(stored))
    write_block("sweep", sweep_text(stored))


if __name__ == "__main__":
    main(sys.argv[1:])
