"""The layers that transformers are made of.

    y = Linear(64, 256)(x)         # f32[..., 64] -> f32[..., 256]

Weights are [out, in], as PyTorch keeps them, so that its files are read as they are.
"""

from __future__ import annotations

from tensorwright.frontend import array_api as tn
from tensorwright.frontend.array_reduce import apply
from tensorwright.ir.dtype import DType, f32
from tensorwright.nn.module import Module, Parameter
from tensorwright.ops import linalg, norm
from tensorwright.ops.activations import silu


class Linear(Module):
    def __init__(self, inputs: int, outputs: int, bias: bool = False, dtype: DType = f32) -> None:
        self.weight = Parameter((outputs, inputs), dtype)
        self.bias = Parameter((outputs,), dtype, init=0.0) if bias else None

    def forward(self, x):
        return apply(linalg.linear, x, self.weight, self.bias)


class Embedding(Module):
    """Rows of a table: integers [...] -> [..., width]."""

    def __init__(self, count: int, width: int, dtype: DType = f32) -> None:
        self.weight = Parameter((count, width), dtype)

    def forward(self, tokens):
        return tn.take(self.weight, tokens, axis=0)


class RMSNorm(Module):
    """x over the root of its mean square, times weight (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, epsilon: float = 1e-6, dtype: DType = f32) -> None:
        self.weight, self.epsilon = Parameter((width,), dtype, init=1.0), epsilon

    def forward(self, x):
        return apply(norm.rms_norm, x, self.weight, axes=(-1,), epsilon=self.epsilon)


class LayerNorm(Module):
    def __init__(
        self, width: int, epsilon: float = 1e-5, bias: bool = True, dtype: DType = f32
    ) -> None:
        self.weight, self.epsilon = Parameter((width,), dtype, init=1.0), epsilon
        self.bias = Parameter((width,), dtype, init=0.0) if bias else None

    def forward(self, x):
        return apply(norm.layer_norm, x, self.weight, self.bias, axes=(-1,), epsilon=self.epsilon)


class SwiGLU(Module):
    """down(silu(gate x) * up x) (Shazeer 2020, "GLU variants improve transformer")."""

    def __init__(self, width: int, inner: int, bias: bool = False, dtype: DType = f32) -> None:
        self.gate_proj = Linear(width, inner, bias, dtype)
        self.up_proj = Linear(width, inner, bias, dtype)
        self.down_proj = Linear(inner, width, bias, dtype)

    def forward(self, x):
        return self.down_proj(apply(silu, self.gate_proj(x)) * self.up_proj(x))
