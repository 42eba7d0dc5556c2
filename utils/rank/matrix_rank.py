"""The matrix rank of feature maps."""

import torch
from torch import Tensor


def map_ranks(maps: Tensor) -> Tensor:
    """Return the rank of every feature map: [N, C, H, W] -> int64 [N, C].

    The rank is the number of singular values of the float32 map above
    max(H, W) * eps(float32) * sigma_max: `torch.linalg.matrix_rank` with its default tolerance,
    which HRank's scores (Lin et al., 2020, Eq. 5) are defined by. Batching changes no integer.

    Raises:
        ValueError: if `maps` are not 4-d, or hold NaN or Inf in float32 (LAPACK would silently
            say 0).
    """
    if maps.dim() != 4:
        raise ValueError(f"feature maps: expected [N, C, H, W], got {list(maps.shape)}")
    maps = maps.float()
    wrong = int((~maps.isfinite()).sum())
    if wrong:
        raise ValueError(f"feature maps: {wrong} of {maps.numel()} values are NaN or Inf")
    if maps.numel() == 0:
        return torch.zeros(maps.shape[:2], dtype=torch.int64, device=maps.device)
    return torch.linalg.matrix_rank(maps)
