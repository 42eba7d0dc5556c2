"""Networks by a spec: a name of the registry, of a library, or a callable of the user's own.

| spec                        | network                                                        |
|-----------------------------|----------------------------------------------------------------|
| `resnet_56`                 | this repository's (`models/registry.py`)                       |
| `torchvision:resnet18`      | torchvision's                                                  |
| `timm:resnet18`             | timm's, where it is installed                                  |
| `my_net.py:build`           | what a function or class in a file returns, or a module in it  |
| `package.module:build`      | the same, of a module that Python finds                        |

A spec on the command line is the user's to run. One that stands in a file is never imported for
that: `is_own` tells them apart.
"""

import ast
import copy
import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.imports import importable, module_of_file
from models.registry import ARCHITECTURES, architecture

if TYPE_CHECKING:  # an unknown name is refused before torch is imported, which takes seconds
    import torch.nn as nn

LIBRARIES = ("torchvision", "timm")
TRAINED = ("weights", "pretrained")  # arguments of the libraries' networks that bring weights
_CHANNELS = 3


@dataclass(frozen=True)
class NetworkSpec:
    """A spec, the keyword arguments its network is built with, and how to build it.

    `num_classes` and `input_size` [C, H, W] are what the network has when nobody says otherwise;
    None where its maker does not tell.
    """

    spec: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    input_size: tuple[int, int, int] | None = None
    _make: Callable[..., Any] = field(default=lambda: None, repr=False)

    def build(self, num_classes: int | None = None) -> "nn.Module":
        """Build the network, with fresh weights where its maker draws them.

        `num_classes` is passed if the callable takes it; None leaves it to the callable.

        Raises:
            ValueError: the callable refuses its arguments, fails, or returns no module.
        """
        import torch.nn as nn

        given = dict(self.arguments)
        if num_classes is not None:
            given.setdefault("num_classes", num_classes)
        optional = {"num_classes"} - set(self.arguments)
        try:
            with importable(_folder_of(self.spec)):
                model = self._make(**_accepted(self._make, given, optional))
        except Exception as error:  # whatever the user's code raises
            reason = f"{type(error).__name__}: {_first_line(error)}"
            raise ValueError(f"network {self.spec!r} cannot be built: {reason}") from error
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"network {self.spec!r} is a {type(model).__name__}: expected a callable that "
                "returns a torch.nn.Module"
            )
        return model


def is_own(spec: str) -> bool:
    """True for a spec that runs code of the user's: a file's or a module's callable."""
    return ":" in spec and spec.partition(":")[0] not in LIBRARIES


def folder_name(spec: str, arguments: str = "") -> str:
    """Return the name of the folder that belongs to a network: `my_net_build_width=8`."""
    source, colon, name = spec.rpartition(":")
    if not colon:
        return spec
    words = [Path(source).stem if _is_file(source) else source, name]
    words += [arguments] if arguments else []
    return re.sub(r"[^\w.=-]+", "_", "_".join(words))


def open_spec(spec: str, arguments: Mapping[str, Any] | None = None) -> NetworkSpec:
    """Find what a spec names; nothing is built yet, but a file or module of the user's is imported.

    Raises:
        ValueError: there is no such network; the message names what was found, and the nearest.
    """
    arguments = dict(arguments or {})
    source, colon, name = spec.rpartition(":")
    if not colon:
        return _registered(spec, arguments)
    if not source or not name:
        raise ValueError(f"network {spec!r}: expected {' or '.join(_EXPECTED)}")
    finders = {"torchvision": _of_torchvision, "timm": _of_timm}
    make, known = finders.get(source, _of_user)(spec, source, name)
    return NetworkSpec(spec, arguments, _make=make, **known)


def read_arguments(text: str) -> dict[str, Any]:
    """Return the keyword arguments that `width=32,depth=3,act=relu` spells.

    Values are Python literals; a bare word is a string.

    Raises:
        ValueError: the text is no list of `name=value`.
    """
    expected = f"--arch_args is {text!r}: expected name=value,... with numbers, words or literals"
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except SyntaxError:
        raise ValueError(expected) from None
    if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
        raise ValueError(expected)
    try:
        return {k.arg: _literal(k.value) for k in call.keywords}
    except ValueError:
        raise ValueError(expected) from None


_EXPECTED = (
    "a name of the registry",
    "torchvision:NAME",
    "timm:NAME",
    "FILE.py:CALLABLE",
    "package.module:CALLABLE",
)


