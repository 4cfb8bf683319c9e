"""The stages of a compilation, as data.

A pipeline is a tuple of named passes, each a pure function (Module, Target) -> Module, so that
tools can show, stop after and bisect them:

    run_pipeline(m, target, observe=lambda name, m: print(name, len(m.kernels)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from tensorwright.base import config, trace
from tensorwright.batching.generations import by_generation
from tensorwright.ir.module import Module
from tensorwright.ir.printer import to_text
from tensorwright.ir.verify import verify as check
from tensorwright.passes.attention import recognise_attention
from tensorwright.passes.captures import inline_captures
from tensorwright.passes.convolutions import shape_convolutions
from tensorwright.passes.cse import merge_equal
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.functions import resolve_functions
from tensorwright.passes.fuse import fuse
from tensorwright.passes.hoist import hoist
from tensorwright.passes.indices import check_indices
from tensorwright.passes.inplace import update_in_place
from tensorwright.passes.layout import recorded_layouts
from tensorwright.passes.lower import lower
from tensorwright.passes.masks import place_masks
from tensorwright.passes.narrow import narrow
from tensorwright.passes.precision import compute_in
from tensorwright.passes.product_sums import sum_products
from tensorwright.passes.schedule_kernels import schedule_kernels
from tensorwright.passes.shapes import simplify_shapes
from tensorwright.passes.simplify import clean, simplify
from tensorwright.passes.specialize import specialize
from tensorwright.passes.strassen import choose_products
from tensorwright.passes.turns import count_turns
from tensorwright.passes.unmet import drop_unmet, separate_places
from tensorwright.passes.windows import separate_windows
from tensorwright.passes.winograd import choose_algorithms
from tensorwright.target.target import Target

Pass = Callable[[Module, Target], Module]
Observe = Callable[[str, Module], None]


PIPELINE: tuple[tuple[str, Pass], ...] = (
    ("functions", lambda m, t: resolve_functions(m)),
    ("generations", by_generation),
    ("specialize", lambda m, t: specialize(m)),
    ("hoist", lambda m, t: hoist(m)),
    ("shapes", lambda m, t: simplify_shapes(m)),
    ("clean", lambda m, t: clean(m)),
    ("attention", lambda m, t: recognise_attention(m)),
    ("expand", lambda m, t: expand_composites(m)),
    ("simplify", lambda m, t: simplify(m)),
    ("narrow", lambda m, t: narrow(m)),
    ("sums", sum_products),
    ("captures", lambda m, t: inline_captures(m)),
    ("layout", lambda m, t: clean(drop_unmet(recorded_layouts(m, t)))),
    ("winograd", choose_algorithms),
    ("convolutions", lambda m, t: clean(shape_convolutions(separate_places(m)))),
    ("strassen", lambda m, t: clean(choose_products(m, t))),
    ("windows", lambda m, t: clean(separate_windows(m))),
    ("precision", lambda m, t: merge_equal(compute_in(m, t))),
    ("indices", lambda m, t: check_indices(m)),
    ("masks", lambda m, t: place_masks(m)),
    ("fuse", fuse),
    ("lower", lambda m, t: lower(m)),
    ("inplace", lambda m, t: update_in_place(m)),
    ("turns", count_turns),
    ("schedule", schedule_kernels),
)


def run_pipeline(
    m: Module, target: Target, verify: bool = False, observe: Observe | None = None,
    instead: Mapping[str, Pass] = MappingProxyType({}),
) -> Module:  # fmt: skip
    """`m` lowered to kernels for `target`; `observe` is told the module after each pass; `instead`
    names passes to run in another way."""
    verify = verify or config.get("verify") > 0
    for name, after in stages(m, target, instead=instead):
        m = after
        if verify:
            check(m)
        if config.get("dump"):
            trace.dump(name, to_text(m))
        if observe is not None:
            observe(name, m)
    return m


def stages(
    m: Module, target: Target, after: str = "", instead: Mapping[str, Pass] = MappingProxyType({})
) -> Iterator[tuple[str, Module]]:
    """(pass, module after it) one after another, as far as they are asked for; those behind the
    pass `after` only, if it is named."""
    names = [name for name, _ in PIPELINE]
    for name, run in PIPELINE[names.index(after) + 1 if after else 0 :]:
        with trace.running(name) as timing:
            changed = instead.get(name, run)(m, target)
            timing.changed = changed is not m
        m = changed
        yield name, m
