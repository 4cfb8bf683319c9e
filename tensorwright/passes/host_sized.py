"""Loops and branches in host functions whose results change their sizes: state on the heap.

    xs = while_(xs, body=<graph (f32[d]) -> f32[d + 1]>)
        ->   a box for xs; each iteration reads the sizes, works on a view, and refills the box

A box is a buffer of scope "boxed" and the variables that hold its sizes; references need no box.
"""

from __future__ import annotations

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import boolean, i64, index
from tensorwright.ir.expr import Buffer, as_expr, cast, const, load
from tensorwright.ir.graph import Graph, Node, bound_symbols
from tensorwright.ir.loop import Alloc, Copy, For, If, Let, Resize, Seq, View, While, store
from tensorwright.ir.type import TupleType, type_symbols
from tensorwright.passes.host_objects import reference
from tensorwright.passes.takers import is_object

Value = Buffer | tuple["Value", ...]


class Sized:
    """The part of `Host` for sizes that change; the rest of it is in `host.py`."""

    def box(self, t, name: str) -> tuple[Buffer, Buffer | None]:
        """A buffer on the heap and the variables that hold its sizes."""
        if is_object(t):
            held = reference(name)
            self.body.append(Alloc(held))
            return held, None
        data = Buffer(name, t.dtype, t.shape, "boxed", 64)
        sizes = Buffer(f"{name}_sizes", i64, (max(t.rank, 1),), "local")
        self.body += [Alloc(data), Alloc(sizes)]
        return data, sizes

    def put(self, box: tuple[Buffer, Buffer], source: Buffer) -> None:
        """Make a box hold a copy of `source`."""
        data, sizes = box
        if sizes is None:
            self.body.append(store(data, (), load(source, ())))
            return
        dims = tuple(as_expr(d) for d in source.shape)
        view = Buffer(f"{data.name}_new", data.dtype, source.shape, "arena", 64)
        self.body += [Resize(data, dims), View(view, data, const(0)), Copy(view, source)]
        self.body += [store(sizes, k, cast(d, i64)) for k, d in enumerate(dims)]

    def open_box(self, shape, box: tuple[Buffer, Buffer]) -> Buffer:
        """What a box holds now; symbols of `shape` that are not known yet are read from its
        sizes."""
        data, sizes = box
        if sizes is None:
            return data
        unknown = [(k, as_expr(d)) for k, d in enumerate(shape)]
        for k, d in unknown:
            if d.op == "sym" and self.dim(d) is d and d.value not in self.known:
                s = self.fresh(d.value)
                self.known.add(s)
                self.known.add(d.value)
                self.body.append(Let(s, cast(load(sizes, (k,)), index)))
        own = Buffer(data.name, data.dtype, self.shape(shape), "arena", 64)
        self.body.append(View(own, data, const(0)))
        return own

    def unbox(self, node: Node, types, boxes) -> Value:
        self.known -= set(bound_symbols(node))
        free = {s for t in types for s in type_symbols(t)} - set(bound_symbols(node))
        self.known |= free
        out = tuple(self.open_box(t.shape, box) for t, box in zip(types, boxes))
        return out if isinstance(node.type, TupleType) else out[0]

    def sized_while(self, node: Node) -> Value:
        """State whose size changes lives in boxes; each iteration reads the sizes first."""
        count = node.attrs["carried"]
        types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
        cond, body = node.attrs["cond"], node.attrs["body"]
        boxes = [self.box(t, f"{node.name or 'state'}_{k}") for k, t in enumerate(types)]
        for box, a in zip(boxes, node.args):
            if is_object(a.type):
                self.acquire(self.buffer(a))
            self.put(box, self.buffer(a))
        rest = [self.values[a] for a in node.args[count:]]
        go = Buffer("go", boolean, (), "local")
        self.body += [Alloc(go), store(go, (), const(True, boolean))]
        inner = self.block()
        outside = {s for a in node.args for s in type_symbols(a.type)}
        inner.known = set(outside)
        shapes = [p.shape for p in body.params[:count]]
        state = [inner.open_box(shape, box) for shape, box in zip(shapes, boxes)]
        test = inner.block()
        test.run(cond, [*state, *rest])
        inner.body += test.body
        inner.body.append(store(go, (), load(test.buffer(cond.results[0]), ())))
        step = inner.block()
        step.owned = {b for b, sizes in boxes if sizes is None}
        step.refill(body, [*state, *rest], boxes, [])
        inner.body.append(If(load(go, ()), Seq(tuple(step.body))))
        self.body.append(While(load(go, ()), Seq(tuple(inner.body))))
        return self.unbox(node, types, boxes)

    def refill(self, body: Graph, arguments: list[Value], boxes, outputs: list[Buffer]) -> None:
        """One iteration: the first results go into boxes, once all are known, the others to
        `outputs`."""
        self.run(body, arguments)
        fresh = []
        for k, r in enumerate(body.results[: len(boxes)]):
            source = self.buffer(r)
            held = (reference(f"next_{k}") if is_object(r.type) else
                    Buffer(f"next_{k}", source.dtype, source.shape, "arena", 64))  # fmt: skip
            self.body += [Alloc(held), Copy(held, source)]
            fresh.append(held)
        for out, r in zip(outputs, body.results[len(boxes) :]):
            self.body.append(Copy(out, self.buffer(r)))
        self.finish()
        for box, held in zip(boxes, fresh):
            self.put(box, held)

    def sized_scan(self, node: Node) -> Value:
        """A scan whose state changes its size."""
        carried, scanned = node.attrs["carried"], node.attrs["scanned"]
        types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
        body, name = node.attrs["body"], node.name or "scan"
        if any(set(bound_symbols(node)) & type_symbols(t) for t in types[carried:]):
            raise CompileError(
                "scan: the pieces that are stacked differ in size",
                help="pad them to their largest size",
            ).located(node.loc)
        boxes = [self.box(t, f"{name}_{k}") for k, t in enumerate(types[:carried])]
        for box, a in zip(boxes, node.args):
            if is_object(a.type):
                self.acquire(self.buffer(a))
            self.put(box, self.buffer(a))
        stacked = [
            Buffer(f"{name}_{k}", t.dtype, self.shape(t.shape), "arena", 64)
            for k, t in enumerate(types[carried:], carried)
        ]
        self.body += [Alloc(b) for b in stacked]
        v, t, length = self.steps(node)
        inner = self.block()
        inner.known = {x for a in node.args for x in type_symbols(a.type)}
        shapes = [p.shape for p in body.params[:carried]]
        state = [inner.open_box(shape, box) for shape, box in zip(shapes, boxes)]
        xs = node.args[carried : carried + scanned]
        slices = [inner.slice(self.buffer(x), t) for x in xs]
        rest = [self.values[a] for a in node.args[carried + scanned :]]
        outs = [inner.slice(y, t) for y in stacked]
        inner.owned = {b for b, sizes in boxes if sizes is None}
        inner.refill(body, [*state, *slices, *rest], boxes, outs)
        self.body.append(For(v, const(0), length, Seq(tuple(inner.body))))
        final = self.unbox(node, types[:carried], boxes)
        out = (*(final if isinstance(final, tuple) else (final,)), *stacked)
        return out if isinstance(node.type, TupleType) else out[0]
