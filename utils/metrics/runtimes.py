"""Runtimes: what runs a network where it ships, and how each is prepared and timed.

`eager` runs a network as it is; `compile` by torch.compile; `onnxruntime` and `openvino` run the
ONNX graph of it, norms folded into convs, in the channel layout that they choose. All compute in
float32, with as many threads as torch takes at the time; their pools sleep once a pass is done, so
that of several networks timed in turns none spins against the others.
"""

import ctypes
import importlib.util
import io
import json
import sys
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, fx, nn

from utils.graph.emptied import is_emptied
from utils.metrics.layer_shapes import Copies, LayerShape
from utils.runs.borrowed_state import evaluating
from utils.runs.compiler import compiled
from utils.runs.exported import export_program, onnx_bytes

CPU = torch.device("cpu")
Run = Callable[[], object]  # one pass of a prepared network on its batch
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # what glibc calls its parameters
_LAYOUT = ("reorder", "parameter", "result", "const")  # nodes of layouts, not of the layer


class Runtime(ABC):
    """What runs a network: its name, its packages, and how it is prepared."""

    name: str
    packages: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    def version(self) -> str:
        """Return the runtime's name and version."""
        return f"torch {torch.__version__}"

    def prepared(self, models: Mapping[str, nn.Module], batch: Tensor) -> dict[str, Run]:
        """Return {name: what runs the model on the batch}, of models in eval mode.

        Raises:
            ValueError: the runtime is not for the batch's device.
        """
        if self.packages and batch.device.type != "cpu":
            raise ValueError(f"runtime {self.name} on {batch.device}: expected the device cpu")
        return {name: self.prepare(model, batch) for name, model in models.items()}

    @abstractmethod
    def prepare(self, model: nn.Module, batch: Tensor) -> Run:
        """Return what runs `model`, which is in eval mode, on the batch [N, C, H, W]."""

    def layer_ms(self, shape: LayerShape, batch_size: int, device: torch.device = CPU) -> float:
        """Return a layer's time in ms inside a network, with its norm, sum and activation."""
        layers = Copies(shape, batch_size).eval().to(device)
        images = torch.randn(shape.input_shape(batch_size), device=device)
        return self.layers_ms(layers, images) / len(layers.layers)

    @abstractmethod
    def layers_ms(self, layers: nn.Module, images: Tensor) -> float:
        """Return the median time in ms of a pass of layers, without what changes layouts."""


class Eager(Runtime):
    """PyTorch as it is, in the memory format that the network and its images have.

    Memory stays with the process, see `_keep_memory`.
    """

    name = "eager"

    def prepare(self, model: nn.Module, batch: Tensor) -> Run:
        _keep_memory()
        return lambda: model(batch)

    @torch.inference_mode()
    def layers_ms(self, layers: nn.Module, images: Tensor) -> float:
        _keep_memory()

        def run() -> None:
            layers(images)
            if images.device.type != "cpu":
                torch.accelerator.synchronize(images.device)

        return median(_times_ms(run))


class Compiled(Eager):
    """torch.compile, which takes minutes; a layer's share of the time is taken from eager."""

    name = "compile"

    def prepared(self, models: Mapping[str, nn.Module], batch: Tensor) -> dict[str, Run]:
        torch.compiler.reset()  # each setting gets code of its own, however many there are
        return super().prepared(models, batch)

    def prepare(self, model: nn.Module, batch: Tensor) -> Run:
        fast = compiled(model, batch.device)
        return lambda: fast(batch)


