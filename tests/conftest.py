"""One torch thread for all tests: their tensors are tiny, and waking a second thread costs more."""

import torch

torch.set_num_threads(1)
