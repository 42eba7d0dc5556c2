"""Where HRank's counter of MACs takes removed input channels off: DenseNet's transitions alone.

Everywhere else it leaves a conv its inputs, whatever was removed before it. For DenseNet's first
conv it takes `24 * rate` off, a fraction; `int(24 * rate)`, as many as really go, is meant here.
"""

from collections.abc import Mapping

_COUNTED_INPUTS = {
    "densenet_40": {
        "trans1.conv1": ("conv1", *(f"dense1.{i}.conv1" for i in range(12))),
        "trans2.conv1": ("trans1.conv1", *(f"dense2.{i}.conv1" for i in range(12))),
    }
}


def counted_inputs(arch: str) -> Mapping[str, tuple[str, ...]]:
    """Return {conv whose inputs count: the convs whose filters they are}, mostly nothing."""
    return _COUNTED_INPUTS.get(arch, {})
