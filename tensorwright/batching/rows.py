"""What batching rules are written with: one node, and its operands for all lanes at once.

    Row(size=b, node=<add (x: f32[3], y: f32[2, 3])>, args=(<f32[b, 3]>, <f32[2, 3]>), on=(1, 0))

A lane is one example. An operand that differs between lanes is `on` and has a leading dimension of
`size` lanes; the others are shared by all. A rule gives the result with the leading dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorwright.ir.graph import Node, graph, param
from tensorwright.ir.type import Dim, TensorType
from tensorwright.ops.control import items, make_tuple, scan_
from tensorwright.ops.define import normalize_axis
from tensorwright.ops.movement import broadcast_to, reshape, transpose


def with_lanes(x: Node, size: Dim) -> Node:
    """A shared tensor repeated for each lane: [...] -> [size, ...]."""
    return broadcast_to(x, shape=(size, *x.shape))


def aligned(x: Node, rank: int) -> Node:
    """[size, d...] with ones behind the lanes, so that d... broadcasts from the right in `rank`
    dimensions."""
    missing = rank - (x.rank - 1)
    if missing <= 0:
        return x
    return reshape(x, shape=(x.shape[0], *(1,) * missing, *x.shape[1:]))


def moved(x: Node, source: int, to: int) -> Node:
    """x with one dimension moved to another place."""
    if source == to:
        return x
    order = [k for k in range(x.rank) if k != source]
    order.insert(to, source)
    return transpose(x, perm=tuple(order))


def merged(x: Node) -> Node:
    """The first two dimensions as one."""
    return reshape(x, shape=(-1, *x.shape[2:])) if _countable(x) else reshape(
        x, shape=(0, *x.shape[2:]))  # fmt: skip


def _countable(x: Node) -> bool:
    """Whether -1 has one meaning: no other dimension may be 0."""
    return all(d != 0 for d in x.shape[2:])


@dataclass(frozen=True)
class Row:
    size: Dim
    node: Node  # of one lane; its operands' types are those of one lane
    args: tuple[Node | None, ...]
    on: tuple[bool, ...]

    @property
    def attrs(self) -> dict:
        return self.node.attrs

    def rank(self, k: int = 0) -> int:
        """The rank of operand k in one lane."""
        return self.node.args[k].rank

    def lead(self, k: int) -> Node | None:
        """Operand k with a dimension for the lanes, repeated if it is shared."""
        x = self.args[k]
        return x if x is None or self.on[k] else with_lanes(x, self.size)

    def all(self) -> list[Node | None]:
        return [self.lead(k) for k in range(len(self.args))]

    def only(self, *which: int) -> bool:
        """Whether no operands but these differ between lanes."""
        return all(k in which for k, one in enumerate(self.on) if one)

    def axis(self, name: str = "axis", rank: int | None = None) -> int:
        """The attribute that names an axis, behind the lanes."""
        rank = self.rank() if rank is None else rank
        return normalize_axis(self.node.op.name, self.attrs[name], rank) + 1

    def again(self, *args, **attrs) -> Node:
        """The same operator on other operands, with some attributes changed."""
        kept = {k: v for k, v in self.attrs.items() if k not in attrs}
        return self.node.op(*args, **kept, **attrs)


def one_by_one(r: Row) -> Node:
    """The operator on one lane after another, where no definition covers all at once."""
    present = [k for k, x in enumerate(r.args) if x is not None]
    order = [k for k in present if r.on[k]] + [k for k in present if not r.on[k]]
    scanned = sum(r.on[k] for k in present)
    types = {k: r.args[k].type for k in order}
    for k in order[:scanned]:
        types[k] = TensorType(types[k].dtype, types[k].shape[1:])
    params = {k: param(f"x{k}", types[k]) for k in order}
    y = r.again(*(params.get(k) for k in range(len(r.args))))
    body = graph(r.node.op.name, list(params.values()), items(y))
    found = scan_(*(r.args[k] for k in order), body=body, carried=0, scanned=scanned)
    return found if len(body.results) > 1 else items(found)[0]


def tuple_of(parts: Sequence[Node]) -> Node:
    return parts[0] if len(parts) == 1 else make_tuple(*parts)
