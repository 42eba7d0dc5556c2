"""Exported networks: files that run without this repository, .pt2 of torch.export and .onnx."""

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from utils.runs.borrowed_state import evaluating
from utils.runs.zeros_folded import fold_zeros

FACTS = "network.json"  # what a file says of its network: an extra file of .pt2, metadata of .onnx
_PLACES = ("stack_trace", "from_node")  # where a node came from: lines of files of this machine


class Opened(nn.Module):
    """An exported network as whoever ships it runs it: images [N, C, H, W] -> outputs."""

    def __init__(self, run: Callable[[Tensor], Tensor], runner: str):
        super().__init__()
        self.run = run
        self.runner = runner  # the words for what runs it

    def forward(self, images: Tensor) -> Tensor:
        return self.run(images)


def check_names(model: nn.Module) -> None:
    """Refuse module names of which torch.export makes code that Python cannot read.

    Raises:
        ValueError: a module's name is a word of Python's own.
    """
    names = [name for name, _ in model.named_modules() if any(map(iskeyword, name.split(".")))]
    if names:
        raise ValueError(
            f"module {names[0]!r}: torch.export writes names into code, where Python keeps "
            f"{next(filter(iskeyword, names[0].split('.')))!r} for itself: expected another name"
        )


def export_program(model: nn.Module, example: Tensor) -> ExportedProgram:
    """Return what `model` computes in eval mode on batches of any size of images like `example`.

    `example` is one image [1, C, H, W]; its values do not matter. What remains of the model's
    sources is names of its modules and classes.

    Raises:
        ValueError: a module's name is a word of Python's own, of which torch makes invalid code.
    """
    check_names(model)
    pair = example.repeat(2, 1, 1, 1)  # of a single one, torch would take the size for a constant
    with evaluating(model), torch.no_grad():
        program = torch.export.export(model, (pair,), dynamic_shapes=({0: Dim("batch")},))
    fold_zeros(program)
    for node in program.graph.nodes:
        for name in _PLACES:
            node.meta.pop(name, None)
    program.example_inputs = None
    return program


def pt2_bytes(program: ExportedProgram, facts: Mapping[str, Any]) -> bytes:
    """Return the bytes of a .pt2 file; `facts`, as JSON holds them, are its extra file."""
    file = io.BytesIO()
    with warnings.catch_warnings():  # torch takes weights that lie channels last for slices
        warnings.filterwarnings("ignore", "No complete tensor found")
        torch.export.save(program, file, extra_files={FACTS: json.dumps(facts)})
    return file.getvalue()


def open_pt2(content: bytes) -> Opened:
    """Open the bytes of a .pt2 file."""
    with warnings.catch_warnings():  # torch 2.11 warns of its own way to read weights
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        module = torch.export.load(io.BytesIO(content)).module()
    return Opened(lambda images: module(images), "torch.export.load")


def onnx_bytes(program: ExportedProgram, facts: Mapping[str, Any]) -> bytes:
    """Return the bytes of an .onnx file, checked by onnx's own rules, its norms folded into convs.

    Its input is called images, its output logits.
    """
    import onnx

    made = torch.onnx.export(
        program,
        dynamo=True,
        dynamic_shapes=({0: "batch"},),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    ).model_proto
    graph = made.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")  # how torch came to it, larger than all else but weights
    made.metadata_props.add(key=FACTS, value=json.dumps(facts))
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def open_onnx(content: bytes) -> Opened:
    """Open the bytes of an .onnx file in onnxruntime, on the CPU, with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return Opened(run, f"onnxruntime {onnxruntime.__version__}")


@dataclass(frozen=True)
class Format:
    """A kind of file: how its bytes are made and opened, and what both need beside torch."""

    write: Callable[[ExportedProgram, Mapping[str, Any]], bytes]
    open: Callable[[bytes], Opened]
    packages: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


FORMATS = {  # by the ending of the file's name
    "pt2": Format(pt2_bytes, open_pt2),
    "onnx": Format(onnx_bytes, open_onnx, ("onnx", "onnxscript", "onnxruntime")),
}
