"""What a rank report found, for people: its summary.md, and the pages' block.

`python -m utils.reports.rank_findings SUMMARY...` stores what the summary.json of reports
says over all layers beside this file and renews the block on its page; without SUMMARY it
renews the block.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.paper.markdown import portable, table
from utils.paper.pages import write_block
from utils.runs.atomic_write import write_json

STORED = Path(__file__).with_suffix(".json")


def report_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary of `rank_generation.py --report` as Markdown."""
    parts = (
        f"# {summary['arch']}: how far the images decide the ranks",
        f"compress rate `{summary['compress_rate']}`",
        findings(summary),
        "## Layers",
        _layers(summary["layers"]),
    )
    return "\n\n".join(parts) + "\n"


def findings(summary: Mapping[str, Any]) -> str:
    """Return the three tables over all layers, and how they were made; needs no `layers`."""
    overall = summary["overall"]
    return "\n\n".join(
        (
            f"**{summary['arch']}, sites `{summary['sites']}`**: scores of {summary['images']} "
            f"images, averages over {overall['layers']} layers: the scores of a layer's filters "
            f"spread by {overall['spread_of_scores']:.2f} (standard deviation), and the standard "
            f"error of a score is {overall['standard_error']:.2f}.",
            _agreement(summary),
            _cuts(summary),
            _kinds(summary),
            _provenance(summary),
        )
    )


def stored_text() -> str:
    """Return the findings of the summaries that are stored."""
    return portable("\n\n".join(map(findings, json.loads(STORED.read_text()))))


def _agreement(summary: Mapping[str, Any]) -> str:
    """Return the table of choices compared: how many filters, and how much order, they share."""
    overall = summary["overall"]
    rows = []
    for name, share in overall["common"].items():
        least, order = overall["least_common"][name], overall["order"][name]
        rows.append(
            (
                _compared(name, summary),
                f"{100 * share:.1f}%",
                f"{overall['kept'] * (1 - share):.0f} of {overall['kept']}",
                f"{100 * least['share']:.0f}% ({least['conv']})",
                "" if order is None else f"{order:.4f}",
            )
        )
    rows.append(("by chance", f"{100 * overall['common_by_chance']:.1f}%", "", "", ""))
    names = ("images compared", "kept in common", "kept filters that change", "lowest layer")
    return table((*names, "order (Spearman)"), rows)


def _compared(name: str, summary: Mapping[str, Any]) -> str:
    images = summary["images"]
    if name == "draws":
        return f"{images} with {images} others ({summary['draws']} draws, pair by pair)"
    if name == "augmentation":
        return f"{images}, plain with augmented"
    return f"{name} with the {max(summary['counts'])} they are among"


def _cuts(summary: Mapping[str, Any]) -> str:
    overall = summary["overall"]
    rows = [
        (
            count,
            f"{found['inside_noise']} of {overall['layers_cut']}",
            found["tied"],
            f"{found['undecided']} of {overall['filters']}",
        )
        for count, found in overall["cuts"].items()
    ]
    return table(("images", "cuts inside the noise", "of them ties", "undecided filters"), rows)


def _kinds(summary: Mapping[str, Any]) -> str:
    """Return the table that sets layers of nearly full rank, where scores saturate, apart."""
    names = {
        "near_full_rank": f"mean score at least {summary['near_full']:.0%} of full rank",
        "below": "the others",
    }
    rows = [
        (
            names[kind],
            f"{found['inside_noise']} of {found['layers_cut']}",
            found["tied"],
            f"{found['undecided']} of {found['filters']}",
            f"{100 * found['common']['draws']:.1f}%",
            f"{100 * found['common']['augmentation']:.1f}%",
            f"{100 * found['common_by_chance']:.1f}%",
        )
        for kind, found in summary["overall"]["kinds"].items()
    ]
    header = (f"layers, {summary['images']} images", "cuts inside the noise", "of them ties")
    header += ("undecided filters", "kept in common: draws", "plain, augmented", "by chance")
    return table(header, rows)


def _provenance(summary: Mapping[str, Any]) -> str:
    made = summary["environment"]
    return (
        f"`{made['command']}`; {summary['dataset']}, {summary['split']} images, normalized as "
        f"{summary['normalization']}; seed {summary['seed']}; "
        f"{made['device']}; torch {made['torch']}; commit {made['commit']}."
    )


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    header = ("#", "conv", "map", "filters", "mean rank", "spread", "standard error")
    header += ("gap at the cut", "undecided", "draws in common", "order of draws")
    rows = []
    for number, layer in enumerate(layers, start=1):
        cut, order = layer["cut"], layer["order"]["draws"]
        rows.append(
            (
                number,
                layer["conv"],
                " x ".join(str(size) for size in layer["map_size"]),
                f"{layer['filters']} -> {layer['kept']}",
                f"{layer['mean_rank']:.2f}",
                f"{layer['spread_of_scores']:.3f}",
                f"{layer['standard_error']:.3f}",
                "" if cut is None else _gap(cut),
                "" if cut is None else cut["undecided"],
                f"{100 * layer['common']['draws']:.0f}%",
                "" if order is None else f"{order:.3f}",
            )
        )
    return table(header, rows)


def _gap(cut: Mapping[str, Any]) -> str:
    remark = ", tie" if cut["tied"] else ", noise" if cut["inside_noise"] else ""
    return f"{cut['gap']:.3f} ± {cut['standard_error']:.3f}{remark}"


def main(argv: Sequence[str]) -> None:
    """Store what the summaries named in `argv` say over all layers; renew the block."""
    if argv:
        summaries = [json.loads(Path(path).read_text()) for path in argv]
        write_json(STORED, [{k: s[k] for k in s if k != "layers"} for s in summaries])
    write_block("ranks", stored_text())


if __name__ == "__main__":
    main(sys.argv[1:])
