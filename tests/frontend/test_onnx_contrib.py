"""Operators of domain com.microsoft against ONNX Runtime."""

import numpy as np
import pytest
from onnx import helper

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.onnx import import_onnx
from tensorwright.ir.interp import run_module

onnxruntime = pytest.importorskip("onnxruntime")

rng = np.random.default_rng(7)


def floats(*shape, scale=1.0):
    return (rng.normal(size=shape) * scale).astype(np.float32)


def ints(low, high, *shape, dtype=np.int64):
    return rng.integers(low, high, shape).astype(dtype)


MS = "com.microsoft"


def check(op, inputs, outputs=1, constants=(), rtol=1e-4, atol=1e-5, domain=MS, **attrs):
    """`inputs` are arrays or None; those numbered in `constants` become initializers."""
    names = ["" if v is None else f"x{k}" for k, v in enumerate(inputs)]
    wanted = [f"y{k}" for k in range(outputs)] if isinstance(outputs, int) else list(outputs)
    node = helper.make_node(op, names, wanted, domain=domain, **attrs)
    given = {n: v for n, v in zip(names, inputs) if n}
    fixed = {f"x{k}" for k in constants}
    kinds = {n: helper.np_dtype_to_tensor_dtype(v.dtype) for n, v in given.items()}
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(n, kinds[n], v.shape) for n, v in given.items()
         if n not in fixed],
        [helper.make_empty_tensor_value_info(w) for w in wanted if w],
        [helper.make_tensor(n, kinds[n], v.shape, v.tobytes(), raw=True)
         for n, v in given.items() if n in fixed],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    feeds = {n: v for n, v in given.items() if n not in fixed}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    expected = session.run(None, feeds)
    m = import_onnx(model)
    found = run_module(m, [feeds[p.name] for p in m.main.params])
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=rtol, atol=atol)


X = floats(2, 5, 8)


@pytest.mark.parametrize(
    "op, inputs, attrs",
    [
        ("Gelu", [X], {}),
        ("BiasGelu", [X, floats(8)], {}),
        ("FastGelu", [X], {}),
        ("FastGelu", [X, floats(8)], {}),
        ("QuickGelu", [X], {"alpha": 1.3}),
        ("FusedMatMul", [floats(3, 4), floats(3, 5)], {"transA": 1, "alpha": 0.5}),
        ("FusedMatMul", [floats(2, 3, 4), floats(2, 5, 4)], {"transB": 1}),
        ("FusedGemm", [floats(3, 4), floats(4, 5), floats(5)],
         {"activation": "LeakyRelu", "activation_alpha": 0.2, "alpha": 0.5}),
        ("FusedConv", [floats(1, 2, 5, 5), floats(3, 2, 3, 3), floats(3)],
         {"activation": "Relu", "pads": [1, 1, 1, 1]}),
        ("FusedConv", [floats(1, 2, 5, 5), floats(3, 2, 3, 3), floats(3), floats(1, 3, 3, 3)],
         {"activation": "Clip", "activation_params": [-0.5, 0.5]}),
        ("Trilu", [floats(4, 4)], {"upper": 0}),
        ("ExpandDims", [X, np.array(1, np.int32)], {}),
    ],
)  # fmt: skip
def test_layers(op, inputs, attrs):
    check(op, inputs, constants=[1] if op == "ExpandDims" else [], **attrs)


def test_normalizations():
    skip, gamma, beta, bias = floats(2, 5, 8), floats(8), floats(8), floats(8)
    check("SkipLayerNormalization", [X, skip, gamma, beta, bias], ["y0", "", "", "y3"])
    check("SkipLayerNormalization", [X, skip, gamma, beta], epsilon=1e-3)
    check("SkipSimplifiedLayerNormalization", [X, skip, gamma], ["y0", "", "", "y3"])
    check("SimplifiedLayerNormalization", [X, gamma], domain="", epsilon=1e-4)
    ids, kinds = ints(0, 9, 2, 5, dtype=np.int32), ints(0, 2, 2, 5, dtype=np.int32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    tables = [floats(9, 8), floats(6, 8), floats(2, 8), gamma, beta]
    check("EmbedLayerNormalization", [ids, kinds, *tables, mask], 2)


def packed_attention(mask=None, past=None, added=None, **attrs):
    weights, bias = floats(8, 24), floats(24)
    outputs = 2 if past is not None else 1
    check("Attention", [X, weights, bias, mask, past, added], outputs, [1, 2], num_heads=2, **attrs)


@pytest.mark.parametrize(
    "mask",
    [
        None,
        np.array([3, 5], np.int32),
        np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32),
        np.tril(np.ones((2, 5, 5), np.int32)),
    ],
)
def test_attention_masks(mask):
    packed_attention(mask)


def test_attention():
    packed_attention(unidirectional=1)
    packed_attention(past=floats(2, 2, 2, 3, 4), unidirectional=1)
    packed_attention(added=floats(2, 2, 5, 5), scale=0.3)


