"""Canonical forms: what disappears, what moves, and that no bit of a result changes."""

import numpy as np
import pytest

from tensorwright.ir.dtype import dtype
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant
from tensorwright.ir.type import tensor
from tensorwright.ops.control import item, make_tuple
from tensorwright.ops.elementwise import add, cast, exp, logical_not, mul, neg, select
from tensorwright.ops.index import dynamic_slice, gather
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import (
    broadcast_to,
    concat,
    flip,
    pad,
    reshape,
    slice,
    slice_axis,
    split,
    transpose,
)  # fmt: skip
from tensorwright.ops.positions import full, size
from tensorwright.ops.reduce import reduce_max, reduce_sum
from tensorwright.passes.canonicalize import RULES, canonicalize, is_lossless
from tensorwright.passes.movement_chain import divide
from tensorwright.passes.pointwise import POINTWISE
from tests.passes.equivalence import check_pass, module, x_of


def check(result, *params, ops, **how):
    return check_pass(canonicalize, module(result, *params), ops, special=True, tol=0, **how)


def c(values, d="f32"):
    return constant(np.asarray(values, dtype(d).numpy))


# ---- chains ------------------------------------------------------------------------------------


def test_identities():
    x = x_of(2, 3)
    for y in (reshape(x, shape=(2, 3)), transpose(x, perm=(0, 1)), slice_axis(x, 0, 0, 2),
              pad(x, low=(0, 0), high=(0, 0)), cast(x, dtype="f32"), concat(x, axis=1),
              broadcast_to(x, shape=(2, 3)), flip(x, axes=()), neg(neg(x)),
              reduce_sum(x, axes=())):  # fmt: skip
        check(exp(y), x, ops=["exp"])


def test_unchanged_is_the_same_object():
    x = x_of(2, 3)
    m = module(reshape(transpose(x, perm=(1, 0)), shape=(6,)), x)
    assert canonicalize(m) is m


@pytest.mark.parametrize(
    ("shape", "steps", "ops"),
    [
        ((2, 3, 4), [(2, 12), (24,)], ["reshape"]),
        ((2, 3, 4), [(2, 12), (2, 3, 4)], []),
        ((2, 3, 4), ["021", "201"], ["transpose"]),
        ((2, 3, 4), ["021", "021"], []),
        ((2, 3, 1, 4), ["0132"], ["reshape"]),
        ((2, 1, 3, 4), ["1023", (6, 4)], ["reshape"]),
        ((2, 3, 4, 5), ["0213", (2, 12, 5), "021"], ["transpose", "reshape"]),
        ((2, 3, 4, 5), ["0231", (2, 20, 3), "021"], ["reshape"]),
        ((2, 8, 4, 6), ["0231", "0312", (2, 8, 24), "021"], ["reshape", "transpose"]),
        ((2, 6, 4), [(2, 2, 3, 4), "0213", (2, 6, 4), (2, 3, 2, 4), "0213", (2, 6, 4)], []),
        ((4, 6), [(8, 3), "10"], ["reshape", "transpose"]),
        ((4, 6), [(8, 3), (4, 6), "10"], ["transpose"]),
        ((6, 4), ["10", (2, 2, 6), (4, 6), "10"], []),
        ((0, 4), ["10", (2, 2, 0)], ["transpose", "reshape"]),
    ],
)
def test_chains(shape, steps, ops):
    x = y = x_of(*shape)
    for s in steps:
        y = transpose(y, perm=tuple(map(int, s))) if isinstance(s, str) else reshape(y, shape=s)
    check(y, x, ops=ops)


def test_channel_shuffle_between_layouts():
    """Four operators around a grouped shuffle become three with one transpose."""
    x = x_of(2, 5, 5, 6)
    y = reshape(transpose(x, perm=(0, 3, 1, 2)), shape=(2, 2, 3, 5, 5))
    y = reshape(transpose(y, perm=(0, 2, 1, 3, 4)), shape=(2, 6, 5, 5))
    check(transpose(y, perm=(0, 2, 3, 1)), x, ops=["reshape", "transpose", "reshape"])


def test_symbolic_chain():
    n = var("n", min=1)
    x = x_of(n, 6)
    y = reshape(transpose(reshape(x, shape=(n, 2, 3)), perm=(1, 0, 2)), shape=(2, n * 3))
    y = reshape(transpose(reshape(y, shape=(2, n, 3)), perm=(1, 0, 2)), shape=(n * 6,))
    check(y, x, ops=["reshape"], sizes={"n": 3})


