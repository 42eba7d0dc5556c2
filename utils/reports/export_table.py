"""What `export` wrote, for people: a Markdown table that reads well on a screen, too."""

from collections.abc import Mapping
from typing import Any

from utils.paper.markdown import counted, megabytes, table


def export_text(found: Mapping[str, Any]) -> str:
    """Return the result of `export_command` as a Markdown table."""
    files = found["files"]
    count, dense, exported = found["images"], *found["physical"].values()
    own_size = found["size_bytes"]
    rows = [
        ("file", found["checkpoint"], *(file["path"] for file in files)),
        ("size", *(megabytes(size) for size in (own_size, *(f["size_bytes"] for f in files)))),
        ("opened by", "", *(file["opened_by"] for file in files)),
        ("largest difference", "", *(f"{file['largest_difference']:.2g}" for file in files)),
        ("same class", "", *(f"{file['same_class']} of {count}" for file in files)),
    ]
    for timed in found["latency"].values():
        cells = (f"{latency['median_ms']:.2f} ms" for latency in timed.values())
        size = timed["network"]["batch_size"]
        rows.append((f"latency, {size} image{'s' * (size > 1)}", *cells))
    header = ("", f"{found['arch']} ({found['form']})", *(f".{file['format']}" for file in files))
    sizes = ", ".join(map(str, found["batch_sizes"]))
    threads = counted(found["environment"]["threads"], "thread")
    legend = [
        f"MACs: {dense['macs']:,} of the dense network, {exported['macs']:,} of this one; "
        f"parameters: {dense['parameters']:,} and {exported['parameters']:,}, "
        f"{megabytes(4 * dense['parameters'])} and {megabytes(4 * exported['parameters'])}",
        f"largest difference: from the network's logits, up to {files[0]['logit_scale']:.3g}, in "
        f"batches of {sizes} images ({found['dataset']}, normalized as "
        f"{found['facts']['normalization']}); .onnx has its norms folded into convs",
        f"input: {found['facts']['input']}",
        "latency: median of 20 and of 5 passes, in turns; "
        f"{found['environment']['device']}, {threads}",
    ]
    if found["best"]:
        times = found["best"]["latency_ms"].items()
        legend.append(
            f"for eager: {found['best']['form']} ("
            + ", ".join(f"{name} {ms:.2f} ms" for name, ms in times)
            + ")"
        )
    legend += found["remarks"]
    return "\n".join([table(header, rows), "", *(f"- {line}" for line in legend)])
