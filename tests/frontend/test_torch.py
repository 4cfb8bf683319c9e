"""torch modules imported whole: results against torch, names, places, dynamic shapes, errors.

Programs run natively where `native` is asked for, else in the reference interpreter.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils import _pytree  # noqa: E402

from tensorwright.base.errors import FrontendError, RunError  # noqa: E402
from tensorwright.driver.compile import compile as compile_module  # noqa: E402
from tensorwright.frontend.torch import import_torch, load  # noqa: E402
from tensorwright.ir.interp import run_module  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def r(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check(model, args, shapes=None, more=(), native=False, tolerance=2e-5):
    """The imported program agrees with torch on `args` and on each of `more`."""
    model = model.eval() if isinstance(model, nn.Module) else model
    program = load(model, args, shapes)
    run = compile_module(program.module) if native else None
    for given in (args, *more):
        with torch.no_grad():
            expected = model(*_pytree.tree_map_only(torch.Tensor, torch.clone, given))
        inputs = [np.asarray(v) for v in program.flatten(given, {})]
        inputs += [s.initial for s in program.state]
        results = run(*inputs) if native else run_module(program.module, inputs)
        results = results if isinstance(results, (list, tuple)) else [results]
        compare(program.rebuild(results), expected, tolerance)
    return program


def compare(got, expected, tolerance):
    ours, spec = _pytree.tree_flatten(got)
    theirs, wanted = _pytree.tree_flatten(expected)
    assert spec == wanted
    for a, b in zip(ours, theirs):
        if not isinstance(b, torch.Tensor):
            assert type(a) is type(b) and a == pytest.approx(b, rel=1e-5)
            continue
        a = np.asarray(a)
        assert a.shape == tuple(b.shape) and str(b.dtype).endswith(str(a.dtype))
        np.testing.assert_allclose(a, b.numpy(), tolerance, tolerance)


class Layer(nn.Module):
    def __init__(self, kind, *args, **kwargs):
        super().__init__()
        self.layer = kind(*args, **kwargs)

    def forward(self, x):
        return self.layer(x)


class Net(nn.Module):
    """A bit of everything, with a nested result."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x, scale=2.0):
        y = self.norm(self.fc(x)).softmax(-1)
        z = y.transpose(0, 1).reshape(x.shape[1], -1)[:, 1:-1]
        positions = torch.arange(x.shape[1] * 2)
        return {"z": z * scale, "more": (positions, x[x > 0], torch.cat([y, y], 1))}, x.shape[1]


# ---- structure ---------------------------------------------------------------------------------


def test_nested_results_and_dynamic_dimensions():
    check(Net(), (r(2, 3, 4),))
    check(Net(), (r(2, 3, 4),), "x: b, n[1..100], 4", more=[(r(5, 1, 4),), (r(1, 7, 4),)])


def test_parameters_are_constants_named_by_path_without_copies():
    model = Net().eval()
    module = import_torch(model, (r(2, 3, 4),))
    constants = module.constants()
    assert "fc.weight" in constants and "norm.bias" in constants
    assert np.shares_memory(constants["fc.weight"], model.fc.weight.detach().numpy())


def test_inputs_are_named_and_symbols_have_the_users_facts():
    module = import_torch(Net().eval(), (r(2, 3, 4),), "x: b[2..8], n, 4")
    (x,) = module.main.params
    assert x.name == "x" and str(x.type) == "f32[b, n, 4]"
    assert (x.shape[0].value.min, x.shape[0].value.max) == (2, 8)


def test_places_name_the_users_line_and_module():
    module = import_torch(Net().eval(), (r(2, 3, 4),))
    linear = next(n for n in module.main.nodes() if n.op.name == "linear")
    assert linear.loc[0].startswith("test_torch.py:") and linear.loc[1] == "fc: Linear"


def test_composites_arrive_whole():
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    program = check(block, (r(2, 3, 8),), "src: b, t, 8", more=[(r(1, 9, 8),)])
    names = {n.op.name for n in program.module.main.nodes()}
    assert {"linear", "layer_norm", "attention", "gelu"} <= names