def test_symbolic_sums():
    n, k = var("n", min=1), var("k", min=1)
    x = x_of(2, n + 1, 3)
    y = reshape(transpose(reshape(x, shape=(2 * n + 2, 3)), perm=(1, 0)), shape=(3, 2, n + 1))
    check(transpose(y, perm=(1, 2, 0)), x, ops=[], sizes={"n": 3})
    assert divide(k * (n + 1) * 6, n + 1) is k * 6
    assert divide((n + k) * (n - 1), n + k) is n - 1
    assert divide(n + 1, n) is None and divide(n * 3, 2) is None and divide(n, n) == 1


def test_symbolic_dimension_cut_by_a_constant():
    k = var("k", min=1)
    x = x_of(4 * k, 3)
    y = transpose(reshape(x, shape=(k, 4, 3)), perm=(0, 2, 1))
    y = reshape(transpose(y, perm=(0, 2, 1)), shape=(k * 2, 2, 3))
    check(y, x, ops=["reshape"])


# ---- slices ------------------------------------------------------------------------------------


def test_slices():
    x, y = x_of(9, 4), x_of(3, 4, name="y")
    both = concat(x, y, axis=0)
    inner = slice_axis(x, 0, 2, 9, 2)
    check(slice_axis(inner, 0, 1, 4, 2), x, ops=["slice"])
    check(slice_axis(both, 0, 9, 12), x, y, ops=[])
    check(slice_axis(both, 0, 10, 11), x, y, ops=["slice"])
    check(slice_axis(both, 0, 8, 10), x, y, ops=["concat", "slice"])
    check(slice_axis(concat(x, y, x, axis=0), 0, 10, 14), x, y, ops=["concat", "slice"])
    padded = pad(x, low=(1, 0), high=(2, 3))
    check(slice(padded, starts=(1, 0), stops=(10, 4)), x, ops=[])
    check(slice(padded, starts=(2, 1), stops=(4, 3)), x, ops=["slice"])
    check(slice(padded, starts=(0, 1), stops=(4, 3)), x, ops=["pad", "slice"])
    wide = broadcast_to(y, shape=(5, 3, 4))
    check(slice(wide, starts=(1, 1, 0), stops=(3, 3, 4)), y, ops=["slice", "broadcast_to"])
    check(slice_axis(flip(x, axes=(0,)), 0, 8, 2, -2), x, ops=["flip", "slice"])


def test_slices_of_symbolic_extent():
    n = var("n", min=2)
    x, y = x_of(n, 4), x_of(3, 4, name="y")
    both = concat(x, y, axis=0)
    check(slice_axis(both, 0, n, n + 3), x, y, ops=[])
    check(slice_axis(both, 0, 0, n), x, y, ops=[])
    check(slice_axis(slice_axis(x, 0, 1, n), 0, 0, n - 1), x, ops=["slice"])


def test_concat():
    x, y, e = x_of(2, 3), x_of(2, 3, name="y"), x_of(0, 3, name="e")
    check(concat(concat(x, y, axis=0), e, x, axis=-2), x, y, e, ops=["concat"])
    a, b, d = split(x_of(2, 6, name="z"), (1, 2, 3), axis=1)
    z = a.args[0]
    check(concat(a, b, d, axis=1), z, ops=[])
    check(concat(b, d, y, axis=1), z, y, ops=["slice", "concat"])
    check(concat(b, a, axis=1), z, ops=["slice", "slice", "concat"])
    check(concat(e, e, axis=0), e, ops=[])


def test_pad():
    x = x_of(4, 3)
    check(pad(pad(x, low=(1, 0), high=(0, 2)), low=(1, 1), high=(0, 0)), x, ops=["pad"])
    check(pad(pad(x, low=(1, 0), high=(0, 2), value=1.0), low=(1, 1), high=(0, 0)), x,
          ops=["pad", "pad"])  # fmt: skip
    check(pad(x, low=(-1, 0), high=(-2, 0)), x, ops=["slice"])
    check(pad(pad(x, low=(1, 1), high=(1, 1)), low=(-1, -1), high=(-1, -1)), x, ops=[])
    check(pad(x, low=(1, 0), high=(1, 0), mode="edge"), x, ops=["pad"])


# ---- positions ---------------------------------------------------------------------------------


def test_gather_at_constants():
    x = x_of(5, 3)
    check(gather(x, c(2, "i64"), axis=0), x, ops=["slice", "reshape"])
    check(gather(x, c(-1, "i64"), axis=1), x, ops=["slice", "reshape"])
    check(gather(x, c(9, "i64"), axis=0), x, ops=["slice", "reshape"])
    check(gather(x, c([0, 2, 4], "i32"), axis=0), x, ops=["slice"])
    check(gather(x, c([0, 1, 2], "i32"), axis=-1), x, ops=[])
    check(gather(x, c([0, 3, 4], "i64"), axis=0), x, ops=["gather"])
    check(gather(x, c([2, 1, 0], "i64"), axis=0), x, ops=["gather"])


