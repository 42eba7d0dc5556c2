"""Sparsities as a command line gives them: one for all layers, or some layers' own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from utils.runs.hints import did_you_mean

_GRAMMAR = "0.8, or conv1=0.3,layer1=0.6,0.8 (the bare number is for the rest), each in [0, 1)"


@dataclass(frozen=True)
class LayerSparsity:
    """A sparsity for the layers of each name or name's beginning, and one for the others."""

    by_name: Mapping[str, float]
    others: float = 0.0

    def of_layers(self, layers: Iterable[str]) -> dict[str, float]:
        """Return {layer: sparsity}; of several names that a layer begins with, the longest counts.

        A beginning ends at a dot: "layer1" stands for layer1.0.conv1, not for layer10.

        Raises:
            ValueError: a name that no layer has or begins with.
        """
        layers = list(layers)
        for name in self.by_name:
            if not any(_begins_with(layer, name) for layer in layers):
                raise ValueError(
                    f"--sparsity names {name!r}: expected a layer, or the beginning of one, of "
                    f"{', '.join(layers)}{did_you_mean(name, layers)}"
                )
        return {layer: self._of(layer) for layer in layers}

    def _of(self, layer: str) -> float:
        names = [name for name in self.by_name if _begins_with(layer, name)]
        return self.by_name[max(names, key=len)] if names else self.others


def parse_sparsity(text: str) -> LayerSparsity:
    """Return the sparsities that `text` spells: terms, name=sparsity or sparsity, by commas.

    Raises:
        ValueError: it is malformed, out of [0, 1), or says the same twice.
    """
    found: dict[str, float] = {}
    for position, term in enumerate(text.split(","), start=1):
        name, equals, number = (part.strip() for part in term.rpartition("="))
        try:
            sparsity = float(number)
        except ValueError:
            sparsity = -1.0
        if not 0 <= sparsity < 1 or bool(name) != bool(equals) or name in found:
            twice = " a second time" * (name in found)
            raise ValueError(
                f"sparsity, term {position}: expected {_GRAMMAR}, got {term.strip()!r}{twice}"
            )
        found[name] = sparsity
    others = found.pop("", 0.0)
    return LayerSparsity(found, others)


def _begins_with(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")