def test_multi_head_attention():
    q, k, v = floats(2, 4, 8), floats(2, 6, 8), floats(2, 6, 8)
    check("MultiHeadAttention", [q, k, v], num_heads=2)
    check("MultiHeadAttention", [q, k, v, floats(24)], num_heads=2)
    check("MultiHeadAttention", [q, k, v, None, np.array([4, 6], np.int32)], num_heads=2)
    check("MultiHeadAttention", [q, k, v, None, None, floats(1, 2, 4, 6)], num_heads=2, scale=0.2)
    past = [floats(2, 2, 3, 4), floats(2, 2, 3, 4)]
    check("MultiHeadAttention", [q, k, v, None, None, None, *past], 3, num_heads=2)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("positions", [np.array([2]), np.array([[0, 1, 2], [3, 4, 5]])])
def test_rotary_embedding(interleaved, positions):
    inputs = [floats(2, 4, 3, 8), positions, floats(10, 4), floats(10, 4)]
    check("RotaryEmbedding", inputs, interleaved=interleaved)


def group_query(length, past, total, last, window=-1, rotary=0, **attrs):
    q, k, v = floats(2, length, 64), floats(2, length, 32), floats(2, length, 32)
    caches = [floats(2, 2, past, 16), floats(2, 2, past, 16)]
    angles = [floats(16, 8), floats(16, 8)] if rotary else [None, None]
    inputs = [q, k, v, *caches, np.array(last, np.int32), np.array(total, np.int32), *angles]
    inputs = inputs if rotary else inputs[:7]
    check("GroupQueryAttention", inputs, 3, [6], num_heads=4, kv_num_heads=2,
          local_window_size=window, do_rotary=rotary, **attrs)  # fmt: skip


def test_group_query_attention():
    group_query(4, 0, 4, [3, 3])  # a prompt
    group_query(1, 6, 7, [6, 6])  # one more token
    group_query(1, 6, 7, [6, 6], rotary=1)
    group_query(1, 6, 7, [6, 6], rotary=1, rotary_interleaved=1)
    group_query(1, 6, 7, [6, 6], window=3)
    group_query(4, 0, 4, [3, 3], softcap=5.0)


# ---- quantized ----------------------------------------------------------------------------------

S = np.float32


def zero(value=3, dtype=np.uint8):
    return np.array(value, dtype)


def test_quantized_elementwise():
    a, b = ints(0, 255, 3, 4, dtype=np.uint8), ints(0, 255, 3, 4, dtype=np.uint8)
    scales = [np.array(v, S) for v in (0.02, 0.03, 0.05)]
    both = [a, scales[0], zero(), b, scales[1], zero(100), scales[2], zero(7)]
    check("QLinearAdd", both, atol=1)
    check("QLinearMul", both, atol=1)
    one = [a, scales[0], zero(128), scales[1], zero(3)]
    check("QLinearSigmoid", one, atol=1, constants=[1, 2, 3, 4])
    check("QLinearLeakyRelu", one, atol=1, constants=[1, 2, 3, 4], alpha=0.1)
    triples = [scales[2], zero(7), a, scales[0], zero(), b, scales[1], zero(100)]
    check("QLinearConcat", triples, atol=1, constants=[0, 1, 3, 4, 6, 7], axis=1)


def test_quantized_pools():
    x = ints(0, 255, 1, 2, 6, 6, dtype=np.uint8)
    operands = [x, np.array(0.1, S), zero(), np.array(0.1, S), zero(5)]
    check("QLinearAveragePool", operands, atol=1, constants=[1, 2, 3, 4], kernel_shape=[3, 3])
    check("QLinearGlobalAveragePool", operands, atol=1, constants=[1, 2, 3, 4])


def test_quantized_products():
    a, b = ints(0, 255, 3, 4, dtype=np.uint8), ints(-128, 127, 4, 5, dtype=np.int8)
    scale, column = np.array(0.1, S), np.array([0.1, 0.2, 0.3, 0.1, 0.2], S)
    zeros = [zero(), np.array(2, np.int8)]
    check("MatMulIntegerToFloat", [a, b, scale, scale, *zeros])
    check("MatMulIntegerToFloat", [a, b, scale, column, zero(), None, floats(5)])
    check("DynamicQuantizeMatMul", [floats(3, 4), b, scale, zeros[1], floats(5)], atol=1e-2)


def packed_weights(n, k, bits, block, with_zeros):
    blocks = -(-k // block)
    inputs = [ints(0, 255, n, blocks, block * bits // 8, dtype=np.uint8), floats(n * blocks)]
    if with_zeros:
        inputs.append(ints(0, 255, n * -(-blocks * bits // 8), dtype=np.uint8))
    return inputs


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits, k, block", [(4, 64, 16), (4, 48, 32), (8, 64, 32)])
def test_narrow_weights(bits, k, block, zeros):
    weights = packed_weights(6, k, bits, block, zeros)
    check("MatMulNBits", [floats(2, 3, k), *weights], constants=range(1, len(weights) + 1), K=k,
          N=6, bits=bits, block_size=block, rtol=1e-3, atol=1e-3)  # fmt: skip


def test_refusals_say_why():
    q = floats(1, 2, 8)
    graph = helper.make_graph(
        [helper.make_node("MultiHeadAttention", ["x"], ["y"], domain="com.microsoft", num_heads=2)],
        "g", [helper.make_tensor_value_info("x", 1, q.shape)],
        [helper.make_empty_tensor_value_info("y")],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    with pytest.raises(FrontendError, match="no keys"):
        import_onnx(helper.make_model(graph, opset_imports=imports))
