"""Winograd's algorithm: where it is chosen, that it computes the convolution, and how exactly."""

from dataclasses import replace

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base import config, trace
from tensorwright.base.errors import CompileError
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant
from tensorwright.ir.printer import to_text
from tensorwright.ops.activations import gelu, relu
from tensorwright.ops.conv import conv_general
from tensorwright.ops.elementwise import add
from tensorwright.ops.movement import pad, transpose
from tensorwright.ops.winograd import ERROR, SAME, Along, name_of, transformed_weights, winograd
from tensorwright.passes.convolutions import shape_convolutions
from tensorwright.passes.simplify import clean
from tensorwright.passes.winograd import choose_algorithms, error_of, weights_rate
from tensorwright.schedule.records import Schedules
from tensorwright.schedule.rules import schedule
from tensorwright.schedule.space import ChoiceError, Choices
from tensorwright.schedule.transformed import read_transformed
from tensorwright.target.host import find
from tests.passes.equivalence import assert_equal_results, check_pass, module, op_names, x_of

RNG = np.random.default_rng(3)
TARGET = find("x86-64-avx512")


def weight(*shape):
    scale = np.sqrt(np.prod(shape[:-1]))
    return constant((RNG.standard_normal(shape) / scale).astype(np.float32), "w")


def last(x, w, **attrs):
    attrs = {"padding": ((1, 1), (1, 1))} | attrs
    return conv_general(x, w, layout="NLAST", **attrs)


def choose(m):
    return clean(choose_algorithms(m, TARGET))


def check(y, *params, ops=None, **how):
    return check_pass(choose, module(y, *params), ops, tol=2e-4, **how)


def decisions(y, *params, level=1):
    with trace.recording() as t:
        choose_algorithms(module(y, *params), replace(TARGET, fast_math=level))
    return [(d.verdict, d.reason) for d in t.decisions if d.kind == "winograd"]


