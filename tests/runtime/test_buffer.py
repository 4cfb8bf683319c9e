import array
import gc
import resource

import ml_dtypes
import numpy as np
import pytest
import torch

from tensorwright.base.errors import InternalError, RunError
from tensorwright.runtime import buffer
from tensorwright.runtime.buffer import address, from_dlpack, numpy_dtype, to_array, to_torch

F32 = np.dtype(np.float32)


def test_contiguous_arrays_are_not_copied():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert to_array(x, F32, "x") is x


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.T,
        lambda x: x[::2],
        lambda x: x[:, ::-1],
        lambda x: np.broadcast_to(x[:1], (4, 5)),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 5),
    ],
)
def test_others_are_copied_once(make):
    x = make(np.arange(20, dtype=np.float32).reshape(4, 5))
    y = to_array(x, F32, "x")
    assert y.flags.c_contiguous and y.flags.aligned
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(3, "f32"), (2.5, "f32"), (True, "bool"), ([1, 2], "i64"), ((1.0, 2), "bf16"),
     (1, "f8e4m3fn"), (True, "i32"), ([[1], [2]], "u8"), (7, "i4"), ([], "f32")],
)  # fmt: skip
def test_python_numbers_take_the_wanted_type(value, dtype):
    got = to_array(value, numpy_dtype(dtype), "x")
    assert got.dtype == numpy_dtype(dtype)
    np.testing.assert_array_equal(got.astype(np.float64), np.asarray(value, np.float64))


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (2.5, "i64", "Python values of type f64 given, i64 expected"),
        (1.5, "i4", "Python values of type f64 given"),
        (2, "bool", "Python values of type i64 given"),
        ([1, [2]], "f32", "cannot make f32 of it"),
        (300, "u8", "cannot make u8 of it"),
        ("text", "f32", "cannot read an array from a str"),
        (None, "f32", "cannot read an array from a NoneType"),
        (["a"], "f32", "given, f32 expected"),
    ],
)
def test_what_cannot_be_converted_is_an_error(value, dtype, text):
    with pytest.raises(RunError) as caught:
        to_array(value, numpy_dtype(dtype), "input 'x'")
    assert text in str(caught.value) and "input 'x'" in str(caught.value)


def test_buffer_protocol():
    x = array.array("f", [1, 2, 3])
    y = to_array(x, F32, "x")
    x[0] = 9
    assert y.tolist() == [9, 2, 3]
    assert to_array(b"ab", np.dtype(np.uint8), "x").tolist() == [97, 98]


def test_numpy_scalars_keep_their_type():
    assert to_array(np.float64(2), F32, "x").dtype == np.float64


TORCH = [
    (torch.float32, "f32"), (torch.float16, "f16"), (torch.bfloat16, "bf16"), (torch.bool, "bool"),
    (torch.int64, "i64"), (torch.uint8, "u8"), (torch.float8_e4m3fn, "f8e4m3fn"),
    (torch.float8_e5m2, "f8e5m2"), (torch.complex64, "c64"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), TORCH)
def test_torch_tensors_go_through_without_copies(kind, name):
    t = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(kind)
    a = to_array(t, numpy_dtype(name), "x")
    assert a.dtype == numpy_dtype(name) and a.shape == (2, 3) and address(a) == t.data_ptr()
    np.testing.assert_array_equal(a.astype(np.complex64), t.to(torch.complex64).numpy())
    if name != "c64":
        back = to_torch(np.array(a))
        assert back.dtype == kind and torch.equal(back.float(), t.float())


def test_strided_and_empty_torch_bf16():
    t = torch.arange(24).reshape(4, 6).to(torch.bfloat16)
    for view in (t.T, t[1:, ::2], t[0], t[0, 0], t[:0], t[:, 3:].T):
        a = to_array(view, numpy_dtype("bf16"), "x")
        np.testing.assert_array_equal(a.astype(np.float32), view.float().numpy())


def test_negative_strides_and_offsets_by_dlpack():
    class Owner:
        def __init__(self, a):
            self.a = a

        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self):
            return self.a.__dlpack__()

    x = np.arange(12, dtype=np.int32).reshape(3, 4)[::-1, ::2]
    loan = buffer._Loan(Owner(x).__dlpack__())
    np.testing.assert_array_equal(buffer._view(loan, "x"), x)


def test_the_owner_lives_as_long_as_the_view():
    t = torch.arange(1000).to(torch.bfloat16)
    a = from_dlpack(t, "x")[500:]
    del t
    gc.collect()
    torch.zeros(1000)
    assert a[0] == 500


def test_other_devices_are_named():
    class Gpu:
        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self):
            raise AssertionError

    with pytest.raises(RunError) as caught:
        to_array(Gpu(), F32, "input 'x'")
    assert "input 'x': the data is on a CUDA device, this program runs on the CPU" in str(
        caught.value
    )
    assert "x.cpu()" in caught.value.help


def test_gradients_are_not_silently_dropped():
    with pytest.raises(RunError, match="detach"):
        to_array(torch.ones(2, requires_grad=True), F32, "x")


@pytest.mark.parametrize("name", ["f32", "bf16", "f8e8m0", "i4", "bool", "c128"])
def test_names_go_there_and_back(name):
    assert buffer.dtype_name(numpy_dtype(name)) == name


def test_unknown_names():
    with pytest.raises(InternalError, match="no NumPy type for 'f33'"):
        numpy_dtype("f33")
    assert buffer.dtype_name(np.dtype(">f4")) == ">f4"


def test_dlpack_loans_do_not_leak():
    t = torch.zeros(1 << 18).to(torch.bfloat16)
    for _ in range(200):
        from_dlpack(t.clone(), "x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2000):
        from_dlpack(t.clone(), "x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_weights_are_aligned_and_copied_only_if_need_be():
    base, _ = buffer.aligned_empty((100,), np.dtype(np.uint8), 100)
    assert address(buffer.aligned_bytes(base)) == address(base)
    odd = buffer.aligned_bytes(base[1:])
    assert address(odd) % 64 == 0 and odd.tobytes() == base[1:].tobytes()
    assert buffer.byte_view(np.float32(1)[()].reshape(())).size == 4
    assert buffer.byte_view(np.ones((2, 2), ml_dtypes.bfloat16).T).size == 8
