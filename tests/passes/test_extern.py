"""Library functions called by name, in destination-passing style."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import TensorwrightError
from tensorwright.ir.expr import var
from tensorwright.ir.graph import graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.elementwise import add
from tensorwright.ops.kernel import call_extern


def test_function_of_libc_on_a_symbolic_size():
    # void bcopy(const void *source, void *target, size_t bytes) has the order of our convention
    n = var("n", min=1)
    x = param("x", tensor("f32", n))
    y = call_extern(add(x, 1.0), symbol="bcopy", scalars=(n * 4,), type=x.type)
    program = tw.compile(Module({"main": graph("main", [x], [add(y, y)])}))
    for size in (1, 7, 100):
        a = np.arange(size, dtype=np.float32)
        np.testing.assert_array_equal(program(a), 2 * (a + 1))


def test_missing_function_is_named():
    x = param("x", tensor("f32", 4))
    y = call_extern(x, symbol="no_such_function", type=x.type)
    with pytest.raises(TensorwrightError, match="no_such_function"):
        tw.compile(Module({"main": graph("main", [x], [y])}))
