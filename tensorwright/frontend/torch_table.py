"""The table of all aten operators that have a converter here: `add.Tensor` -> Converter."""

from __future__ import annotations

from tensorwright.frontend.torch_ops import Converter
from tensorwright.frontend.torch_ops_backward import BACKWARD
from tensorwright.frontend.torch_ops_control import CONTROL
from tensorwright.frontend.torch_ops_experts import EXPERTS
from tensorwright.frontend.torch_ops_index import INDEX
from tensorwright.frontend.torch_ops_nn import NN
from tensorwright.frontend.torch_ops_norm import NORM
from tensorwright.frontend.torch_ops_pointwise import POINTWISE
from tensorwright.frontend.torch_ops_random import RANDOM
from tensorwright.frontend.torch_ops_recurrent import RECURRENT
from tensorwright.frontend.torch_ops_reduce import REDUCE
from tensorwright.frontend.torch_ops_resize import RESIZE
from tensorwright.frontend.torch_ops_shape import SHAPE

TABLES = (POINTWISE, SHAPE, INDEX, REDUCE, NN, NORM, RESIZE, RECURRENT, RANDOM, BACKWARD, CONTROL,
          EXPERTS)  # fmt: skip
TABLE: dict[str, Converter] = {name: row for t in TABLES for name, row in t.table.items()}