@pytest.mark.parametrize("shapes", [
    lambda d: ({0: d},), lambda d: {"input": {0: d}}, lambda d: {"input": (d, None)},
])  # fmt: skip
def test_torch_dims(shapes):
    d = torch.export.Dim("batch", min=1, max=8)
    program = check(nn.Linear(3, 2), (r(2, 3),), shapes(d), more=[(r(5, 3),)])
    assert str(program.module.main.params[0].type) == "f32[batch, 3]"


def test_multiples_are_told_to_torch():
    def halves(x):
        return x.view(x.shape[0] // 2, 2, -1).sum(1)

    check(halves, (r(4, 6),), "x: n[2..64%2], 6", more=[(r(8, 6),)])


def test_an_exported_program():
    dims = {"input": {0: torch.export.Dim("n")}}
    exported = torch.export.export(nn.Linear(3, 2).eval(), (r(2, 3),), dynamic_shapes=dims)
    module = import_torch(exported)
    assert len(module.main.params) == 1
    with pytest.raises(FrontendError, match="dynamic shapes already"):
        import_torch(exported, shapes="input: n, 3")


def test_written_buffers_are_state():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count.add_(1)
            return x * self.count

    program = load(Counter().eval(), (r(3),))
    (state,) = program.state
    assert state.param == "count" and program.module.main.params[1].name == "count"
    x, count = r(3).numpy(), state.initial
    for step in (1, 2, 3):
        results = run_module(program.module, [x, count])
        np.testing.assert_allclose(program.rebuild(results), x * step)
        count = results[state.result]
    assert count == 3


def test_written_inputs_are_results():
    def f(x):
        x.add_(1)
        return x * 2

    program = load(f, (r(3),))
    ((name, k),) = program.writes
    results = run_module(program.module, [r(3).numpy()])
    np.testing.assert_allclose(results[k], r(3) + 1)
    assert name == program.inputs[0]


def test_fixed_arguments_are_checked():
    program = load(Net().eval(), (r(2, 3, 4), 3.0))
    with pytest.raises(RunError, match="compiled for"):
        program.flatten((r(2, 3, 4), 4.0), {})


# ---- operators in context ----------------------------------------------------------------------


@pytest.mark.parametrize("kind, options", [
    (nn.LSTM, dict(batch_first=True, bidirectional=True, num_layers=2)),
    (nn.LSTM, dict(bias=False)), (nn.GRU, dict(bidirectional=True)), (nn.GRU, dict(bias=False)),
    (nn.RNN, dict(nonlinearity="relu")), (nn.RNN, {}),
])  # fmt: skip
def test_recurrent_layers_stay_whole_over_dynamic_time(kind, options):
    model = Layer(kind, 4, 5, **options)
    program = check(model, (r(3, 2, 4),), "x: a, b, 4", more=[(r(6, 7, 4),), (r(1, 1, 4),)])
    names = [n.op.name for n in program.module.main.nodes()]
    assert kind.__name__.lower() in names and "tanh" not in names
    check(model, (r(6, 4),))


def test_cond_on_data_and_on_sizes():
    def by_data(x, y):
        return torch.cond(x.sum() > 0, lambda a, b: a + b, lambda a, b: a * b, (x, y))

    def by_size(x):
        return torch.cond(x.shape[0] > 4, lambda a: a + 1, lambda a: a * 2, (x,))

    check(by_data, (r(3), r(3, seed=1)), more=[(-torch.ones(3), r(3))])
    check(by_size, (r(3, 2),), "x: n, 2", more=[(r(6, 2),)])


def test_while_loop_and_scan():
    from torch._higher_order_ops.scan import scan
    from torch._higher_order_ops.while_loop import while_loop

    def loop(i, x):
        return while_loop(lambda i, x: i < 5, lambda i, x: (i + 1, x * 2), (i, x))

    def running(c, xs):
        return scan(lambda c, x: (c + x, c * x), c, xs)

    class Module(nn.Module):
        def __init__(self, f):
            super().__init__()
            self.f = f

        def forward(self, a, b):
            return self.f(a, b)

    check(Module(loop), (torch.tensor(0), r(3)))
    check(Module(running), (r(3), r(5, 3)))


def test_groups_of_rows_times_their_matrices():
    """Experts of a mixture; the library that exports such models has an operator of this name."""
    from tensorwright.frontend.torch_ops_experts import grouped_product
    from tensorwright.ir.dtype import f32, i64
    from tensorwright.ir.expr import var
    from tensorwright.ir.graph import graph, param
    from tensorwright.ir.module import Module
    from tensorwright.ir.type import TensorType

    x = param("x", TensorType(f32, (var("s", min=1), 3)))
    w, ends = param("w", TensorType(f32, (4, 3, 5))), param("ends", TensorType(i64, (4,)))
    main = graph("main", (x, w, ends), (grouped_product(x, w, ends),))
    program = compile_module(Module({"main": main}))
    weights = r(4, 3, 5).numpy()
    for cuts in ([3, 3, 7, 10], [0, 4, 4, 4], [0, 0, 0, 1], [1, 2, 4, 6]):
        rows = r(cuts[-1], 3, seed=1).numpy()
        which = np.searchsorted(cuts, np.arange(cuts[-1]), side="right")
        wanted = np.einsum("sk,skn->sn", rows, weights[which])
        np.testing.assert_allclose(program(rows, weights, np.array(cuts)), wanted, 1e-5, 1e-5)


def test_a_mask_used_twice_selects_equally_many():
    def f(x, y):
        mask = x > 0
        z = y.clone()
        z[mask] = x[mask] * 2 + y[mask]
        return z

    check(f, (r(3, 4), r(3, 4, seed=1)), more=[(r(3, 4, seed=2), r(3, 4))], native=True)


def test_sizes_from_data():
    class Repeat(nn.Module):
        def forward(self, x):
            k = x.max().item()
            torch._check(k >= 0)
            torch._check(k < 20)
            return torch.zeros(k, 2) + 1, x * k

    check(Repeat(), (torch.tensor([3, 4]),), more=[(torch.tensor([3, 7]),)])


def test_numbers_made_of_sizes():
    def f(x):
        return x * (x.shape[0] ** 0.5) + 1 / x.shape[1], x.mean().item()

    check(f, (r(3, 5),), "x: n, m", more=[(r(6, 2),)])


def test_writes_through_views_are_functional():
    def f(x, at):
        y = x.clone()
        y[:, 1:3] = 0
        y[at] += 1
        return y, y.tril(), torch.einsum("ij,kj->ik", x, y), x.unfold(1, 2, 1), x.roll(1, 0)

    check(f, (r(4, 5), torch.tensor([0, 2])))


def test_half_precision_parameters():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4).bfloat16()

        def forward(self, x):
            return self.fc(x.bfloat16()).float()

    check(Half(), (r(2, 4),), tolerance=2e-2)


