"""torch's higher-order operators: nested, over modules' weights, with sizes that vary; natively."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch._higher_order_ops.associative_scan import associative_scan  # noqa: E402
from torch._higher_order_ops.map import map as map_rows  # noqa: E402
from torch._higher_order_ops.scan import scan  # noqa: E402
from torch._higher_order_ops.while_loop import while_loop  # noqa: E402

import tensorwright as tw  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(nn.Module):
    """`run(linear, x)` as a module, whose bodies use its weights without being given them."""

    def __init__(self, run):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.run = nn.Linear(4, 4), run

    def forward(self, x):
        return self.run(self.linear, x)


def check(run, shapes="x: n, 4", sizes=(5, 2, 9)):
    """Compiled once for every n; the results are torch's."""
    model = Model(run).eval()
    inputs = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in sizes]
    program = tw.compile(model, (inputs[0],), shapes=shapes, threads=1)
    for x in (*inputs, -inputs[0]) if shapes else inputs[:1]:
        with torch.no_grad():
            wanted = torch.utils._pytree.tree_leaves(model(x))
        for a, b in zip(torch.utils._pytree.tree_leaves(program(x)), wanted, strict=True):
            np.testing.assert_allclose(np.asarray(a), b.numpy(), rtol=1e-4, atol=1e-5)


def test_branches_in_branches():
    def inner(linear, x):
        return torch.cond(x.mean() > 1, lambda x: linear(x), lambda x: x * 2, (x,))

    check(lambda l, x: torch.cond(x.sum() > 0, lambda x: inner(l, x), lambda x: x.cos(), (x,)))


def test_branch_in_a_loop():
    def run(linear, x):
        def body(i, x):
            y = torch.cond(x.sum() > 3, lambda x: linear(x), lambda x: x + 1, (x,))
            return i + 1, y

        return while_loop(lambda i, x: i < 7, body, (torch.tensor(0), x))

    check(run)


def test_loop_as_often_as_a_size_says():
    def run(linear, x):
        n = x.shape[0]
        step = lambda i, a: (i + 1, torch.tanh(linear(a)) + x.sum(0))
        return while_loop(lambda i, a: i < n, step, (torch.tensor(0), torch.zeros(4)))

    check(run)


def test_scan_over_weights():
    def run(linear, xs):
        def step(c, x):
            c = torch.tanh(linear(c) + x)
            return c, c * 2

        return scan(step, torch.zeros(4), xs)

    check(run)


def test_map():
    check(lambda linear, xs: map_rows(lambda x, y: linear(x) + y, xs, xs[0] * 3))


def test_associative_scan():
    """torch writes it out by halves, which takes a fixed size."""

    def run(linear, x):
        combine = lambda p, q: (p[0] * q[0], p[1] * q[0] + q[1])
        return associative_scan(combine, (torch.sigmoid(x), linear(x)), 0, combine_mode="generic")

    check(run, shapes=None)


def test_branch_on_a_size():
    check(lambda _, x: torch.cond(x.shape[0] > 4, lambda x: x.sum(0), lambda x: x.mean(0), (x,)))
