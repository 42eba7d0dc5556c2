"""What `evaluate` found, for people: Markdown tables that read well on a screen, too."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from utils.paper.markdown import megabytes, table
from utils.reports.side_by_side import label, latency_figure, setting
from utils.reports.sparse_table import sparse_text


def evaluate_text(found: Mapping[str, Any]) -> str:
    """Return the result of `evaluate_command` as Markdown tables."""
    against = found.get("against")
    networks = [found] if against is None else [found, against]
    names = [label(network) for network in networks]
    columns = [list(_rows(network)) for network in networks]
    rows = [
        (title, *(column[number][2] for column in columns))
        + (() if against is None else (_ratio(found, key),))
        for number, (key, title, _) in enumerate(columns[0])
    ]
    header = ("", *names, *(() if against is None else ("ratio",)))
    title = f"# {' against '.join(names)}"
    parts = [title, table(header, rows), *found["remarks"], _legend(found, networks)]
    for name, network in zip(names, networks, strict=True):
        if "layers" in network:
            parts += [f"## Layers of {name}", _layers(network), _tensors(network)]
        if "sparse" in network:
            parts.append(sparse_text(name, network["sparse"]))
    return "\n\n".join(parts)


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what is told of one network: (key of its ratio or "", title, cell)."""
    low, high = found["interval_percent"]
    yield "", "checkpoint", str(found["checkpoint"])
    yield "top1", "top-1", f"{found['top1_percent']:.2f}% ({low:.2f} to {high:.2f})"
    yield "", "images", f"{found['correct']} of {found['images']} right"
    yield "", "loss", f"{found['loss']:.4f}"
    yield "macs", "MACs", f"{found['macs']:,}"
    if "padded_macs" in found:
        title = f"MACs in full blocks of {found['block']} channels"
        yield "padded_macs", title, f"{found['padded_macs']:,}"
    yield "parameters", "parameters", f"{found['parameters']:,}"
    zeros, filters = found["zero_values"], found["zero_filters"]
    yield "", "zeros among them", f"{zeros['zeros']:,} ({zeros['share']:.1%})"
    yield "", "filters all zero", f"{filters['zeros']} of {filters['count']}"
    yield "size_bytes", "file", megabytes(found["size_bytes"])
    for size in found["sizes"]:
        nonzeros = f" (nonzeros {megabytes(size['nonzero_bytes'])})" * (zeros["zeros"] > 0)
        title = f"parameters, {size['bits']} bits"
        yield f"dense_bytes_{size['bits']}_bits", title, megabytes(size["dense_bytes"]) + nonzeros
    for peak in found["memory"]:
        key, title = f"peak_bytes_{peak['batch_size']}_images", f"peak activations, {setting(peak)}"
        yield key, title, _peak(peak)
    for timed in found["latency"]:
        spread = f"{timed['median_ms']:.2f} ms ({timed['p10_ms']:.2f} to {timed['p90_ms']:.2f})"
        speed = f"{timed['images_per_second']:,.0f} images/s"
        yield latency_figure(timed), f"latency, {setting(timed)}", f"{spread}, {speed}"


def _ratio(found: Mapping[str, Any], key: str) -> str:
    """Return the cell of a ratio, that of the MACs beside each of a latency."""
    if key == "top1":
        return f"{found['top1_percent'] - found['against']['top1_percent']:+.2f} points"
    ratio = found["ratios"].get(key)
    if ratio is None:
        return ""
    beside = f" (MACs {found['ratios']['macs']:.2f})" * key.startswith("latency")
    return f"{ratio:.2f}{beside}"


def _peak(peak: Mapping[str, Any]) -> str:
    allocated = peak["allocated_bytes"]
    beside = "" if allocated is None else f" (allocated {megabytes(allocated)})"
    return megabytes(peak["peak_bytes"]) + beside


def _legend(found: Mapping[str, Any], networks: Sequence[Mapping[str, Any]]) -> str:
    """Return what the rows mean, and where and how they were measured."""
    several, first = len(networks) > 1, found["latency"][0]
    on_gpu = found["memory"][0]["allocated_bytes"] is not None
    uncounted = ", ".join(sorted({name for each in networks for name in each["uncounted"]}))
    lines = [
        "ratio: the first network's figure by the second's" * several,
        f"top-1: on {found['dataset']}, normalized as {found['normalization']}; 95% interval",
        f"MACs: of convs and linears, for one image; not counted: {uncounted or 'nothing'}",
        "nonzeros: the bytes of values that are not zero, without their positions",
        "peak activations: the input and all results that are alive at the same time, without "
        "weights and operators' workspaces" + "; allocated: with workspaces" * on_gpu,
        f"latency: median of {first['repeats']} passes (10% to 90%)"
        + ", both networks in turns" * several
        + f", {first['runtime']}"
        + f"; {found['environment']['device']}",
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _layers(found: Mapping[str, Any]) -> str:
    convs = {row["name"]: row for row in found["zero_filters_per_conv"]}
    rows = []
    for number, layer in enumerate(found["layers"], start=1):
        conv = convs.get(layer["name"])
        rows.append(
            (
                number,
                layer["name"],
                layer["kind"],
                layer["filters"],
                layer["inputs"],
                f"{layer['macs']:,}",
                f"{layer['macs'] / max(found['macs'], 1):.1%}",
                f"{layer['parameters']:,}",
                "" if conv is None else conv["zeros"],
            )
        )
    header = ("#", "layer", "kind", "filters", "inputs", "MACs", "of all", "parameters")
    return table((*header, "filters all zero"), rows)


def _tensors(found: Mapping[str, Any]) -> str:
    """Return the tensors that hold zeros, and how many do not."""
    rows = [
        (row["name"], f"{row['zeros']:,} of {row['count']:,}", f"{row['zeros'] / row['count']:.1%}")
        for row in found["zeros_per_tensor"]
        if row["zeros"]
    ]
    others = f"{len(found['zeros_per_tensor']) - len(rows)} tensors hold no zero."
    return f"{table(('tensor', 'zeros', 'sparsity'), rows)}\n\n{others}" if rows else others
