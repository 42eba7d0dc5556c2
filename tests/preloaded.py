"""What the processes that tests fork off a server find imported, so that they start at once."""

import torch._dynamo  # noqa: F401  this and the next load late, and take seconds
import torch._inductor.compile_fx  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

import main  # noqa: F401
import rank_generation  # noqa: F401
import utils.runs.event_file  # noqa: F401
