"""A loss that is NaN or infinite: noticed without waiting for the device, and traced to a layer."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from utils.runs import processes

_STEPS_BETWEEN_READS = 50  # where reading waits for the device


class LossWatch:
    """Watches the losses of an epoch.

    `broken` lies on the device and is 1 from the first loss on that is not finite. A fused
    optimizer that is given it as `found_inf` leaves the weights alone from there on: what made
    the loss break can still be looked into when the flag is read, many steps later.
    """

    def __init__(self, model: nn.Module, autocast: AbstractContextManager):
        device = next(model.parameters()).device
        self._model, self._autocast = model, autocast
        self.broken = torch.zeros((), device=device)
        self._finite_steps = torch.zeros((), dtype=torch.int64, device=device)
        self._steps_between_reads = 1 if device.type == "cpu" else _STEPS_BETWEEN_READS
        self._unread = 0
        self._images: Tensor | None = None

    def see(self, loss: Tensor, images: Tensor) -> None:
        """Note the loss of a step, before the optimizer's; read the flag where it is time to.

        Raises:
            ValueError: a loss was not finite.
        """
        self.broken.copy_(torch.maximum(self.broken, (~loss.detach().isfinite()).float()))
        self._finite_steps += self.broken == 0
        self._unread, self._images = self._unread + 1, images
        if self._unread == self._steps_between_reads:
            self.read()

    def read(self) -> None:
        """Read the flag, if it was not since the last step.

        Raises:
            ValueError: a loss was not finite; one sentence with the step and the layer.
        """
        unread, self._unread = self._unread, 0
        if unread == 0 or self.broken.item() == 0:
            return
        with self._autocast:
            layer = first_layer_not_finite(self._model, self._images)
        where = f"the output of {layer}" if layer else "the loss itself"
        raise ValueError(
            f"the loss is not finite at step {self.finite_steps + 1}, and the first value that is "
            f"not, going forward, is in {where}: try a lower learning rate"
        )

    @property
    def finite_steps(self) -> int:
        """How many steps of this epoch had a finite loss."""
        return int(self._finite_steps)

    @finite_steps.setter
    def finite_steps(self, count: int) -> None:
        self._finite_steps.fill_(count)


@torch.no_grad()
def first_layer_not_finite(model: nn.Module, images: Tensor) -> str | None:
    """Return name and class of the first module whose output for `images` is NaN or infinite.

    Of several processes, in any of them. None where every output is finite. `images` are
    [N, 3, H, W].
    """
    found = []

    def hook_of(name: str):
        def look(module: nn.Module, inputs: tuple, output: object) -> None:
            if found or not isinstance(output, Tensor):
                return
            if processes.total(int(not output.isfinite().all())):
                found.append(f"{name or 'the network'} ({type(module).__name__})")

        return look

    hooks = [m.register_forward_hook(hook_of(name)) for name, m in model.named_modules()]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