def test_gather_of_symbolic_extent():
    n = var("n", min=1)
    x = x_of(n, 3)
    check(gather(x, c(-1, "i64"), axis=0), x, ops=["slice", "reshape"])
    check(gather(x, c(0, "i64"), axis=0), x, ops=["slice", "reshape"])
    check(gather(x, c(1, "i64"), axis=0), x, ops=["gather"])


def test_windows_at_known_positions():
    n = var("n", min=4)
    x = x_of(n, 3)
    check(dynamic_slice(x, c([1, 2], "i64"), sizes=(2, 1)), x, ops=["slice"], sizes={"n": 5})
    check(dynamic_slice(x, size(dims=(n - 2, 0)), sizes=(2, 3)), x, ops=["slice"])
    check(dynamic_slice(x, c([9, 0], "i64"), sizes=(2, 3)), x, ops=["dynamic_slice"])


# ---- repeated operands -------------------------------------------------------------------------


def test_broadcast_operands():
    x, v = x_of(4, 3), x_of(3, name="v")
    wide = broadcast_to(v, shape=(4, 3))
    check(add(x, wide), x, v, ops=["add"])
    check(exp(wide), v, ops=["exp", "broadcast_to"])
    check(add(x, full(shape=(4, 3), value=2.5, dtype="f32")), x, ops=["add"])
    check(add(x, c(np.ones((4, 3)))), x, ops=["add"])


def test_both_operands_repeat():
    v, s = x_of(3, name="v"), x_of(1, 1, name="s")
    y = mul(broadcast_to(v, shape=(4, 3)), broadcast_to(s, shape=(4, 3)))
    check(y, v, s, ops=["mul", "broadcast_to"])


def test_constants_shrink_to_what_varies():
    x = x_of(2, 4, 3)
    m = check(add(x, c(np.tile(np.arange(3), (2, 4, 1)))), x, ops=["add"])
    assert m.main.results[0].args[1].shape == (3,)
    m = check(add(x, c(np.repeat(np.arange(4.0)[:, None], 3, 1))), x, ops=["add"])
    assert m.main.results[0].args[1].shape == (4, 1)
    zeros = np.zeros((4, 3), np.float32)
    zeros[1] = -0.0
    m = check(add(x, c(zeros)), x, ops=["add"])
    assert m.main.results[0].args[1].shape == (4, 1)


def test_a_constant_gives_the_shape():
    x = x_of(3)
    y = add(x, c(np.zeros((4, 3))))
    check(y, x, ops=["add", "broadcast_to"])
    check(mul(x, c([[[2.0]]])), x, ops=["mul", "reshape"])


def test_movement_of_broadcast():
    x = x_of(2, 1, 3)
    wide = broadcast_to(x, shape=(5, 2, 4, 3))
    check(transpose(wide, perm=(0, 2, 1, 3)), x, ops=["reshape", "broadcast_to"])
    heads = reshape(wide, shape=(10, 4, 3))
    check(transpose(heads, perm=(0, 2, 1)), x, ops=["reshape", "broadcast_to", "reshape"])
    check(broadcast_to(reshape(x, shape=(1, 1, 2, 1, 3)), shape=(5, 6, 2, 4, 3)), x,
          ops=["broadcast_to"])  # fmt: skip
    check(broadcast_to(wide, shape=(7, 5, 2, 4, 3)), x, ops=["broadcast_to"])


# ---- casts, choices, reductions ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "to", "ops"),
    [
        ("f16", "f32", "f16", []),
        ("f32", "f64", "f16", ["cast"]),
        ("f32", "f16", "f32", ["cast", "cast"]),
        ("i8", "i32", "f32", ["cast"]),
        ("u8", "i8", "i32", ["cast", "cast"]),
        ("bool", "i64", "f32", ["cast"]),
        ("f32", "i32", "f32", ["cast", "cast"]),
    ],
)
def test_cast_of_cast(a, b, to, ops):
    x = x_of(7, d=a)
    check(cast(cast(x, dtype=b), dtype=to), x, ops=ops)


