"""Small modules and model files for the tests of tools."""

from pathlib import Path

import numpy as np

from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import Node, constant, graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.activations import relu
from tensorwright.ops.elementwise import add, tanh
from tensorwright.ops.linalg import matmul
from tensorwright.ops.norm import softmax

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.onnx"


def named(node: Node, name: str) -> Node:
    from dataclasses import replace

    return replace(node, name=name, loc=(f"mlp.py:{len(name)} {node.op.name}",))


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / 8


def mlp() -> Module:
    """Two layers and a softmax on f32[n, 64]."""
    x = param("x", tensor(f32, sym(Symbol("n", 1, 512)), 64))
    w, v = constant(weights(64, 32), "w"), constant(weights(32, 10, seed=1), "v")
    hidden = named(relu(named(add(matmul(x, w), constant(weights(32), "b")), "sum")), "hidden")
    logits = named(matmul(hidden, v), "logits")
    y = named(softmax(logits, axis=-1), "probabilities")
    return Module({"main": graph("main", [x], [y, named(tanh(logits), "squashed")],
                                 ("probabilities", "squashed"))})  # fmt: skip
