"""Every row has its columns, and the names that front ends look up are unique."""

from __future__ import annotations

import pytest

from tensorwright.ops.table import BY_NAME, BY_ONNX, BY_TORCH, MODULES, OPS, incomplete
from tests.ops.rows import all_rows


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_no_column_is_missing(op):
    assert incomplete(op) == []


def test_the_table_has_every_row_of_the_folder():
    assert {op.name for op in all_rows()} == set(BY_NAME)
    assert len(MODULES) == len(set(MODULES))


def test_lookups():
    assert BY_NAME["add"] is BY_ONNX["Add"] is BY_TORCH["add.Tensor"]
    assert len(OPS) == len(BY_NAME)
