"""Maps that read different operands along a loop run in parts."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.ir.expr import as_dim, as_expr, ceildiv, var
from tensorwright.ir.graph import param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.loop import For, statements
from tensorwright.ir.type import tensor
from tensorwright.ops.activations import relu
from tensorwright.ops.conv import conv_general
from tensorwright.ops.elementwise import erf, exp, mul
from tensorwright.ops.index import gather
from tensorwright.ops.movement import broadcast_to, concat, pad, reshape, transpose
from tensorwright.ops.resample import resize
from tests.passes.equivalence import module, x_of

RNG = np.random.default_rng(2)


def check(y, *params):
    """The schedules of the program, whose results are those of the interpreter."""
    m = module(y, *params)
    values = [RNG.standard_normal(p.shape).astype(np.float32) for p in params]
    (expected,) = run_graph(m.main, values)
    program = tw.compile(m)
    np.testing.assert_allclose(program(*values), expected, rtol=1e-4, atol=1e-4)
    return [s for k in program.lowered.kernels.values() for s in k.schedule]


@pytest.mark.parametrize("widths", [(32, 16), (5, 16, 3), (1, 1), (40, 7, 1, 20)])
@pytest.mark.parametrize("rows", [3, 700])
def test_concatenation(widths, rows):
    xs = [x_of(rows, n, name=f"x{k}") for k, n in enumerate(widths)]
    scale = x_of(sum(widths), name="scale")
    told = check(relu(mul(concat(*xs, axis=1), scale)), *xs, scale)
    assert any(f"in {len(widths)} parts" in s for s in told), told


@pytest.mark.parametrize(("widths", "parts"), [((24, 24), 2), ((48, 48), 2), ((6, 18, 3), 3),
                                               ((5, 5), 2), ((9, 19), 4)])  # fmt: skip
@pytest.mark.parametrize("rows", [7, 1500])
def test_channels_shuffled_between_parts(widths, parts, rows):
    """Each half of the shuffled channels is a nest, which knows where it changes operands."""
    xs = [x_of(rows, n, name=f"x{k}") for k, n in enumerate(widths)]
    groups = reshape(concat(*xs, axis=1), shape=(rows, sum(widths) // parts, parts))
    told = check(relu(transpose(groups, perm=(2, 0, 1))), *xs)
    assert any(f"{parts} nests" in s for s in told), told


def test_strided_operands_are_loaded_whole():
    """No element is fetched by itself, the last vector included."""
    a, b = x_of(50, 24, name="a"), x_of(50, 24, name="b")
    groups = reshape(concat(a, b, axis=1), shape=(50, 24, 2))
    program = tw.compile(module(transpose(groups, perm=(2, 0, 1)), a, b), target="x86-64-avx512")
    (kernel,) = program.lowered.kernels.values()
    text = ModuleText()
    emit_kernel(kernel, text, program.target)
    assert "shufflevector" in text.text() and "masked.gather" not in text.text()


def test_many_operands_stay_one_loop():
    xs = [x_of(3, 2, name=f"x{k}") for k in range(80)]
    assert not any("parts" in s for s in check(concat(*xs, axis=1), *xs))


def test_padding_along_the_vector():
    x = x_of(5, 40)
    assert any("in 3 parts" in s for s in check(pad(relu(x), low=(1, 2), high=(0, 3)), x))


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize(("shape", "low", "high", "parts"), [
    ((3, 40), (1, 3), (2, 5), 3), ((3, 40), (0, 3), (1, 0), 2),
    ((2, 3, 17), (0, 2, 4), (0, 1, 1), 3), ((5, 4), (2, 3), (1, 2), 3),
    ((700, 33), (0, 20), (0, 30), 3),
])  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
def test_the_inside_of_what_repeats_its_border_is_read_whole(
    mode, shape, low, high, parts, threads
):
    x = x_of(*shape)
    m = module(pad(x, low=low, high=high, mode=mode), x)
    value = RNG.standard_normal(shape).astype(np.float32)
    value.flat[0] = np.nan
    program = tw.compile(m, threads=threads)
    np.testing.assert_array_equal(program(value), np.pad(value, list(zip(low, high)), mode))
    (kernel,) = program.lowered.kernels.values()
    assert f"in {parts} parts" in kernel.schedule[-1], kernel.schedule


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_a_border_around_symbolic_sizes(mode):
    n, w = var("n", min=4), var("w", min=6)
    x = x_of(n, w)
    program = tw.compile(module(pad(x, low=(1, 4), high=(2, 3), mode=mode), x))
    for shape in ((4, 6), (9, 40)):
        value = RNG.standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(program(value), np.pad(value, ((1, 2), (4, 3)), mode))


@pytest.mark.parametrize("keys", [1, 63, 65, 200])
@pytest.mark.parametrize("fixed", [False, True])
def test_full_panels_know_that_they_are(keys, fixed):
    """What a product streams along rows is turned into panels; elements behind the last row are
    looked for in the last panel alone."""
    n = keys if fixed else var("n", min=1)
    x = param("x", tensor("f32", 2, n, 24))
    wide = pad(x, low=(0, 0, 0), high=(0, as_dim(-as_expr(n) % 64), 0))
    panels = reshape(wide, shape=(2, as_dim(ceildiv(n, 64)), 64, 24))
    m = module(transpose(panels, perm=(0, 1, 3, 2)), x)
    value = RNG.standard_normal((2, keys, 24)).astype(np.float32)
    program = tw.compile(m)
    (expected,) = run_graph(m.main, [value])
    np.testing.assert_array_equal(program(value), expected)
    (kernel,) = program.lowered.kernels.values()
    assert ("nests" in kernel.schedule[-1]) is (not fixed or keys > 64), kernel.schedule


@pytest.mark.parametrize(("low", "high"), [
    ((0, 0, 0, 0), (0, 1, 1, 0)), ((0, 1, 2, 0), (0, 1, 3, 0)), ((0, 2, 0, 0), (1, 0, 1, 0)),
])  # fmt: skip
@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (60, 96)])
def test_padding_around_short_rows(low, high, rows, columns):
    """The inside is copied in whole vectors, the border is filled apart."""
    x = x_of(2, rows, columns, 3)
    told = check(pad(relu(x), low=low, high=high), x)
    assert any("filled apart" in s for s in told), told


def test_padding_of_short_rows_themselves_stays_one_map():
    x = x_of(2, 9, 11, 3)
    told = check(pad(relu(x), low=(0, 1, 1, 1), high=(0, 0, 0, 1)), x)
    assert not any("filled apart" in s for s in told), told


def test_reversed_conditions():
    x = x_of(4, 50)
    assert any("in 2 parts" in s for s in check(pad(relu(x), low=(0, 9), high=(0, 0)), x))


def test_an_image_keeps_its_planes():
    """Three channels are not moved last by a kernel; the convolution reads them where they are."""
    x = x_of(1, 3, 17, 19)
    w = x_of(3, 3, 3, 24, name="w")
    y = conv_general(transpose(x, perm=(0, 2, 3, 1)), w, layout="NLAST", strides=(2, 2),
                     padding=((1, 1), (1, 1)))  # fmt: skip
    m = module(y, x, w)
    names = [k.name for k in tw.compile(m).lowered.kernels.values()]
    assert "pad" in names and not any(n.startswith("transpose_pad") for n in names), names
    check(y, x, w)


@pytest.mark.parametrize("window", [2, 3, 5, 7, 9])
@pytest.mark.parametrize("stride", [1, 2])
def test_windows_that_slide_over_registers(window, stride):
    x, w = x_of(1, 21, 34, 24), x_of(window, window, 1, 24, name="w")
    check(conv_general(x, w, layout="NLAST", groups=24, strides=(stride, stride)), x, w)


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-sse4.2"])
@pytest.mark.parametrize("times", [2, 3, 4, 8])
def test_repeated_elements_fill_vectors(times: int, target: str):
    """y[i, j, k] = x[i, j] for a k of part of a vector."""
    x = x_of(5, 37)
    m = module(broadcast_to(reshape(x, shape=(5, 37, 1)), shape=(5, 37, times)), x)
    value = np.random.default_rng(0).standard_normal((5, 37)).astype(np.float32)
    got = tw.compile(m, target=target)(value)
    np.testing.assert_array_equal(got, np.repeat(value[..., None], times, -1))


@pytest.mark.parametrize(("channels", "strips"), [
    (256, [8]), (320, [4]), (64, []), (300, []), (264, []), (16, []), (3, []),
])  # fmt: skip
def test_short_rows_are_turned_strip_by_strip(channels, strips):
    """Rows of 7 lie in lines that the next row reads again."""
    x = x_of(2, channels, 7, 7)
    y = pad(transpose(relu(x), perm=(0, 2, 3, 1)), low=(0, 1, 1, 0), high=(0, 1, 1, 0))
    check(y, x)
    *_, made = tw.compile(module(y, x), target="x86-64-avx512").schedules().records
    assert not any(told.startswith("as defined") for told in made.does), made
    assert [v for name, v in made.choices.items() if name.endswith("strip")] == strips, made


@pytest.mark.parametrize(("shapes", "axis", "told"), [
    ([(9, 3, 5), (9, 4, 5), (9, 1, 5)], 1, "1 loops, 3 operands one after another"),
    ([(2, 9, 3, 7), (2, 9, 8, 7)], 2, "2 loops, 2 operands one after another"),
    ([(3, 50), (40, 50)], 0, "map: 2 nests"),
    ([(1, 30, 6, 6), (1, 17, 6, 6)], 1, "map: 2 nests"),
])  # fmt: skip
def test_slices_that_follow_each_other_are_runs(shapes, axis, told):
    xs = [x_of(*s) for s in shapes]
    assert told in " ".join(check(concat(*xs, axis=axis), *xs))


@pytest.mark.parametrize(("rows", "count"), [(16, 8), (7, 7), (11, 3)])
@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2"])
def test_rows_that_look_up_the_same_places(rows: int, count: int, target: str):
    """The places are worked out once for several rows, which are written out within a vector."""
    x, at = x_of(3, rows, 50), param("at", tensor("i64", 37))
    program = tw.compile(module(relu(gather(x, at, axis=2)), x, at), target=target)
    values = RNG.standard_normal((3, rows, 50)).astype(np.float32)
    places = RNG.integers(-50, 50, 37)
    wanted = np.maximum(values[..., places], 0)
    np.testing.assert_array_equal(program(values, places), wanted)
    bodies = [k.body for k in program.lowered.kernels.values()]
    loops = [s for b in bodies for s in statements(b) if isinstance(s, For) and s.kind == "unroll"]
    assert {f.extent.value for f in loops} == {count}


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2"])
@pytest.mark.parametrize("times", [2, 3, 4, 5])
@pytest.mark.parametrize("width", [3, 13, 30, 100])
def test_enlarged_pictures_are_read_once_for_neighbours(width: int, times: int, target: str):
    x = x_of(2, 3, 5, width)
    y = broadcast_to(reshape(x, shape=(2, 3, 5, 1, width, 1)), shape=(2, 3, 5, times, width, times))
    y = reshape(y, shape=(2, 3, 5 * times, width * times))
    value = RNG.standard_normal(x.shape).astype(np.float32)
    program = tw.compile(module(y, x), target=target)
    np.testing.assert_array_equal(program(value), value.repeat(times, 2).repeat(times, 3))


def test_what_enlarges_a_row_gathers_nothing():
    x = x_of(1, 16, 30, 30)
    y = broadcast_to(reshape(x, shape=(1, 16, 30, 1, 30, 1)), shape=(1, 16, 30, 3, 30, 3))
    program = tw.compile(module(reshape(y, shape=(1, 16, 90, 90)), x), target="x86-64-avx512")
    (kernel,) = program.lowered.kernels.values()
    text = ModuleText()
    emit_kernel(kernel, text, program.target)
    assert "shufflevector" in text.text() and "masked.gather" not in text.text()


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(("width", "times"), [(2, 2), (3, 2), (30, 2), (9, 3), (17, 4), (8, 8)])
def test_interpolated_pictures(width: int, times: int, mode: str, coordinates: str):
    x = x_of(2, 3, 5, width)
    sizes = (2, 3, 5 * times, width * times)
    check(resize(x, sizes=sizes, mode=mode, coordinates=coordinates), x)


def test_what_is_interpolated_between_neighbours_gathers_nothing():
    """Whole vectors are read between the ends of a row, in one kernel."""
    x = x_of(1, 16, 30, 30)
    y = resize(x, sizes=(1, 16, 60, 60), mode="linear")
    program = tw.compile(module(y, x), target="x86-64-avx512")
    (kernel,) = program.lowered.kernels.values()
    text = ModuleText()
    emit_kernel(kernel, text, program.target)
    assert "shufflevector" in text.text() and "masked.gather" not in text.text()
    assert "in 3 parts" in kernel.schedule[0]


@pytest.mark.parametrize(("length", "together"), [(16, 1), (32, 2), (40, 1), (64, 4), (96, 2),
                                                  (1000, 4)])  # fmt: skip
def test_functions_of_several_vectors_take_turns(length: int, together: int):
    """As many as the loop fills, with functions in it."""
    x = x_of(length)
    program = tw.compile(module(erf(x), x), target="x86-64-avx512")
    (kernel,) = program.lowered.kernels.values()
    lanes = [s.extent.value for s in statements(kernel.body)
             if isinstance(s, For) and s.kind == "vector"]  # fmt: skip
    assert lanes[0] == together * 16
    (told,) = check(mul(x, x), x)
    assert "loops, vectors of" in told  # nothing waits for long


def test_functions_of_any_length():
    n = var("index", min=1, max=200)
    x = param("x", tensor("f32", as_dim(n)))
    program = tw.compile(module(exp(x), x))
    for length in (1, 15, 16, 17, 63, 64, 65, 129, 200):
        values = RNG.standard_normal(length).astype(np.float32)
        np.testing.assert_allclose(program(values), np.exp(values), rtol=1e-6)
