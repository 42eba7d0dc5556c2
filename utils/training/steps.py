"""One step of training: a batch goes forward and back, and the optimizer moves the weights."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.runs import processes
from utils.runs.borrowed_state import evaluating, training
from utils.runs.compiler import compiled
from utils.training.averaging import WeightAverage
from utils.training.kept_memory import keep_freed_memory
from utils.training.not_finite import LossWatch
from utils.training.schedules import Recipe
from utils.training.synchronised_norms import synchronised_norms


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD over the model's parameters, in one fused kernel where they lie on a GPU."""
    return torch.optim.SGD(
        model.parameters(),
        recipe.lr,
        recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=_device_of(model).type == "cuda",
    )


class TrainingStep:
    """Trains a model batch by batch, and holds what outlives a batch.

    Nothing is read back from a GPU but, now and then, whether a loss was not finite.

    Args:
        after_step: called after each step of the optimizer.
        teacher: the network that the student, `model`, shall answer like, by `recipe.distill_*`.

    Raises:
        ValueError: `recipe.compile` finds no compiler.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        *,
        after_step: Callable[[], None] | None = None,
        teacher: nn.Module | None = None,
    ):
        device = _device_of(model)
        if device.type == "cpu":
            keep_freed_memory()
        half, last = (_is_on(choice, device) for choice in (recipe.amp, recipe.channels_last))
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=half)
        self._memory_format = torch.channels_last if last else torch.preserve_format
        self._model = model.to(memory_format=self._memory_format)
        forward = _compiled(model, device) if recipe.compile else model
        self._forward = processes.averaging_gradients(forward)
        self._optimizer, self._recipe, self._teacher = optimizer, recipe, teacher
        self._average = WeightAverage(model, recipe.ema) if recipe.ema is not None else None
        self._watch = LossWatch(model, self._autocast)
        self._batches = self._images = 0  # whose gradients wait for the optimizer
        if after_step is not None:
            optimizer.register_step_post_hook(lambda *_: after_step())

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
        """Train on images [N, 3, H, W] and labels [N]; return mean loss, number right, and N.

        Loss and number right are tensors, unread. Of several processes, each has a part of the
        batch, perhaps an empty one; what is returned is of the whole batch.

        Raises:
            ValueError: a loss is not finite.
        """
        images = images.to(memory_format=self._memory_format)
        with self._autocast:
            logits = self._forward(images)  # [N, classes]
            loss = self._loss(logits, labels, images)
        count = processes.total(len(labels))
        loss_of_all = processes.summed(loss.detach() * (len(labels) / count))
        self._watch.see(loss_of_all, images)
        if self._batches == 0:
            self._optimizer.zero_grad()
        weight = len(labels) * processes.num_processes()  # gradients become their mean
        (loss * (weight / count if self._recipe.accumulate == 1 else weight)).backward()
        self._batches += 1
        self._images += count
        if self._batches == self._recipe.accumulate:
            self._update()
        correct = (logits.detach().argmax(dim=1) == labels).sum()
        return loss_of_all, processes.summed(correct), count

    def end_epoch(self) -> None:
        """Let the optimizer step for the batches that still wait; look at the last losses.

        Raises:
            ValueError: a loss is not finite.
        """
        if self._batches:
            self._update()
        self._watch.read()
        self._watch.finite_steps = 0
        if self._average is not None:
            self._average.copy_buffers(self._model)

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts: the averaged one, where the recipe averages."""
        return self._model if self._average is None else self._average.model

    @contextlib.contextmanager
    def modes(self) -> Iterator[None]:
        """Put the model in train mode and the teacher in eval mode; all flags come back after."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(training(self._model))
            stack.enter_context(synchronised_norms(self._model))
            if self._teacher is not None:
                stack.enter_context(evaluating(self._teacher))
            yield

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a stop, beside the model's and the optimizer's state.

        Raises:
            ValueError: a loss is not finite.
        """
        self._watch.read()
        named = self._model.named_parameters() if self._batches else ()
        gradients = {name: p.grad for name, p in named if p.grad is not None}
        return {
            "batches": self._batches,
            "images": self._images,
            "gradients": gradients,
            "finite_steps": self._watch.finite_steps,
            "average": None if self._average is None else self._average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, once the model and the optimizer have theirs."""
        self._batches, self._images = state["batches"], state["images"]
        for name, gradient in state["gradients"].items():
            parameter = self._model.get_parameter(name)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        self._watch.finite_steps = state["finite_steps"]
        if self._average is not None:
            self._average.load_state_dict(state["average"])

    def _loss(self, logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        if len(labels) == 0:
            return logits.sum()  # 0, where a mean would be NaN
        recipe = self._recipe
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        if self._teacher is None:
            return loss
        with torch.no_grad():
            taught = self._teacher(images)
        likeness = distillation_loss(logits, taught, recipe.distill_temperature)
        return (1 - recipe.distill_weight) * loss + recipe.distill_weight * likeness

    def _update(self) -> None:
        """Step the optimizer by the mean gradient of the images since it stepped last."""
        parameters = [p for p in self._model.parameters() if p.grad is not None]
        if self._recipe.accumulate > 1:
            torch._foreach_div_([p.grad for p in parameters], self._images)
        if self._recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self._recipe.clip_norm)
        if self._optimizer.param_groups[0]["fused"]:
            self._optimizer.found_inf = self._watch.broken
        self._optimizer.step()
        self._batches = self._images = 0
        if self._average is not None:
            self._average.update(self._model)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher's || student's softened answers), the mean over images.

    Both are logits [N, classes], softened by T. The factor keeps the gradient's size whatever T is
    (Hinton, Vinyals and Dean, 2015).
    """
    answers, target = (F.log_softmax(z / temperature, dim=1) for z in (student, teacher))
    divergence = F.kl_div(answers, target, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def _compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a network that computes what `model` does, from its very parameters, but compiled."""
    if processes.num_processes() > 1:  # the statistics of its norms come from outside of it
        raise ValueError(
            f"--compile is for one process: expected none of it in {processes.num_processes()}"
        )
    return compiled(model, device)


def _is_on(choice: str, device: torch.device) -> bool:
    return device.type == "cuda" if choice == "auto" else choice != "off"


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
