"""torch.compile with our back end: sizes, writes to inputs and buffers, changed weights, errors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tensorwright.base.errors import RunError  # noqa: E402
from tensorwright.driver.compile import compile as compile_module  # noqa: E402
from tensorwright.frontend import dynamo  # noqa: E402
from tensorwright.ir.interp import run_module  # noqa: E402
from tensorwright.ir.parser import parse  # noqa: E402
from tensorwright.ops.table import BY_NAME  # noqa: E402
from tests.ir.test_data import MAP, cells  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        y = self.norm(self.fc(x))
        y = self.attend(y, y, y, need_weights=False)[0]
        x.mul_(2)
        return y.reshape(-1, 8)[1:], x.shape[0], y[0]


@pytest.fixture
def compiled(monkeypatch):
    """Modules that were compiled, run by the reference interpreter."""
    modules = []

    def interpret(module, **options):
        modules.append(module)

        def run(*args):
            return [torch.from_numpy(np.array(v)) for v in
                    run_module(module, [a.numpy() for a in args])]  # fmt: skip

        return run

    monkeypatch.setattr(dynamo, "COMPILE", interpret)
    torch._dynamo.reset()
    yield modules
    torch._dynamo.reset()


def test_writes_sizes_and_changed_weights(compiled):
    model = Net().eval()
    fast = torch.compile(model, backend=dynamo.backend)
    with torch.no_grad():
        for shape in ((2, 3, 4), (2, 3, 4), (5, 3, 4), (7, 3, 4), (9, 3, 4)):
            x = torch.randn(*shape)
            mine, calls = x.clone(), model.calls.clone()
            expected = model(x)
            model.calls.copy_(calls)
            got = fast(mine)
            torch.testing.assert_close(got[0], expected[0])
            torch.testing.assert_close(got[2], expected[2])
            torch.testing.assert_close(mine, x)
            assert got[1] == shape[0] and model.calls == calls + 1
        assert len(compiled) == 2  # the second size made it dynamic
        assert "fc.weight" not in {p.name for p in compiled[1].main.params}
        model.fc.weight.mul_(2)
        x = torch.randn(9, 3, 4)
        torch.testing.assert_close(fast(x.clone())[0], model(x.clone())[0])
        assert len(compiled) == 3


def test_attention_stays_whole(compiled):
    model = Net().eval()
    with torch.no_grad():
        torch.compile(model, backend=dynamo.backend)(torch.randn(2, 3, 4))
    assert "attention" in {n.op.name for n in compiled[0].main.nodes()}


def test_gradients_are_refused(compiled):
    fast = torch.compile(Net().eval(), backend=dynamo.backend)
    with pytest.raises(Exception, match="gradients of modules compiled"):
        fast(torch.randn(2, 3, 4))


def test_unsupported_operators_raise(compiled):
    fast = torch.compile(lambda x: torch.linalg.eigh(x)[0], backend=dynamo.backend)
    with pytest.raises(Exception, match="_linalg_eigh"):
        fast(torch.eye(3))


def test_native(monkeypatch):
    monkeypatch.setattr(dynamo, "COMPILE", compile_module)
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    fast = torch.compile(model, backend="tensorwright" if _is_registered() else dynamo.backend)
    with torch.no_grad():
        for n in (2, 3, 5):
            x = torch.randn(n, 4)
            torch.testing.assert_close(fast(x), model(x))
    torch._dynamo.reset()


def _is_registered() -> bool:
    return "tensorwright" in torch._dynamo.list_backends()


def test_the_reference_recurses_behind_it():
    """The hook puts each Python call on the C stack: an error, not the end of the process."""
    compiled = torch.compile(lambda x: x + 1, backend="tensorwright")
    assert compiled(torch.ones(1)).item() == 2
    with pytest.raises(RunError, match="too deep for the interpreter"):
        run_module(parse(MAP, BY_NAME), [cells(*([[1.0]] * 20_000)), np.float32(1)])