def _registered(name: str, arguments: dict[str, Any]) -> NetworkSpec:
    if name not in ARCHITECTURES:
        hint = _nearest(name, [*ARCHITECTURES, *_as_torchvision(name)])
        others = f"; or {', '.join(_EXPECTED[1:])}"
        raise ValueError(
            f"unknown arch {name!r}: expected one of {', '.join(ARCHITECTURES)}{others}{hint}"
        )
    if arguments:
        raise ValueError(
            f"--arch_args with --arch {name}: expected none, the registry's networks take no "
            "arguments"
        )
    found = architecture(name)

    def make(num_classes: int = found.num_classes) -> "nn.Module":
        return found.build(num_classes)

    size = (_CHANNELS, found.image_size, found.image_size)
    return NetworkSpec(name, {}, found.num_classes, size, make)


def _as_torchvision(name: str) -> list[str]:
    """Return the name with torchvision's prefix, where torchvision has such a network."""
    from torchvision import models

    return [f"torchvision:{name}"] if name in models.list_models() else []


def _of_torchvision(spec: str, _: str, name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    from torchvision import models

    if name not in (known := models.list_models()):
        raise ValueError(f"torchvision has no network {name!r}{_nearest(name, known)}")
    try:
        weights = models.get_model_weights(name).DEFAULT
        side, classes = weights.transforms().crop_size[0], len(weights.meta["categories"])
        told = {"input_size": (_CHANNELS, side, side), "num_classes": classes}
    except (AttributeError, KeyError, ValueError):  # detection, flow and video networks differ
        told = {}
    return models.get_model_builder(name), told


def _of_timm(spec: str, _: str, name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    try:
        import timm
    except ImportError:
        raise ValueError(
            f"network {spec!r} needs timm, which is not installed: expected `pip install timm`"
        ) from None
    if not timm.is_model(name):
        raise ValueError(f"timm has no network {name!r}{_nearest(name, timm.list_models())}")
    told = {}
    if known := timm.get_pretrained_cfg(name):
        told = {"input_size": tuple(known.input_size), "num_classes": known.num_classes}
    return lambda **arguments: timm.create_model(name, **arguments), told


def _of_user(spec: str, source: str, name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    import torch.nn as nn

    try:
        with importable(_folder_of(spec)):
            module = module_of_file(source) if _is_file(source) else importlib.import_module(source)
    except FileNotFoundError:
        raise ValueError(f"network {spec!r}: there is no file {source}") from None
    except Exception as error:  # whatever the user's code raises when it is imported
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise ValueError(f"network {spec!r}: {source} cannot be imported: {reason}") from error
    if not hasattr(module, name):
        found = _builders(module)
        listed = ", ".join(found) or "nothing that builds a network"
        raise ValueError(
            f"network {spec!r}: {source} has no {name!r}{_nearest(name, found)}; it holds {listed}"
        )
    value = getattr(module, name)
    if isinstance(value, nn.Module):
        return lambda: copy.deepcopy(value), {}
    if not callable(value):
        raise ValueError(
            f"network {spec!r} is a {type(value).__name__}: expected a function or class that "
            "returns a torch.nn.Module, or a module"
        )
    return value, {}


def _is_file(source: str) -> bool:
    return source.endswith(".py") or "/" in source


def _folder_of(spec: str) -> Path | None:
    """Return the folder that a user's spec may import from; None for registry and libraries."""
    if not is_own(spec):
        return None
    source = spec.rpartition(":")[0]
    return Path(source).resolve().parent if _is_file(source) else Path.cwd()


def _builders(module: Any) -> list[str]:
    """Return the module's own functions, classes and networks, public ones."""
    import torch.nn as nn

    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            isinstance(value, nn.Module)
            or (callable(value) and getattr(value, "__module__", "") == module.__name__)
        )
    ]


def _accepted(
    make: Callable[..., Any], given: Mapping[str, Any], optional: set[str]
) -> dict[str, Any]:
    """Return `given` without what is optional and the callable does not name or take by **."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # builtins have none
        return {name: value for name, value in given.items() if name not in optional}
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return {n: v for n, v in given.items() if n in parameters or takes_any or n not in optional}


def _nearest(name: str, known: Sequence[str]) -> str:
    prefixed = [other for other in known if other.endswith(f":{name}")]
    near = prefixed or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
