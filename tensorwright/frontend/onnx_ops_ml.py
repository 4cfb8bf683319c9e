"""Domain ai.onnx.ml on numbers: trees, linear models, feature preparation. No strings, no maps.

All trees of an ensemble are walked at once: node[row, tree] starts at the roots and is replaced
`depth` times by the child that the row's feature chooses (a leaf is its own child); the leaves'
weights are then gathered and summed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Array, Call, Floats, Ints, Strings, converter
from tensorwright.ir.dtype import f32, i64
from tensorwright.ir.graph import Node, constant

DOMAIN = "ai.onnx.ml"
LEAF = "LEAF"
COMPARISONS = {
    "BRANCH_LEQ": ops.less_equal, "BRANCH_LT": ops.less, "BRANCH_GTE": ops.greater_equal,
    "BRANCH_GT": ops.greater, "BRANCH_EQ": ops.equal, "BRANCH_NEQ": ops.not_equal,
}  # fmt: skip
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
MAX_DEPTH = 256


@dataclass(frozen=True)
class Trees:
    """Nodes of all trees by number: feature, split, comparison, children, whether a missing value
    goes to the true child; and the roots."""

    feature: np.ndarray
    split: np.ndarray
    mode: np.ndarray
    true: np.ndarray
    false: np.ndarray
    missing: np.ndarray
    roots: np.ndarray

    @property
    def depth(self) -> int:
        """The most steps from a root to a leaf."""
        level, depth = np.unique(self.roots), 0
        while True:
            inner = level[self.mode[level] != LEAF]
            if not len(inner):
                return depth
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError("the trees are cyclic or too deep")
            level = np.unique(np.concatenate([self.true[inner], self.false[inner]]))


def leaves_of(c: Call, x: Node, trees: Trees) -> Node:
    """The leaf that each row of x[rows, features] reaches in each tree: i64[rows, trees]."""
    inner = trees.mode != LEAF
    if inner.any() and not 0 <= trees.feature[inner].min() <= trees.feature[inner].max() < (
        x.shape[1] if isinstance(x.shape[1], int) else 1 << 62
    ):
        raise c.fail(f"a node tests a feature that {x.type} does not have")
    try:
        depth = trees.depth
    except (ValueError, IndexError) as e:
        raise c.fail(f"the trees are malformed: {e}") from None
    at = ops.broadcast_to(constant(trees.roots), shape=(x.shape[0], len(trees.roots)))
    table = lambda values: ops.gather(constant(np.ascontiguousarray(values)), at, axis=0)
    for _ in range(depth):
        value = ops.gather_elements(x, table(np.where(inner, trees.feature, 0)), axis=1)
        goes = chosen(value, table, trees)
        if trees.missing.any() and x.dtype.is_float:
            lost = ops.logical_and(ops.is_nan(value), table(trees.missing))
            goes = ops.logical_or(goes, lost)
        at = ops.select(goes, table(trees.true), table(trees.false))
    return at


def chosen(value: Node, table, trees: Trees) -> Node:
    """Whether each value passes the test of its node."""
    split = table(trees.split.astype(value.dtype.numpy))
    result = None
    for name in MODES:
        here = trees.mode == name
        if not here.any():
            continue
        test = COMPARISONS[name](value, split)
        result = test if result is None else ops.select(table(here), test, result)
    return result


def classic_trees(c: Call, a: dict) -> tuple[Trees, dict[tuple[int, int], int]]:
    """Trees from parallel lists, and the number of each (tree, node)."""
    ids = list(zip(a["nodes_treeids"], a["nodes_nodeids"]))
    number = {key: k for k, key in enumerate(ids)}
    if len(number) != len(ids) or not ids:
        raise c.fail("its node ids repeat or are missing")
    lists = ("nodes_featureids", "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids")
    if any(len(a[name]) != len(ids) for name in lists):
        raise c.fail("its lists of nodes have different lengths")
    mode = np.array(a["nodes_modes"])
    if set(a["nodes_modes"]) - {*MODES, LEAF}:
        raise c.fail(f"a node has mode {sorted(set(a['nodes_modes']) - {*MODES, LEAF})[0]!r}")

    def child(name: str) -> np.ndarray:
        found = [
            k if mode[k] == LEAF else number.get((tree, to), -1)
            for k, ((tree, _), to) in enumerate(zip(ids, a[name]))
        ]
        if -1 in found:
            raise c.fail("a node's child does not exist")
        return np.array(found, np.int64)

    true, false = child("nodes_truenodeids"), child("nodes_falsenodeids")
    inner = np.flatnonzero(mode != LEAF)
    below = {*true[inner].tolist(), *false[inner].tolist()}
    roots = np.array([k for k in range(len(ids)) if k not in below], np.int64)
    missing = a.get("nodes_missing_value_tracks_true") or (0,) * len(ids)
    given = a.get("nodes_values_as_tensor")
    split = np.array(a.get("nodes_values", ()) if given is None else given, np.float64).reshape(-1)
    if len(split) != len(ids) or len(missing) != len(ids) or len(roots) == 0:
        raise c.fail("its lists of nodes have different lengths")
    feature = np.array(a["nodes_featureids"], np.int64)
    trees = Trees(feature, split, mode, true, false, np.array(missing, bool), roots)
    return trees, number


def weights_of(c: Call, number: dict, trees, nodes, targets, weights, count: int) -> np.ndarray:
    """[nodes, targets] from parallel lists."""
    if not len(trees) == len(nodes) == len(targets) == len(weights):
        raise c.fail("its lists of weights have different lengths")
    found = np.zeros((len(number), count), np.float64)
    for tree, node, target, w in zip(trees, nodes, targets, weights):
        if (tree, node) not in number or not 0 <= target < count:
            raise c.fail(f"a weight belongs to node {node} of tree {tree}, target {target}")
        found[number[tree, node], target] += w
    return found


def ensemble(c: Call, x: Node, trees: Trees, weights: np.ndarray, how: str = "SUM") -> Node:
    """[rows, targets]: the weights of the leaves, taken together."""
    x = x if x.dtype.is_float else ops.cast(x, dtype=f32)
    if x.rank != 2:
        raise c.fail(f"the input is {x.type}, not [rows, features]")
    at = leaves_of(c, x, trees)
    found = ops.gather(constant(weights.astype(x.dtype.numpy)), at, axis=0)
    reductions = {"SUM": ops.reduce_sum, "AVERAGE": ops.reduce_mean, "MIN": ops.reduce_min,
                  "MAX": ops.reduce_max}  # fmt: skip
    if how not in reductions:
        raise c.fail(f"aggregate_function is {how!r}")
    return reductions[how](found, axes=(1,))


def transformed(c: Call, y: Node, how: str) -> Node:
    if how == "NONE":
        return y
    if how == "LOGISTIC":
        return ops.sigmoid(y)
    if how == "SOFTMAX":
        return ops.softmax(y, axis=-1)
    raise c.fail(f"post_transform {how!r} is not supported")


def based(y: Node, c: Call, base) -> Node:
    if base is None or not len(base):
        return y
    return ops.add(y, constant(np.asarray(base, y.dtype.numpy)))


@converter("TreeEnsembleRegressor", domain=DOMAIN)
def tree_ensemble_regressor(
    c: Call, x: Node, *, aggregate_function: str = "SUM", base_values: Floats = (),
    n_targets: int = 1, post_transform: str = "NONE", target_ids: Ints, target_nodeids: Ints,
    target_treeids: Ints, target_weights: Floats = (), target_weights_as_tensor: Array = None,
    base_values_as_tensor: Array = None, **nodes,
) -> Node:  # fmt: skip
    trees, number = classic_trees(c, nodes)
    given = target_weights if target_weights_as_tensor is None else target_weights_as_tensor
    if not 0 < n_targets <= 1 << 20:
        raise c.fail(f"n_targets is {n_targets}")
    weights = weights_of(c, number, target_treeids, target_nodeids, target_ids, given, n_targets)
    y = ensemble(c, x, trees, weights, aggregate_function)
    base = base_values if base_values_as_tensor is None else base_values_as_tensor
    return ops.cast(transformed(c, based(y, c, base), post_transform), dtype=f32)


@converter("TreeEnsembleClassifier", domain=DOMAIN)
def tree_ensemble_classifier(
    c: Call, x: Node, *, base_values: Floats = (), class_ids: Ints, class_nodeids: Ints,
    class_treeids: Ints, class_weights: Floats = (), class_weights_as_tensor: Array = None,
    base_values_as_tensor: Array = None, classlabels_int64s: Ints = (),
    classlabels_strings: Strings = (), post_transform: str = "NONE", **nodes,
) -> tuple:  # fmt: skip
    if classlabels_strings or not classlabels_int64s:
        raise c.fail("class labels are strings", help="use integer labels")
    trees, number = classic_trees(c, nodes)
    given = class_weights if class_weights_as_tensor is None else class_weights_as_tensor
    count = len(classlabels_int64s)
    weights = weights_of(c, number, class_treeids, class_nodeids, class_ids, given, count)
    base = base_values if base_values_as_tensor is None else base_values_as_tensor
    columns = sorted(set(class_ids))
    if count == 2 and len(columns) == 1:
        return two_classes(c, x, trees, weights[:, columns], base, given, classlabels_int64s,
                           post_transform)  # fmt: skip
    scores = based(ensemble(c, x, trees, weights), c, base)
    labels = constant(np.array(classlabels_int64s, np.int64))
    best = ops.argmax(scores, axis=1, keepdims=False, last=False)
    scores = ops.cast(transformed(c, scores, post_transform), dtype=f32)
    return ops.gather(labels, best, axis=0), scores


def two_classes(c: Call, x, trees, weights, base, given, labels, post_transform: str) -> tuple:
    """Two classes with a score for one of them: of weights that are never negative a probability,
    else a margin around 0."""
    score = ensemble(c, x, trees, weights)
    base = np.asarray(base)
    score = based(score, c, base[-1:])
    probability = bool(np.all(np.asarray(given) >= 0)) and post_transform == "NONE"
    positive = ops.greater(score, 0.5 if probability else 0.0)
    other = ops.sub(ops.full(shape=score.shape, value=1.0 if probability else 0.0,
                             dtype=score.dtype), score)  # fmt: skip
    both = transformed(c, ops.concat(other, score, axis=1), post_transform)
    chosen = ops.cast(ops.reshape(positive, shape=(score.shape[0],)), dtype=i64)
    named = ops.gather(constant(np.array(labels, np.int64)), chosen, axis=0)
    return named, ops.cast(both, dtype=f32)


AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@converter("TreeEnsemble", domain=DOMAIN, since=5)
def tree_ensemble(
    c: Call, x: Node, *, aggregate_function: int = 1, leaf_targetids: Ints, leaf_weights: Array,
    membership_values: Array = None, n_targets: int, nodes_falseleafs: Ints,
    nodes_falsenodeids: Ints, nodes_featureids: Ints, nodes_hitrates: Array = None,
    nodes_missing_value_tracks_true: Ints = (), nodes_modes: Array, nodes_splits: Array,
    nodes_trueleafs: Ints, nodes_truenodeids: Ints, post_transform: int = 0, tree_roots: Ints,
) -> Node:  # fmt: skip
    """Leaves have numbers of their own; here they follow the inner nodes."""
    inner, leaves = len(nodes_featureids), len(leaf_targetids)
    modes = nodes_modes.reshape(-1)
    lists = (nodes_falseleafs, nodes_falsenodeids, modes, nodes_splits.reshape(-1),
             nodes_trueleafs, nodes_truenodeids)  # fmt: skip
    if any(len(v) != inner for v in lists) or leaf_weights.size != leaves or not leaves:
        raise c.fail("its lists of nodes or leaves have different lengths")
    if modes.size and modes.max() >= len(MODES):
        raise c.fail("set membership (BRANCH_MEMBER) is not supported")
    if not 0 <= aggregate_function < 4 or not 0 <= post_transform < 5:
        raise c.fail("its aggregate_function or post_transform is unknown")
    own = np.arange(inner, inner + leaves)

    def children(ids: Ints, leaf: Ints) -> np.ndarray:
        found = np.array(ids, np.int64) + inner * (np.array(leaf, np.int64) != 0)
        return np.concatenate([found, own])

    true = children(nodes_truenodeids, nodes_trueleafs)
    false = children(nodes_falsenodeids, nodes_falseleafs)
    roots = np.array(tree_roots, np.int64)
    total = inner + leaves
    if any(v.size and not 0 <= v.min() <= v.max() < total for v in (true, false, roots)):
        raise c.fail("a child or a root does not exist")
    tracks = nodes_missing_value_tracks_true or (0,) * inner
    rest = np.zeros(leaves)
    trees = Trees(
        np.concatenate([np.array(nodes_featureids, np.int64), rest.astype(np.int64)]),
        np.concatenate([nodes_splits.reshape(-1).astype(np.float64), rest]),
        np.array([*(MODES[m] for m in modes), *[LEAF] * leaves]), true, false,
        np.concatenate([np.array(tracks, bool), rest.astype(bool)]), roots,
    )  # fmt: skip
    targets = np.array(leaf_targetids, np.int64)
    if not 0 < n_targets <= 1 << 20 or targets.min() < 0 or targets.max() >= n_targets:
        raise c.fail("a leaf's target does not exist")
    weights = np.zeros((total, n_targets))
    weights[own, targets] = leaf_weights.reshape(-1)
    y = ensemble(c, x, trees, weights, AGGREGATES[aggregate_function])
    return transformed(c, y, TRANSFORMS[post_transform])


# ---- linear models and features -----------------------------------------------------------------


def linear(c: Call, x: Node, coefficients: Floats, intercepts: Floats, count: int) -> Node:
    if x.rank != 2 or not isinstance(x.shape[1], int) or x.shape[1] * count != len(coefficients):
        raise c.fail(f"{len(coefficients)} coefficients for {x.type} and {count} targets")
    w = np.array(coefficients, np.float32).reshape(count, -1)
    bias = constant(np.array(intercepts, np.float32)) if intercepts else None
    if intercepts and len(intercepts) != count:
        raise c.fail(f"{len(intercepts)} intercepts for {count} targets")
    return ops.linear(ops.cast(x, dtype=f32), constant(w), bias)


@converter("LinearRegressor", domain=DOMAIN)
def linear_regressor(
    c: Call, x: Node, *, coefficients: Floats, intercepts: Floats = (),
    post_transform: str = "NONE", targets: int = 1,
) -> Node:  # fmt: skip
    return transformed(c, linear(c, x, coefficients, intercepts, targets), post_transform)


@converter("LinearClassifier", domain=DOMAIN)
def linear_classifier(
    c: Call, x: Node, *, classlabels_ints: Ints = (), classlabels_strings: Strings = (),
    coefficients: Floats, intercepts: Floats = (), multi_class: int = 0,
    post_transform: str = "NONE",
) -> tuple:  # fmt: skip
    if classlabels_strings or not classlabels_ints:
        raise c.fail("class labels are strings", help="use integer labels")
    count = len(classlabels_ints)
    width = x.shape[1] if x.rank == 2 and isinstance(x.shape[1], int) else 0
    if not width or len(coefficients) != width * count:
        raise c.fail(f"{len(coefficients)} coefficients for {x.type} and {count} classes")
    scores = linear(c, x, coefficients, intercepts, count)
    best = ops.argmax(scores, axis=1, keepdims=False, last=False)
    labels = constant(np.array(classlabels_ints, np.int64))
    return ops.gather(labels, best, axis=0), transformed(c, scores, post_transform)


@converter("ArrayFeatureExtractor", domain=DOMAIN)
def array_feature_extractor(c: Call, x: Node, at: Node) -> Node:
    if x.rank == 0:
        raise c.fail("the input is a scalar")
    y = ops.gather(x, ops.reshape(at, shape=(at.type.size,)), axis=x.rank - 1)
    return ops.reshape(y, shape=(1, *y.shape)) if x.rank == 1 else y


@converter("Binarizer", domain=DOMAIN)
def binarizer(c: Call, x: Node, *, threshold: float = 0.0) -> Node:
    return ops.cast(ops.greater(x, threshold), dtype=x.dtype)


@converter("Scaler", domain=DOMAIN)
def scaler(c: Call, x: Node, *, offset: Floats = (0.0,), scale: Floats = (1.0,)) -> Node:
    row = lambda v: constant(np.array(v if len(v) > 1 else v[0], np.float32))
    if not offset or not scale:
        raise c.fail("offset or scale is empty")
    return ops.mul(ops.sub(ops.cast(x, dtype=f32), row(offset)), row(scale))


@converter("Normalizer", domain=DOMAIN)
def normalizer(c: Call, x: Node, *, norm: str = "MAX") -> Node:
    x = ops.cast(x, dtype=f32)
    last = (x.rank - 1,)
    if norm == "MAX":
        size = ops.reduce_max(ops.abs(x), axes=last, keepdims=True)
    elif norm in ("L1", "L2"):
        size = (ops.reduce_l1 if norm == "L1" else ops.reduce_l2)(x, axes=last, keepdims=True)
    else:
        raise c.fail(f"norm is {norm!r}")
    return ops.select(ops.equal(size, 0.0), x, ops.div(x, size))


@converter("Imputer", domain=DOMAIN)
def imputer(
    c: Call, x: Node, *, imputed_value_floats: Floats = (), imputed_value_int64s: Ints = (),
    replaced_value_float: float = 0.0, replaced_value_int64: int = 0,
) -> Node:  # fmt: skip
    values = imputed_value_floats if x.dtype.is_float else imputed_value_int64s
    if not values:
        raise c.fail(f"it has no values for {x.dtype}")
    row = constant(np.array(values if len(values) > 1 else values[0], x.dtype.numpy))
    if x.dtype.is_float and np.isnan(replaced_value_float):
        return ops.select(ops.is_nan(x), row, x)
    sought = replaced_value_float if x.dtype.is_float else replaced_value_int64
    return ops.select(ops.equal(x, sought), row, x)


@converter("FeatureVectorizer", domain=DOMAIN)
def feature_vectorizer(c: Call, *xs: Node, inputdimensions: Ints = ()) -> Node:
    if not xs or any(x.rank != 2 for x in xs):
        raise c.fail("its inputs are not [rows, features]")
    wide = [ops.cast(x, dtype=f32) for x in xs]
    return wide[0] if len(wide) == 1 else ops.concat(*wide, axis=1)


@converter("OneHotEncoder", domain=DOMAIN)
def one_hot_encoder(
    c: Call, x: Node, *, cats_int64s: Ints = (), cats_strings: Strings = (), zeros: int = 1
) -> Node:
    if cats_strings or not cats_int64s:
        raise c.fail("categories are strings", help="use integer categories")
    x = ops.reshape(ops.cast(x, dtype=i64), shape=(*x.shape, 1))
    return ops.cast(ops.equal(x, constant(np.array(cats_int64s, np.int64))), dtype=f32)