@pytest.mark.parametrize("a", ["f8e4m3fn", "f8e5m2", "f8e8m0", "i4", "u4", "bool", "f16", "bf16"])
@pytest.mark.parametrize("b", ["i8", "i32", "f16", "bf16", "f32", "f64"])
def test_lossless_casts_are(a, b):
    a, b = dtype(a), dtype(b)
    if not is_lossless(a, b):
        return
    bits = np.arange(256 if a.numpy.itemsize == 1 else 65536).astype(f"u{a.numpy.itemsize}")
    if a.name in ("i4", "u4", "bool"):
        values = np.arange(int(a.min), int(a.max) + 1).astype(a.numpy)
    else:
        values = bits.view(a.numpy)
    with np.errstate(all="ignore"):
        back = values.astype(b.numpy).astype(a.numpy)
        same = (back == values) | (values != values)
    assert same.all()


def test_choices():
    x, y, b = x_of(2, 3), x_of(2, 3, name="y"), x_of(2, 3, d="bool", name="b")
    check(select(c(True, "bool"), x, y), x, y, ops=[])
    check(select(c([False] * 3, "bool"), x, y), x, y, ops=[])
    check(select(logical_not(b), x, y), b, x, y, ops=["select"])
    check(select(b, x, x), b, x, ops=[])
    check(select(c([True, False, True], "bool"), x, y), x, y, ops=["select"])
    check(item(make_tuple(x, y), index=1), x, y, ops=[])


def test_reductions_of_ones():
    x = x_of(2, 1, 3, 1)
    check(reduce_max(x, axes=(1, 3)), x, ops=["reshape"])
    check(reduce_max(x, axes=(1,), keepdims=True), x, ops=[])
    check(reduce_max(x, axes=(0, 1)), x, ops=["reduce_max"])


def test_flips():
    x = x_of(2, 1, 3)
    check(flip(flip(x, axes=(0, 2)), axes=(-1,)), x, ops=["flip"])
    check(flip(flip(x, axes=(0,)), axes=(0,)), x, ops=[])
    check(flip(x, axes=(1,)), x, ops=[])


# ---- the tables --------------------------------------------------------------------------------


def test_pointwise_operators_read_only_their_own_element():
    """By their loop nests: every load is at the indices of the store, or at 0 where it repeats."""
    from tensorwright.ir.expr import Buffer, walk
    from tensorwright.ir.loop import For, Store

    for op in POINTWISE:
        d = (op.dtypes or (dtype("bool"),))[0]
        d = dtype("f32") if op.name == "bitcast" else d
        types = [dtype("bool"), dtype("f32"), dtype("f32")] if op.name == "select" else [d] * 3
        ins = [Buffer(f"x{k}", types[k], (3, 5)) for k in range(len(op.params))]
        attrs = {
            **op.defaults,
            **({"dtype": dtype("f32")} if op.name in ("cast", "bitcast") else {}),
        }
        out = op.infer(*(tensor(b.dtype, *b.shape) for b in ins), **attrs)
        s = op.lower(Buffer("y", out.dtype, out.shape), *ins, **attrs)
        while isinstance(s, For):
            s = s.body
        assert isinstance(s, Store), op.name
        loads = [e for e in walk(s.value) if e.op == "load"]
        assert loads and all(e.args == s.indices for e in loads), op.name
        free = {e for e in walk(s.value) if e.op == "sym"}
        assert free <= set(s.indices), op.name


def test_rules_have_names():
    assert all(r.name and r.name == r.name.lower() for r in RULES)


def test_contraction_of_transposes():
    x, w = x_of(5, 3), x_of(4, 5, name="w")
    y = dot_general(transpose(x, perm=(1, 0)), transpose(w, perm=(1, 0)), contract=((1,), (0,)))
    check_pass(canonicalize, module(y, x, w), ["dot_general"])
    x, w = x_of(2, 5, 3, 4), x_of(2, 3, 6, 4, name="w")
    heads = transpose(x, perm=(0, 2, 1, 3))
    y = dot_general(heads, transpose(w, perm=(0, 1, 3, 2)), batch=((0, 1), (0, 1)),
                    contract=((3,), (2,)))  # fmt: skip
    check_pass(canonicalize, module(y, x, w), ["dot_general"])
    y = dot_general(transpose(x, perm=(3, 2, 1, 0)), w, contract=((0,), (3,)))
    check_pass(canonicalize, module(y, x, w), ["transpose", "dot_general"])
    x = x_of(3, 4)
    t = transpose(x, perm=(1, 0))
    check_pass(canonicalize, module(dot_general(t, t, contract=((1,), (1,))), x), ["dot_general"])


def test_positions_read_several_times_in_a_row():
    x = x_of(2, 3, 5)
    check(
        gather(x, c([0, 0, 1, 1, 2, 2], "i64"), axis=1),
        x,
        ops=["reshape", "broadcast_to", "reshape"],
    )
    check(gather(x, c([0, 1, 1, 2, 2, 2], "i64"), axis=1), x, ops=["gather"])
