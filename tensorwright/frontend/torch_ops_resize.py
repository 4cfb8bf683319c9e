"""aten operators: resize."""

from __future__ import annotations

from tensorwright.frontend.torch_ops import Rows

RESIZE = Rows()
