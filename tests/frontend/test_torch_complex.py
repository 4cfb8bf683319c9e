"""Complex tensors inside torch modules: transforms, rotations, filters, against torch."""

import pytest

torch = pytest.importorskip("torch")

from torch import fft, nn  # noqa: E402

from tensorwright.base.errors import FrontendError  # noqa: E402
from tensorwright.frontend.torch import import_torch  # noqa: E402
from tests.frontend.test_torch import check, r  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
REAL = torch.view_as_real


def rotated(x):
    """Rotary embedding as Llama wrote it first."""
    angles = torch.outer(torch.arange(x.shape[1]).float(), 10.0 ** -torch.arange(4.0))
    turn = torch.polar(torch.ones_like(angles), angles)
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return REAL(z * turn[None, :, None]).flatten(3)


def spectrum_and_back(x):
    z = torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True)
    return z.abs(), torch.istft(z * torch.sigmoid(z.abs()), 16, 4, window=torch.hann_window(16))


MANY = {
    "one axis": (lambda x: (REAL(fft.fft(x)), REAL(fft.rfft(x, norm="ortho")), fft.fft(x).imag),
                 r(3, 10)),
    "two axes": (lambda x: (fft.fft(fft.fft(x), dim=-2).real, fft.irfft2(fft.rfft2(x), s=(6, 5)),
                            REAL(fft.ifft2(fft.fft2(x, norm="forward")))), r(2, 6, 5)),
    "lengths": (lambda x: (fft.irfft(fft.rfft(x, n=16), n=9), REAL(fft.fft(x, n=5)),
                           fft.irfft(fft.rfft(x), norm="ortho")), r(2, 10)),
    "rotation": (rotated, r(2, 5, 3, 8)),
    "short time": (spectrum_and_back, r(2, 64)),
    "arithmetic": (lambda x, y: [REAL(v) for z, w in [(torch.complex(x, y), torch.complex(y, x))]
                                 for v in (z + w, z - 1, 2 * z, z * w, z / w, z / 3.0, z * 1j,
                                           1 / z, z.conj().resolve_conj(), z.exp(), z**2, -z,
                                           z.log())],
                   r(3, 4), r(3, 4, seed=1)),
    "shapes": (lambda x: [REAL(v) for z in [torch.view_as_complex(x)] for v in (
        z.t(), z[1:, ::2], z.reshape(2, 6), torch.cat([z, z * 1j], 1), z.sum(0), z.mean(),
        torch.stack([z, z]), z.unbind(0)[1], torch.where(x[..., 0] > 0, z, 0))], r(3, 4, 2)),
    "products": (lambda x, y: (REAL(torch.complex(x, y) @ torch.complex(y, x).mT), REAL(
        torch.einsum("ij,kj->ik", torch.complex(x, y), y + 0j)), torch.complex(x, y).angle(),
        torch.complex(x, y).to(torch.complex128).real), r(3, 4), r(3, 4, seed=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_complex_inside(name):
    f, *args = MANY[name]
    check(f, tuple(args), tolerance=5e-5)


def test_complex_weights_and_writes():
    class Filter(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 5, 3, 3, dtype=torch.cfloat))

        def forward(self, x):
            z, y = fft.rfft2(x), torch.zeros(x.shape[0], 5, 8, 5, dtype=torch.cfloat)
            y[:, :, :3, :3] = torch.einsum("bixy,ioxy->boxy", z[:, :, :3, :3], self.weight)
            return fft.irfft2(y, s=(8, 8))

    torch.manual_seed(0)
    check(Filter(), (r(2, 3, 8, 8),), "x: b, 3, 8, 8", more=[(r(5, 3, 8, 8),)], native=True)


def test_complex_inputs_and_results_are_refused():
    with pytest.raises(FrontendError, match="complex64") as e:
        import_torch(lambda x: x.real, (torch.zeros(3, dtype=torch.cfloat),))
    assert "view_as_real" in str(e.value)
    with pytest.raises(FrontendError, match="is a complex tensor"):
        import_torch(lambda x: fft.fft(x), (r(4),))


def test_what_complex_tensors_cannot_do_is_named():
    with pytest.raises(FrontendError, match="1 operator") as e:
        import_torch(lambda x: fft.fft(x).tanh().real, (r(4),))
    assert "aten.tanh.default" in str(e.value) and "complex" in str(e.value)
