"""Operators of domain ai.onnx.ml against ONNX Runtime."""

import numpy as np
import pytest
from onnx import helper

from tensorwright.frontend.onnx import import_onnx
from tensorwright.ir.interp import run_module

onnxruntime = pytest.importorskip("onnxruntime")
rng = np.random.default_rng(3)


def check(op, *inputs, outputs=1, **attrs):
    names = [f"x{k}" for k in range(len(inputs))]
    wanted = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op, names, wanted, domain="ai.onnx.ml", **attrs)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
         for n, v in zip(names, inputs)],
        [helper.make_empty_tensor_value_info(w) for w in wanted],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = session.run(None, dict(zip(names, inputs)))
    found = run_module(import_onnx(model), inputs)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def forest(trees, depth, features, targets, mode="BRANCH_LEQ", positive=False):
    """Random complete trees as the lists that ONNX wants."""
    inner, total = 2**depth - 1, 2 ** (depth + 1) - 1
    nodes = {k: [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids",
                             "falsenodeids")}  # fmt: skip
    leaves = {"treeids": [], "nodeids": [], "ids": [], "weights": []}
    for t in range(trees):
        for n in range(total):
            is_leaf = n >= inner
            row = (t, n, int(rng.integers(features)), float(rng.normal()),
                   "LEAF" if is_leaf else mode, 0 if is_leaf else 2 * n + 1,
                   0 if is_leaf else 2 * n + 2)  # fmt: skip
            for column, v in zip(nodes.values(), row):
                column.append(v)
            for target in range(targets) if is_leaf else ():
                w = rng.uniform(0, 1 / trees) if positive else rng.normal()
                for column, v in zip(leaves.values(), (t, n, target, float(w))):
                    column.append(v)
    return {f"nodes_{k}": v for k, v in nodes.items()}, leaves


@pytest.mark.parametrize("mode", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE"])
@pytest.mark.parametrize("how", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_tree_regressor(mode, how):
    nodes, leaves = forest(5, 3, 4, 2, mode)
    leaves = {f"target_{k}": v for k, v in leaves.items()}
    x = rng.normal(size=(6, 4)).astype(np.float32)
    check("TreeEnsembleRegressor", x, n_targets=2, aggregate_function=how, **nodes, **leaves)


def test_tree_classifier():
    nodes, leaves = forest(5, 3, 4, 3)
    leaves = {f"class_{k}": v for k, v in leaves.items()}
    x = rng.normal(size=(6, 4)).astype(np.float32)
    check("TreeEnsembleClassifier", x, outputs=2, classlabels_int64s=[4, 7, 9],
          post_transform="SOFTMAX", **nodes, **leaves)  # fmt: skip


@pytest.mark.parametrize("positive, how", [(True, "NONE"), (False, "LOGISTIC")])
def test_two_classes(positive, how):
    nodes, leaves = forest(5, 3, 4, 1, positive=positive)
    leaves = {f"class_{k}": v for k, v in leaves.items()}
    x = rng.normal(size=(9, 4)).astype(np.float32)
    check("TreeEnsembleClassifier", x, outputs=2, classlabels_int64s=[0, 1], post_transform=how,
          **nodes, **leaves)  # fmt: skip


def test_linear_models_and_features():
    x = rng.normal(size=(5, 4)).astype(np.float32)
    w = rng.normal(size=12).astype(np.float32).tolist()
    check("LinearRegressor", x, coefficients=w, intercepts=[0.5, -1.0, 2.0], targets=3)
    check("LinearClassifier", x, outputs=2, coefficients=w, intercepts=[0.1, 0.2, 0.3],
          classlabels_ints=[1, 2, 3], post_transform="SOFTMAX")  # fmt: skip
    check("Scaler", x, offset=[0.5, 1.0, 0.0, 2.0], scale=[2.0, 0.5, 1.0, 3.0])
    for norm in ("MAX", "L1", "L2"):
        check("Normalizer", np.abs(x), norm=norm)
    check("Binarizer", x, threshold=0.3)
    check("ArrayFeatureExtractor", x, np.array([2, 0]))
    check("FeatureVectorizer", x, x[:, :2], inputdimensions=[4, 2])
    check("OneHotEncoder", np.array([3, 1, 3]), cats_int64s=[1, 2, 3])
    holes = np.where(x > 0.5, np.float32(np.nan), x)
    check("Imputer", holes, imputed_value_floats=[1.0, 2.0, 3.0, 4.0],
          replaced_value_float=float("nan"))  # fmt: skip
