"""Names of dimensions that torch marks as dynamic."""

import torch
from torch import nn
from torch.export import Dim, export

from tensorwright.frontend.torch import import_torch


class Sum(nn.Module):
    def forward(self, ids, weight):
        return (ids + weight).sum(1)


def shapes_of(dynamic_shapes) -> list[str]:
    args = torch.ones(3, 5), torch.ones(3, 5)
    exported = export(Sum(), args, dynamic_shapes=dynamic_shapes)
    return [str(p.type) for p in import_torch(exported).main.params]


def test_a_dimension_without_a_name_is_called_after_its_parameter():
    marks = {0: Dim.AUTO, 1: Dim.AUTO}
    assert shapes_of((marks, marks)) == ["f32[ids_dim0, ids_dim1]"] * 2