def test_pooling_resizing_embedding():
    def f(x):
        y = nn.functional.adaptive_avg_pool2d(x, (2, 3))
        z = nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        return y, z, nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")

    check(f, (r(1, 2, 5, 6),))
    check(nn.EmbeddingBag(5, 3), (torch.tensor([1, 2, 3]), torch.tensor([0, 2])))


def test_native():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            y = self.norm(self.fc(x))
            return self.attend(y, y, y, need_weights=False)[0]

    check(Block(), (r(2, 3, 4),), "x: n, t, 4", more=[(r(5, 6, 4),)], native=True)


F = nn.functional
I2 = torch.tensor([0, 2])

MANY = {
    "causal attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                         r(2, 3, 4, 8), r(2, 3, 6, 8), r(2, 3, 6, 8)),
    "shared heads": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
                     r(2, 4, 4, 8), r(2, 2, 6, 8), r(2, 2, 6, 8)),
    "float mask": (lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m, scale=0.3),
                   r(2, 4, 4, 8), r(2, 4, 6, 8), r(4, 6)),
    "mask without batch": (lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m > 0),
                           r(3, 4, 8), r(3, 6, 8), r(3, 4, 6) + 1),
    "attention of rank 5": (lambda q, k: F.scaled_dot_product_attention(q, k, k),
                            r(2, 2, 3, 4, 8), r(2, 2, 3, 6, 8)),
    "convolutions": (lambda x, w, b: (
        F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1),
        F.conv1d(x[:, :, 0], w[:, :, 0], padding="same")), r(1, 4, 5, 5), r(4, 4, 3, 3), r(4)),
    "group norm": (nn.GroupNorm(2, 4), r(2, 4, 5)),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), r(2, 4, 5, 5)),
    "rms norm": (nn.RMSNorm(4), r(2, 4)),
    "pixel shuffle": (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), r(1, 8, 3, 3)),
    "losses": (lambda x, t: (F.cross_entropy(x, t), F.mse_loss(x, x * 2), F.one_hot(t, 5)),
               r(4, 5), torch.tensor([1, 2, 3, 4])),
    "order": (lambda x: (x.median(-1), x.argsort(descending=True), x.topk(2), x.flip(0),
                         torch.searchsorted(x.sort()[0], x)), r(4, 5)),
    "norms": (lambda x: (x.norm(dim=1), torch.linalg.norm(x), x.logsumexp(1), torch.cdist(x, x),
                         x.std(0), x.var(unbiased=False), torch.var_mean(x, 1)), r(4, 5)),
    "triangles": (lambda x: (x.diagonal(1), torch.tril_indices(3, 3), torch.triu(x, 1),
                             torch.eye(3), x.repeat_interleave(2, 0)), r(4, 5)),
    "integers": (lambda a: (a // 2, a % 3, a / 2, -a, a >> 1, a.float().mean(), a.sum(), a * 2.5,
                            a.bitwise_and(3), a.abs().sqrt(), torch.where(a > 0, a, 0),
                            a.to(torch.uint8), a.bool()), torch.arange(-4, 5)),
    "not a number": (lambda x: (x.nan_to_num(), x.isnan(), torch.fmax(x, x * 0), x.nansum()),
                     torch.tensor([1.0, float("nan"), 2.0])),
    "padding": (lambda x: (F.pad(x, (1, 2), mode="reflect"), F.pad(x, (1, 1), mode="replicate"),
                           F.pad(x, (1, 1), mode="circular"), F.pad(x, (1, -1), value=3.0)),
                r(1, 2, 5)),
    "grid": (lambda x, g: F.grid_sample(x, g, align_corners=False), r(1, 2, 4, 4),
             r(1, 3, 3, 2) * 0.5),
    "lstm cell": (lambda x, h, c, w, u: torch.lstm_cell(x, (h, c), w, u), r(2, 3), r(2, 4), r(2, 4),
                  r(16, 3), r(16, 4)),
    "named arguments": (lambda x: (
        torch.add(x, x, alpha=2), torch.sub(x, 1.0, alpha=2), torch.linalg.diagonal(x, offset=1),
        torch.sort(x, dim=0, stable=True, descending=True), torch.argsort(x, dim=0, stable=True),
        torch.searchsorted(torch.tensor([-1.0, 0.0, 0.5]), x, right=True, out_int32=True)),
        r(4, 5)),
    "adaptive maxima": (lambda x: [F.adaptive_max_pool2d(x, s, return_indices=True)
                                   for s in ((3, 4), (7, 5), 1, (None, 4))], r(2, 7, 11)),
    "adaptive maxima of volumes": (lambda x: F.adaptive_max_pool3d(x, (2, 3, 4)), r(2, 5, 6, 7)),
    "smooth resizing": (lambda x: [
        F.interpolate(x, **size, mode=mode, antialias=True, align_corners=False)
        for mode in ("bilinear", "bicubic")
        for size in (dict(size=(4, 5)), dict(size=(20, 9)), dict(scale_factor=0.4))],
        r(1, 2, 11, 13)),
    "kth and histogram": (lambda x: (torch.kthvalue(x, 2, 1), torch.histc(x, 5, -1, 1),
                                     torch.histc(x, 4), torch.histc(x * 0 + 2, 3)), r(4, 5)),
    "products of stacks": (lambda x: (torch.inner(x, x + 1), torch.hypot(x * 1e30, x.flip(0)),
                                      torch.addbmm(torch.ones(3, 3), x, x.mT, beta=0.5, alpha=2)),
                           r(2, 3, 4)),
    "running extrema": (lambda x: (x.cummax(1), x.cummin(0), torch.logcumsumexp(x * 100, 1)),
                        r(4, 5)),
    "bilinear": (nn.Bilinear(3, 4, 5), r(2, 6, 3), r(2, 6, 4)),
    "random slopes": (nn.RReLU(0.1, 0.4), r(3, 4)),
    "masks": (lambda x: (x.masked_fill(x > 0, -1e9), x.masked_select(x > 0)), r(3, 4)),
    "scatters": (lambda x, i: (
        x.index_put((i,), x[i] * 2), x.index_add(0, i, x[:2]),
        x.scatter_add(0, i[:, None].expand(2, 4), x[:2]),
        x.scatter_reduce(1, i[:, None].expand(2, 2), x[:2, :2], "amax", include_self=False)),
        r(3, 4), I2),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_operators_in_context(name):
    f, *args = MANY[name]
    check(f, tuple(args))