@pytest.mark.parametrize("size", [(14, 14), (7, 7), (8, 13), (5, 6)])
@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 0), (2, 1))])
def test_windows_become_tiles(size, padding):
    x = x_of(2, *size, 64)
    check(last(x, weight(3, 3, 64, 48), padding=padding), x, ops=["pad", "winograd"])


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_groups_become_tiles(groups):
    x = x_of(2, 10, 13, 64)
    y = last(x, weight(3, 3, 64 // groups, 128), groups=groups)
    check(y, x, ops=["pad", "winograd"])


def test_what_needs_no_padding_gets_none():
    x = x_of(1, 26, 18, 64)
    check(last(x, weight(3, 3, 64, 64), padding=None), x, ops=["winograd"])


@pytest.mark.parametrize(
    ("shape", "window", "step"),
    [((14,), (3,), 1), ((21,), (5,), 1), ((37,), (5,), 2), ((30,), (7,), 1),
     ((41,), (7,), 2), ((14, 14), (1, 3), 1), ((15, 9), (3, 1), 1), ((17, 18), (5, 5), 1),
     ((17, 19), (5, 5), 2)],
)  # fmt: skip
def test_windows_along_one_dimension_and_larger_ones(shape, window, step):
    x = x_of(2, *shape, 64)
    padding = tuple((size // 2, size // 2) for size in window)
    y = last(x, weight(*window, 64, 48), padding=padding, strides=(step,) * len(shape))
    after = check(y, x).main
    assert "winograd" in [n.op.name for n in after.nodes()]


def test_sequences_by_steps_of_two():
    x = x_of(1, 81, 256)
    y = last(x, weight(3, 256, 512), padding=((0, 1),), strides=(2,))
    check(y, x, ops=["winograd"])
    assert decisions(y, x)[0][0] == "F(4,3)/2"


def test_larger_tiles_for_lower_demands():
    x = x_of(1, 24, 24, 64)
    y = last(x, weight(3, 3, 64, 64))
    assert decisions(y, x, level=1)[0][0] == "F(4,3)"
    assert decisions(y, x, level=2)[0][0] == "F(6,3)"
    assert decisions(y, x, level=0) == [("no", "fast_math is 0")]


def test_windows_whose_errors_are_too_large_say_so():
    x = x_of(1, 24, 24, 64)
    y = last(x, weight(7, 7, 64, 64), padding=((3, 3), (3, 3)))
    said = "none has rounding errors that fast_math = 1 accepts"
    assert decisions(y, x, level=1) == [("no", said)]
    assert decisions(y, x, level=2)[0][0] == "F(2,7)"


@pytest.mark.parametrize(("size", "name"), [(5, "F(2,3)"), (7, "F(4x2,3)"), (14, "F(4,3)")])
def test_small_results_take_small_tiles(size, name):
    x = x_of(1, size, size, 512)
    assert decisions(last(x, weight(3, 3, 512, 512)), x)[0][0] == name


@pytest.mark.parametrize(
    ("attrs", "window", "said"),
    [
        ({"strides": (2, 1)}, (3, 3, 64, 64), "moves"),
        ({"lhs_dilation": (1, 2)}, (3, 3, 64, 64), "is spread"),
        ({"dilation": (2, 2), "strides": (2, 2)}, (3, 3, 64, 64), "dilated and skips"),
        ({"groups": 16}, (3, 3, 4, 64), "4 channels of a group"),
        ({"groups": 8}, (3, 3, 8, 8), "1 channels of a group"),
        ({}, (3, 3, 64, 1), "1 channels"),
    ],
)
def test_why_not(attrs, window, said):
    x = x_of(1, 14, 14, window[2] * attrs.get("groups", 1))
    ((verdict, reason),) = decisions(last(x, weight(*window), **attrs), x)
    assert verdict == "no" and said in reason


def test_few_results_do_not_pay_for_more_weights():
    x = x_of(1, 3, 3, 512)
    ((verdict, reason),) = decisions(last(x, weight(3, 3, 512, 512)), x)
    assert verdict == "no" and "cycles" in reason


def test_sizes_that_vary():
    x = x_of(1, var("n", min=1), 14, 64)
    check(last(x, weight(3, 3, 64, 64)), x, ops=["pad", "winograd"])


FRAMES = {"padding": ((1, 1), (1, 1), (1, 1))}


@pytest.mark.parametrize(("depth", "attrs"), [
    (3, FRAMES), (3, FRAMES | {"strides": (2, 1, 1)}), (2, FRAMES | {"dilation": (2, 1, 1)}),
])  # fmt: skip
def test_windows_over_frames(depth, attrs):
    x = x_of(2, 5, 9, 14, 32)
    y = last(x, weight(depth, 3, 3, 32, 32), **attrs)
    after = check(y, x).main
    assert [n.op.name for n in after.nodes()].count("winograd") == 1


def test_single_frames_need_no_copy():
    x, padding = x_of(2, 5, 9, 14, 32), ((0, 0), (1, 1), (1, 1))
    ops = ["pad", "reshape", "winograd", "reshape"]
    check(last(x, weight(1, 3, 3, 32, 32), padding=padding), x, ops=ops)


def test_groups_over_frames_stay_direct():
    x = x_of(1, 4, 14, 14, 64)
    y = last(x, weight(3, 3, 3, 32, 64), groups=2, **FRAMES)
    assert decisions(y, x) == [("no", "its groups see several frames")]


@pytest.mark.parametrize("threads", [1, 2])
def test_frames_compiled(threads):
    """Several frames of several examples, stored channels first: tiles of all in one loop."""
    x, b = x_of(2, 4, 9, 14, 24), weight(40)
    y = transpose(relu(add(last(x, weight(3, 3, 3, 24, 40), **FRAMES), b)), perm=(0, 4, 1, 2, 3))
    value = RNG.standard_normal((2, 4, 9, 14, 24)).astype(np.float32)
    check_compiled(y, x, value, 1, threads)


def test_tiles_and_products_meet():
    """Where the picture of a residual network shrinks, the shortcut is a matrix product."""
    x = x_of(1, 16, 16, 32)
    inside = last(relu(last(x, weight(3, 3, 32, 64), strides=(2, 2))), weight(3, 3, 64, 64))
    shortcut = last(x, weight(1, 1, 32, 64), strides=(2, 2), padding=((0, 0), (0, 0)))
    y = relu(add(inside, shortcut))
    after = shape_convolutions(choose(module(y, x)))
    assert {"winograd", "dot_general"} <= set(op_names(after))
    assert_equal_results(module(y, x), after, tol=1e-4)


def test_unknown_weights_stay_direct():
    x, w = x_of(1, 14, 14, 64), x_of(3, 3, 64, 64, name="v")
    check(last(x, w), x, w, ops=["conv_general"])


def test_other_windows_are_not_spoken_of():
    x = x_of(1, 14, 14, 64)
    for window in ((1, 1), (4, 4), (3, 5), (9, 1)):
        assert decisions(last(x, weight(*window, 64, 64)), x) == []


# ---- compiled ----------------------------------------------------------------------------------


def compiled(y, x, value, level, **how):
    program = tw.compile(module(y, x), fast_math=level, **how)
    return program, np.asarray(program(value))


def error(found, exact):
    return np.abs(found - exact).max() / np.abs(exact).max()


def check_compiled(y, x, value, level, threads):
    """The program, which multiplies transformed tiles and gives what direct convolution gives."""
    program, found = compiled(y, x, value, level, threads=threads)
    schedules = [s for k in program.lowered.kernels.values() for s in k.schedule]
    assert any("transformed" in s for s in schedules), schedules
    assert all("as defined" not in s for s in schedules), schedules
    _, direct = compiled(y, x, value, 0, threads=threads)
    assert error(found, direct.astype(np.float64)) < (5e-6 if level == 1 else 5e-5)
    return program


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((1, 14, 14, 64), 64), ((2, 9, 11, 20), 40), ((1, 30, 17, 33), 50), ((1, 7, 7, 256), 256),
     ((3, 40, 40, 32), 32)],
)  # fmt: skip
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_with_everything_around(shape, outputs, level, threads):
    """Bias, residual, activation and the padding of what follows are computed at the tiles."""
    x = x_of(*shape)
    w, b = weight(3, 3, shape[3], outputs), weight(outputs)
    side = constant(RNG.standard_normal((*shape[:3], outputs)).astype(np.float32), "side")
    y = relu(add(add(last(relu(x), w), b), side))
    y = pad(y, low=(0, 1, 2, 0), high=(0, 0, 1, 0))
    value = RNG.standard_normal(shape).astype(np.float32)
    program = check_compiled(y, x, value, level, threads)
    assert not any(k.endswith("pad_2") for k in program.lowered.kernels)


@pytest.mark.parametrize(
    ("shape", "outputs", "groups"),
    [((1, 28, 28, 256), 256, 32), ((1, 14, 14, 512), 512, 32), ((2, 9, 11, 48), 96, 3),
     ((1, 16, 16, 40), 40, 5), ((1, 12, 16, 34), 52, 2)],
)  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
def test_groups_compiled(shape, outputs, groups, threads):
    """All groups in a block or some, groups narrower than a vector, and not as wide as vectors."""
    x = x_of(*shape)
    w, b = weight(3, 3, shape[3] // groups, outputs), weight(outputs)
    y = pad(relu(add(last(x, w, groups=groups), b)), low=(0, 1, 1, 0), high=(0, 1, 1, 0))
    value = RNG.standard_normal(shape).astype(np.float32)
    check_compiled(y, x, value, 1, threads)


@pytest.mark.parametrize("size, channels, cores, how", [
    (28, 128, 1, "columns by 32"),  # as fast as blocks of 25, which read the weights twice
    (56, 128, 2, "columns by 32"),
    (56, 64, 1, "blocks of 14"),  # weights and what passes stay in the L2 cache
    (14, 256, 1, "stage by stage"),  # a second block would wait for its weights
    (28, 256, 2, "columns by 64"),  # more than half of the L3 cache would be read again
    (14, 32, 2, "blocks of 8"),  # nothing comes from the other core's cache
])  # fmt: skip
def test_blocks(size, channels, cores, how):
    x = x_of(1, size, size, channels)
    target = find("x86-64-avx512-wide").with_cores(cores)
    lowered = run_pipeline(module(last(x, weight(3, 3, channels, channels)), x), target)
    told = [line for k in lowered.kernels.values() for line in k.schedule if "transformed" in line]
    assert len(told) == 1 and told[0].endswith(how), told


def test_blocks_stay_on_the_stack_of_a_task():
    x = x_of(1, 160, 160, 64)
    target = find("x86-64-avx512-wide")
    instead = {"schedule": lambda m, _: m}
    lowered = run_pipeline(module(last(x, weight(3, 3, 64, 64)), x), target, instead=instead)
    (k,) = (k for k in lowered.kernels.values() if read_transformed(k.body) is not None)
    choices = Choices()
    schedule(k, target, choices)
    each = 36 * (64 + 64) * 4
    assert max(choices.made["block"].values) * each <= 2 * target.caches[1]


@pytest.mark.parametrize("channels, tile, rate", [
    (16, "F(4,3)", "l2_rate"), (128, "F(4,3)", "l3_rate"), (512, "F(2,3)", "memory_rate"),
])  # fmt: skip
def test_few_weights_stay_in_a_cache(channels, tile, rate):
    x = x_of(1, 7, 7, channels)
    target = find("x86-64-avx512-wide")
    m = module(last(x, weight(3, 3, channels, channels)), x)
    assert weights_rate(m, target) == getattr(target, rate)
    with trace.recording() as t:
        choose_algorithms(m, target)
    assert [d.verdict for d in t.decisions if d.kind == "winograd"] == [tile]


def test_groups_as_torch_computes_them():
    import torch

    x = x_of(1, 14, 14, 64)
    w = weight(3, 3, 16, 64)
    value = RNG.standard_normal(x.shape).astype(np.float32)
    _, found = compiled(last(x, w, groups=4), x, value, 1)
    with torch.no_grad():
        exact = torch.nn.functional.conv2d(
            torch.tensor(value).permute(0, 3, 1, 2).double(),
            torch.tensor(w.attrs["value"]).permute(3, 2, 0, 1).double(), padding=1, groups=4,
        )  # fmt: skip
    assert error(found, exact.permute(0, 2, 3, 1).numpy()) < 5e-6


@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_for_all_sizes(threads):
    """One program: fewer tiles than a block, whole and cut tiles, several images."""
    b, h, w = var("b", min=1), var("h", min=1), var("w", min=1)
    x = x_of(b, h, w, 48)
    y = last(relu(last(x, weight(3, 3, 48, 80))), weight(3, 3, 16, 80), groups=5)
    y = pad(relu(y), low=(0, 1, 1, 0), high=(0, 1, 1, 0))
    programs = [tw.compile(module(y, x), fast_math=k, threads=threads) for k in (1, 0)]
    schedules = [s for k in programs[0].lowered.kernels.values() for s in k.schedule]
    assert sum("transformed: " in s for s in schedules) == 2, schedules
    assert all("as defined" not in s for s in schedules), schedules
    for shape in ((1, 1, 1), (2, 3, 4), (1, 8, 12), (3, 17, 6), (1, 30, 33)):
        value = RNG.standard_normal((*shape, 48)).astype(np.float32)
        found, direct = (np.asarray(p(value)) for p in programs)
        assert error(found, direct.astype(np.float64)) < 5e-6


@pytest.mark.parametrize("target", ["x86-64-avx2", "x86-64-sse4.2"])
def test_other_targets(target):
    x = x_of(1, 14, 14, 24)
    y = relu(last(x, weight(3, 3, 24, 40)))
    value = RNG.standard_normal(x.shape).astype(np.float32)
    _, found = compiled(y, x, value, 1, target=target)
    _, direct = compiled(y, x, value, 0, target=target)
    assert error(found, direct.astype(np.float64)) < 5e-6


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("a", ERROR, ids=name_of)
def test_errors_stay_what_the_choice_assumes(a, dimensions):
    rms, expected = error_on_tiles([a] * dimensions), ERROR[a][dimensions - 1]
    assert expected / 4 < rms < 1.5 * expected


@pytest.mark.parametrize(
    "both",
    [(Along(4, 3), Along(2, 3)), (Along(2, 3), Along(6, 3)), (Along(4, 3, 2), Along(2, 3, 2)),
     (Along(2, 5), Along(4, 5))],
)  # fmt: skip
def test_errors_of_tiles_that_are_not_square_lie_between_those_of_both(both):
    few, many = sorted(ERROR[a][1] for a in both)
    assert few / 4 < error_on_tiles(both) < 1.5 * many
    assert error_of(both) == many


def error_on_tiles(both):
    """Root mean square error over that of the results."""
    dimensions, size = len(both), tuple(3 * a.tile for a in both)
    w = RNG.standard_normal((*(a.window for a in both), 64, 64)).astype(np.float32)
    x = RNG.standard_normal((2, *(f.padded(d) for f, d in zip(both, size)), 64)).astype(np.float32)
    exact = 0
    for at in np.ndindex(*w.shape[:dimensions]):
        seen = tuple(slice(k, k + (d - 1) * a.stride + 1, a.stride)
                     for k, d, a in zip(at, size, both))  # fmt: skip
        exact = exact + x[:, *seen].astype(np.float64) @ w[at].astype(np.float64)
    u = transformed_weights(w, *(SAME, *both)[-2:])
    xs, us = x_of(*x.shape), constant(u, "u")
    tile, window, stride, _ = zip(*both)
    y = winograd(xs, us, tile=tile, window=window, size=size, stride=stride)
    found = np.asarray(tw.compile(module(y, xs))(x))
    return np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("window", "step"), [(3, 1), (3, 2), (5, 1), (7, 2)])
def test_sequences_as_torch_computes_them(window, step, threads):
    """With an activation that reads its operand twice, and the padding of the next layer."""
    import torch

    x, padding, steps = x_of(2, 301, 128), ((window // 2, window // 2),), (step,)
    w = weight(window, 128, 192)
    y = pad(gelu(last(x, w, padding=padding, strides=steps)), low=(0, 2, 0), high=(0, 1, 0))
    value = RNG.standard_normal(x.shape).astype(np.float32)
    program, found = compiled(y, x, value, 1, threads=threads)
    (does,) = [k.schedule for k in program.lowered.kernels.values() if "pad" not in k.name[:3]]
    assert any("transformed" in s for s in does), does
    with torch.no_grad():
        a = torch.tensor(value).permute(0, 2, 1).double()
        b = torch.tensor(w.attrs["value"]).permute(2, 1, 0).double()
        exact = torch.nn.functional.conv1d(a, b, padding=window // 2, stride=step)
        exact = torch.nn.functional.gelu(exact)
    assert error(found[:, 2:-1], exact.permute(0, 2, 1).numpy()) < 5e-6


def test_levels_are_told_and_checked():
    x = x_of(1, 14, 14, 64)
    m = module(last(x, weight(3, 3, 64, 64)), x)
    assert "F(4,3): cycles" in str(tw.compile(m).explain())
    assert "fast_math is 0" in str(tw.compile(m, fast_math=0).explain())
    with config.options(fast_math=2):
        assert tw.compile(m).target.fast_math == 2
    with pytest.raises(CompileError, match="there is no fast_math level 3"):
        tw.compile(m, fast_math=3)


def test_equal_on_the_reference_interpreter():
    x = x_of(1, 9, 7, 32)
    m = module(relu(last(x, weight(3, 3, 32, 32))), x)
    assert_equal_results(m, choose(m), tol=2e-4)


# ---- the algorithm as a choice -----------------------------------------------------------------


def two_layers():
    x = x_of(1, 24, 24, 64)
    y = relu(last(x, weight(3, 3, 64, 64)))
    return module(last(y, weight(3, 3, 8, 64), groups=8), x), x.shape


def algorithms(program):
    return [r.choices["algorithm"] for r in program.schedules().records if "algorithm" in r.choices]


def with_algorithm(program, name):
    """The records with another algorithm, without those of kernels, which change with it."""
    rows = [r for r in program.schedules().records if "algorithm" in r.choices]
    return Schedules(tuple(replace(r, choices={"algorithm": name}) for r in rows))


def test_algorithms_are_written_and_replayed(tmp_path):
    m, _ = two_layers()
    first = tw.compile(m)
    assert algorithms(first) == ["F(4,3)", "F(4,3)"]
    first.schedules().write(tmp_path / "s.json")
    again = tw.compile(m, schedules=tmp_path / "s.json")
    assert again.schedules() == first.schedules()
    texts = [[to_text(k) for k in p.lowered.kernels.values()] for p in (again, first)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["direct", "F(2,3)", "F(4,3)", "F(6,3)", "F(4x2,3)", "F(2x6,3)"])
def test_every_algorithm_can_be_asked_for(name):
    m, shape = two_layers()
    first = tw.compile(m, fast_math=2)
    other = tw.compile(m, fast_math=2, schedules=with_algorithm(first, name))
    assert algorithms(other) == [name, name]
    ops = [s for k in other.lowered.kernels.values() for s in k.schedule]
    assert sum("transformed" in s for s in ops) == (0 if name == "direct" else 2)
    value = RNG.standard_normal(shape).astype(np.float32)
    assert error(np.asarray(other(value)), np.asarray(first(value)).astype(np.float64)) < 5e-5


def test_algorithms_that_do_not_fit_are_errors():
    m, _ = two_layers()
    first = tw.compile(m, fast_math=2)
    with pytest.raises(ChoiceError, match=r"F\(6,3\) is not in the space"):
        tw.compile(m, fast_math=1, schedules=with_algorithm(first, "F(6,3)"))
    x = x_of(1, 10, 10, 64)
    other = module(last(x, weight(3, 3, 64, 64)), x)
    with pytest.raises(CompileError, match="for a convolution of this program"):
        tw.compile(other, schedules=with_algorithm(first, "direct"))
