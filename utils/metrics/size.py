"""Bytes that the parameters of a network take at a given number of bits each."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ParameterSize:
    """Bytes of all parameters at `bits` each, and of those alone that are not zero.

    `nonzero_bytes` stores the values and not where they stand: no sparse format needs less.
    """

    bits: int
    dense_bytes: int
    nonzero_bytes: int


def parameter_size(model: nn.Module, bits: int) -> ParameterSize:
    """Return the size of `model`'s parameters at `bits` per value, each tensor in whole bytes.

    A parameter with two names counts once. Buffers, such as the running statistics of norms, do
    not count: norms can be folded into convs.

    Raises:
        ValueError: `bits` is below 1.
    """
    if bits < 1:
        raise ValueError(f"bits per parameter: expected 1 or more, got {bits}")
    parameters = list(model.parameters())
    return ParameterSize(
        bits,
        dense_bytes=sum(_whole_bytes(p.numel(), bits) for p in parameters),
        nonzero_bytes=sum(_whole_bytes(int(p.count_nonzero()), bits) for p in parameters),
    )


def _whole_bytes(values: int, bits: int) -> int:
    return -(-values * bits // 8)
