"""aten operators: recurrent."""

from __future__ import annotations

from tensorwright.frontend.torch_ops import Rows

RECURRENT = Rows()
