"""What the processes that tests fork off a server find imported, so that they start at once."""

import torch._dynamo  # noqa: F401  this and the next load late, and take seconds
import torch._inductor.compile_fx  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

import utils.commands.controls  # noqa: F401
import utils.commands.demo  # noqa: F401
import utils.commands.evaluate  # noqa: F401
import utils.commands.prune_weights  # noqa: F401
import utils.commands.scan  # noqa: F401
import utils.reports.screen  # noqa: F401
import utils.runs.event_file  # noqa: F401