# ---- errors ------------------------------------------------------------------------------------


def test_all_that_is_not_supported_is_named_at_once():
    def f(x):
        return torch.linalg.eigh(x @ x.T)[0], torch.linalg.svdvals(x)

    with pytest.raises(FrontendError) as caught:
        load(f, (r(4, 4),))
    text = str(caught.value)
    assert "aten._linalg_eigh" in text and "aten._linalg_svd" in text and "test_torch.py:" in text


def test_training_mode_is_refused():
    with pytest.raises(FrontendError, match="training mode"):
        load(Layer(nn.Dropout, 0.5).train(), (r(3),))


def test_example_inputs_are_needed_and_must_fit():
    with pytest.raises(FrontendError, match="needs example inputs"):
        load(Net().eval())
    with pytest.raises(FrontendError, match="do not fit"):
        load(Net().eval(), (r(2), 1, 2, 3))


def test_a_derived_dimension():
    """A multiple in torch's own words: no input has the size h itself."""
    h = torch.export.Dim("h", min=1, max=8)
    exported = torch.export.export(
        torch.nn.ReLU(), (torch.zeros(16, 3),), dynamic_shapes=({0: 8 * h},)
    )
    program = compile_module(exported)
    assert program(torch.ones(24, 3)).shape == (24, 3)
    with pytest.raises(RunError, match="dimension 0 of input 'input' is 12"):
        program(torch.ones(12, 3))
    with pytest.raises(RunError, match="is 9, its largest value is 8"):
        program(torch.ones(72, 3))


def test_a_slice_of_data_stays_in_its_dimension():
    class First(torch.nn.Module):
        def forward(self, x, k):
            n = k.item()
            torch._check(n >= 1)
            torch._check(n <= x.shape[0])
            return x[:n]

    exported = torch.export.export(
        First(), (torch.zeros(16, 3), torch.tensor(4)),
        dynamic_shapes=({0: torch.export.Dim("n", min=2, max=64)}, None),
    )  # fmt: skip
    program = compile_module(exported)
    assert program(torch.ones(5, 3), torch.tensor(5)).shape == (5, 3)
    with pytest.raises(RunError, match="a slice from 0 to 6 leaves its dimension, which is 5"):
        program(torch.ones(5, 3), torch.tensor(6))


def test_a_fixed_dimension_cannot_be_dynamic():
    with pytest.raises(FrontendError, match="cannot trace the module"):
        load(lambda x: x.view(3, 4), (r(3, 4),), "x: n, 4")