class OnnxRuntime(Runtime):
    """onnxruntime on the CPU."""

    name = "onnxruntime"
    packages = ("onnx", "onnxscript", "onnxruntime")

    def version(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def prepare(self, model: nn.Module, batch: Tensor) -> Run:
        session = self._session(timing_graph(model, batch))
        feed = {session.get_inputs()[0].name: batch.numpy()}
        return lambda: session.run(None, feed)

    def layers_ms(self, layers: nn.Module, images: Tensor) -> float:
        with tempfile.TemporaryDirectory() as folder:
            session = self._session(timing_graph(layers, images), profile=f"{folder}/profile")
            feed = {session.get_inputs()[0].name: images.numpy()}
            runs = len(_times_ms(lambda: session.run(None, feed)))
            events = json.loads(Path(session.end_profiling()).read_text())
        nodes: dict[str, list[float]] = {}
        for event in events:
            if event["name"].endswith("_kernel_time") and not _is_layout(event["args"]["op_name"]):
                nodes.setdefault(event["name"], []).append(event["dur"] / 1000)
        return sum(median(times[-runs:]) for times in nodes.values())

    @staticmethod
    def _session(graph: bytes, profile: str = ""):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class OpenVino(Runtime):
    """OpenVINO on the CPU, for the least time of a pass."""

    name = "openvino"
    packages = ("onnx", "onnxscript", "openvino")

    def version(self) -> str:
        import openvino

        return f"openvino {openvino.__version__}"

    def prepare(self, model: nn.Module, batch: Tensor) -> Run:
        request = self._request(timing_graph(model, batch))
        images = batch.numpy()
        return lambda: request.infer([images], share_inputs=True)

    def layers_ms(self, layers: nn.Module, images: Tensor) -> float:
        request = self._request(timing_graph(layers, images), PERF_COUNT=True)
        times: list[float] = []

        def run() -> None:
            request.infer([images.numpy()])
            nodes = [n for n in request.profiling_info if not _is_layout(n.node_type)]
            times.append(sum(node.real_time.total_seconds() * 1000 for node in nodes))

        return median(times[-len(_times_ms(run)) :])

    @staticmethod
    def _request(graph: bytes, **more: object):
        import openvino

        config = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            **more,
        }
        core = openvino.Core()
        network = core.read_model(io.BytesIO(graph))
        return core.compile_model(network, "CPU", config).create_infer_request()


RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime for runtime in (Eager(), Compiled(), OnnxRuntime(), OpenVino())
}


def runtime_of(name: str) -> Runtime:
    """Return the runtime of a name.

    Raises:
        ValueError: it is unknown, or packages that it needs are not installed.
    """
    if name not in RUNTIMES:
        raise ValueError(f"runtime {name!r}: expected one of {', '.join(RUNTIMES)}")
    runtime = RUNTIMES[name]
    if missing := runtime.missing():
        how = f"expected `pip install {' '.join(runtime.packages)}` before"
        raise ValueError(f"runtime {name} does not find {' and '.join(missing)}: {how}")
    return runtime


def timing_graph(model: nn.Module, batch: Tensor) -> bytes:
    """Return the ONNX graph of a network on batches like `batch`, norms folded into convs.

    torch's older exporter takes a twentieth of the time of that which `export` writes files by,
    and the runtimes make the same of both; what it cannot take goes the longer way. Emptied layers
    are left out by torch.export, as they are of files, before either.
    """
    file, traced, program = io.BytesIO(), model, None
    with warnings.catch_warnings(), evaluating(model):
        warnings.simplefilter("ignore")
        if any(map(is_emptied, model.modules())):
            program = export_program(model, batch[:1])
            whole = program.module(check_guards=False)
            traced = fx.GraphModule(whole, whole.graph)  # without checks of what it is given
        try:
            torch.onnx.export(traced, (batch,), file, dynamo=False)
            return file.getvalue()
        except Exception:
            return onnx_bytes(program or export_program(model, batch[:1]), {})


@cache
def _keep_memory() -> None:
    """Let the process keep the memory that it frees.

    glibc gives large tensors back and maps them anew in every pass, which may take longer than the
    network itself (a mobilenet_v2 on 32 images: 1160 ms instead of 315), and varies.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_MMAP_MAX, 0)


def _is_layout(operation: str) -> bool:
    return operation.lower().startswith(_LAYOUT)


def _times_ms(run: Run) -> list[float]:
    """Return the times of some passes after a first one: 3 to 15, no more once they took 0.1 s."""
    run()
    times: list[float] = []
    while len(times) < 3 or (len(times) < 15 and sum(times) < 100):
        start = perf_counter()
        run()
        times.append(1000 * (perf_counter() - start))
    return times
