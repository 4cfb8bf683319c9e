"""Sizes that only data tells, alone and in chains: ONNX Runtime, PyTorch and NumPy as oracles."""

import numpy as np
import pytest

import tensorwright as tw

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
F, I, B = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL


def node(op, ins, outs, **attrs):
    return onnx.helper.make_node(op, ins.split(), outs.split(), **attrs)


def build(nodes, inputs: dict, outputs: str, constants: dict | None = None) -> bytes:
    """A model with inputs name -> (type, shape)."""
    info = [onnx.helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()]
    kinds = {o.partition(":")[0]: o.partition(":")[2] for o in outputs.split()}
    out = [onnx.helper.make_tensor_value_info(n, {"i": I, "b": B}.get(k, F), None)
           for n, k in kinds.items()]  # fmt: skip
    values = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()]
    g = onnx.helper.make_graph(nodes, "g", info, out, values)
    m = onnx.helper.make_model(g, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return m.SerializeToString()


RNG = np.random.default_rng(3)
W = RNG.standard_normal((4, 5)).astype(np.float32)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def sparse(*shape):
    return (floats(*shape) * (RNG.random(shape) < 0.4)).astype(np.float32)


CASES = {
    "nonzero": (
        build([node("NonZero", "x", "y")], {"x": (F, ["n", 4])}, "y:i"),
        [{"x": sparse(n, 4)} for n in (1, 3, 17)] + [{"x": np.zeros((3, 4), np.float32)}],
    ),
    "nonzero, gather, matmul": (
        build(
            [node("NonZero", "m", "p"), node("Squeeze", "p axes", "at"),
             node("Gather", "x at", "rows", axis=0), node("MatMul", "rows w", "y")],
            {"m": (F, ["n"]), "x": (F, ["n", 4])}, "y", {"axes": np.array([0]), "w": W},
        ),
        [{"m": sparse(n), "x": floats(n, 4)} for n in (1, 5, 40)],
    ),
    "compress, then twice more": (
        build(
            [node("Compress", "x keep", "a", axis=0), node("ReduceSum", "a one", "s", keepdims=0),
             node("Greater", "s zero", "b"), node("Compress", "a b", "c", axis=0),
             node("MatMul", "c w", "y")],
            {"x": (F, ["n", 4]), "keep": (B, ["n"])}, "y c",
            {"one": np.array([1]), "zero": np.float32(0), "w": W},
        ),
        [{"x": floats(n, 4), "keep": RNG.random(n) < 0.7} for n in (1, 6, 33)],
    ),
    "unique, one of each": (
        build(
            [node("Unique", "x", "u first back count", sorted=1), node("Gather", "u back", "again"),
             node("Sub", "again x", "nothing")],
            {"x": (F, ["n"])}, "u first:i back:i count:i nothing",
        ),
        [{"x": np.round(floats(n))} for n in (1, 7, 30)],
    ),
    "topk with k from data": (
        build(
            [node("TopK", "x k", "v i", axis=1), node("MatMul", "x w", "p"),
             node("Shape", "v", "s"), node("Concat", "v p", "y", axis=1)],
            {"x": (F, ["n", 4]), "k": (I, [1])}, "v i:i y s:i", {"w": W},
        ),
        [{"x": floats(3, 4), "k": np.array([k])} for k in (1, 3, 4)],
    ),
    "range and what is built of it": (
        build(
            [node("Range", "zero n one", "r"), node("Cast", "r", "f", to=F),
             node("Unsqueeze", "f axis", "column"), node("MatMul", "column row", "y"),
             node("ReduceSum", "y", "total", keepdims=0)],
            {"n": (I, [])}, "r:i y total",
            {"zero": np.array(0), "one": np.array(1), "axis": np.array([1]),
             "row": floats(1, 6)},
        ),
        [{"n": np.array(k)} for k in (0, 1, 50)],
    ),
    "boxes kept, gathered and scored": (
        build(
            [node("NonMaxSuppression", "boxes scores most overlap least", "kept"),
             node("Gather", "kept two", "at", axis=1), node("Squeeze", "boxes zero", "flat"),
             node("Gather", "flat at", "found", axis=0), node("MatMul", "found w", "y")],
            {"boxes": (F, [1, "n", 4]), "scores": (F, [1, 2, "n"])}, "kept:i found y",
            {"most": np.array([9]), "overlap": np.float32([0.4]), "least": np.float32([0.3]),
             "two": np.array(2), "zero": np.array([0]), "w": W},
        ),
        [{"boxes": np.sort(RNG.random((1, n, 4)).astype(np.float32), -1)[..., [0, 1, 2, 3]],
          "scores": RNG.random((1, 2, n)).astype(np.float32)} for n in (1, 8, 50)],
    ),
    "a mask of a matrix, softmax over what is left": (
        build(
            [node("Greater", "x zero", "m"), node("Cast", "m", "mi", to=I),
             node("NonZero", "mi", "p"), node("Transpose", "p", "at", perm=[1, 0]),
             node("GatherND", "x at", "v"), node("Softmax", "v", "y", axis=0),
             node("Shape", "v", "count"), node("ConstantOfShape", "count", "zeros"),
             node("Concat", "y zeros", "both", axis=0)],
            {"x": (F, ["n", "k"])}, "v y count:i both", {"zero": np.float32(0)},
        ),
        [{"x": floats(n, k)} for n, k in ((1, 9), (4, 4), (20, 3))],
    ),
    "as many copies as the data says": (
        build(
            [node("ReduceMax", "c", "most", keepdims=1),
             node("Concat", "most ones", "times", axis=0),
             node("Tile", "x times", "y"), node("Expand", "z times", "e"),
             node("ReduceSum", "y", "total", keepdims=0)],
            {"c": (I, ["n"]), "x": (F, [1, 3]), "z": (F, [1, 1])}, "y e total",
            {"ones": np.array([2])},
        ),
        [{"c": np.array(c), "x": floats(1, 3), "z": floats(1, 1)}
         for c in ([1], [2, 5], [3, 1, 1])],
    ),
    "split at a place from data": (
        build(
            [node("Slice", "x zero k axis", "a"), node("Slice", "x k far axis", "b"),
             node("MatMul", "a w", "ya"), node("MatMul", "b w", "yb"),
             node("Concat", "yb ya", "y", axis=0)],
            {"x": (F, ["n", 4]), "k": (I, [1])}, "a b y",
            {"zero": np.array([0]), "far": np.array([1 << 40]), "axis": np.array([0]), "w": W},
        ),
        [{"x": floats(6, 4), "k": np.array([k])} for k in (0, 2, 6, -1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_onnx(name):
    model, feeds = CASES[name]
    program, oracle = tw.compile(model), ort.InferenceSession(model)
    for feed in [*feeds, feeds[0]]:  # sizes go up and down again
        given, wanted = program(**feed), oracle.run(None, feed)
        for a, b in zip(given if isinstance(given, tuple | list) else [given], wanted):
            assert a.shape == b.shape and a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_torch_unbacked_sizes():
    torch = pytest.importorskip("torch")

    class Chain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(4, 5)

        def forward(self, x, m):
            rows = x[m]
            at = torch.nonzero(rows[:, 0] > 0).squeeze(1)
            chosen = rows[at]
            return self.layer(chosen), torch.softmax(chosen.sum(1), 0), at

    module = Chain().eval()
    example = torch.randn(6, 4), torch.tensor([True, False] * 3)
    program = tw.compile(module, example, shapes="x: n, 4; m: n")
    for n in (2, 7, 30):
        x, m = torch.randn(n, 4), torch.rand(n) > 0.3
        with torch.no_grad():
            wanted = module(x, m)
        for a, b in zip(program(x.numpy(), m.numpy()), wanted):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-5)


def test_array_functions():
    @tw.function
    def f(x: tw.f32["n", 4], w: tw.f32[4, 5]):
        xp = tw.numpy
        rows = xp.nonzero(x[:, 0] > 0)[0]
        kept = xp.take(x, rows, axis=0)
        return xp.matmul(kept, w), xp.sum(x[x > 0.5]), xp.unique_values(rows)

    program = tw.compile(f)
    for n in (1, 6, 50):
        x = floats(n, 4)
        y, total, values = program(x, W)
        rows = np.nonzero(x[:, 0] > 0)[0]
        np.testing.assert_allclose(y, x[rows] @ W, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(total, x[x > 0.5].sum(), rtol=1e-4, atol=1e-5)
        assert np.array_equal(values, rows)


def test_results_of_the_last_size_are_offered_and_taken_only_if_they_fit():
    """The same shapes go in, others come out; what earlier calls gave stays as it was."""
    program = tw.compile(CASES["nonzero"][0])
    inputs = [sparse(30, 4) for _ in range(4)] + [np.zeros((30, 4), np.float32)]
    order = [0, 0, 1, 1, 4, 4, 2, 3, 3, 0]
    results = [program(inputs[k]) for k in order]
    for k, y in zip(order, results):
        np.testing.assert_array_equal(y, np.array(np.nonzero(inputs[k])))
    starts = {y.__array_interface__["data"][0] for y in results if y.size}
    assert len(starts) == len([y for y in results if y.size])


def test_repeated_shapes_get_results_of_their_own():
    model = build([node("MatMul", "x w", "y")], {"x": (F, ["n", 4])}, "y", {"w": W})
    program = tw.compile(model)
    inputs = [floats(n, 4) for n in (3, 3, 3, 5, 5, 3)]
    for x, y in zip(inputs, [program(x) for x in inputs]):
        np.testing.assert_allclose(y, x @ W, rtol=1e-5, atol=1e-6)
        assert y.ctypes.data % 64 == 0
