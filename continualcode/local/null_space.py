"""What rows of numbers have that some inputs do not use; knows nothing of LoRA.

B (A x) is small for the x of ordinary inputs when A has little of what they span (LoRA-Null, arXiv 2503.02659; InfLoRA, arXiv
2404.00228). Those project it away; a ridge regression instead needs no rank to be chosen, and no singular values.
"""

from __future__ import annotations

import torch

RIDGE = 1.0
"""Of the ridge regression that is subtracted, out of the inputs' mean square."""
EXPLAINING = 512
"""Inputs, evenly spread over those seen, that it is fitted on: half a second for 135M parameters."""


def take_out(a: torch.Tensor, inputs: torch.Tensor) -> None:
    """Leaves of the rows of a [R, I] the residual of their ridge regression on the inputs [N, I]."""
    chosen = torch.linspace(0, len(inputs) - 1, min(len(inputs), EXPLAINING), device=inputs.device).long()
    x = inputs[chosen].float()
    gram = x @ x.t()
    gram.diagonal().add_(RIDGE * float(gram.trace()) / a.shape[1] + 1e-9)
    a -= torch.cholesky_solve(x @ a.t(), torch.linalg.cholesky(gram)).t() @ x
