"""Random weights that behave like trained ones.

A deep net with the default initialisation and untouched batch-norm statistics multiplies its
activations in every residual block. `season` therefore perturbs every bias and norm weight (so
that a lost bias shows up as a wrong answer) and fills the batch-norm statistics from one batch.
Invariant: the same seed gives the same weights, and outputs stay within a few units.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

SEED = 20


@dataclass(frozen=True)
class Net:
    """A torch module in eval mode with named example inputs, in the order of its forward.

    dynamic: the axes that vary, by input: a name or a `torch.export.Dim`. onnx_functions: how the
    exporter writes operators that it does not know."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, object]] | None = None
    onnx_functions: dict[Callable, Callable] = field(default_factory=dict)


def seeded(build: Callable[[], nn.Module], calibrate: Tensor | None = None) -> nn.Module:
    """Build under the fixed seed, season, and return in eval mode without gradients."""
    torch.manual_seed(SEED)
    module = build()
    season(module)
    if calibrate is not None:
        fill_batch_norm(module, calibrate)
    return module.eval().requires_grad_(False)


def season(module: nn.Module) -> None:
    """Move biases away from 0 and norm weights away from 1."""
    with torch.no_grad():
        for param in module.parameters():
            if param.ndim == 1:
                param.add_(0.05 * torch.randn_like(param))


def fill_batch_norm(module: nn.Module, batch: Tensor) -> None:
    """Set running mean and variance to those of one batch."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    module.train()
    with torch.no_grad():
        module(batch)
    for norm in norms:
        norm.momentum = 0.1


def image(batch: int, size: int) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(SEED + 1))


def tokens(vocab: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED + 2)
    return torch.randint(3, vocab, shape, generator=generator)


def noise(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(SEED + 3))
