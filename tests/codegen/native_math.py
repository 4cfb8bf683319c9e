"""Expressions compiled to vector loops, for testing expansions with the target's real operations.

    kernel = Kernel(x, expand_math(e)); y = kernel(values)

Only the operations that `expand_math` may produce are known; anything else raises KeyError, which
makes this the check that an expansion is complete.
"""

import ctypes
import time

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from tensorwright.codegen.math_tables import LOOKUPS
from tensorwright.ir.expr import Expr, walk

LANES = 16
llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
PREDICATES = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "ne": "!="}
INTRINSICS = {"fma": "fma", "abs": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil",
              "trunc": "trunc", "round": "roundeven"}  # fmt: skip
INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "and": "and_", "or": "or_", "xor": "xor",
           "shl": "shl"}  # fmt: skip
FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}


def scalar_type(d):
    return {"f32": ir.FloatType(), "f64": ir.DoubleType(), "bool": ir.IntType(1)}.get(
        d.name, ir.IntType(d.bits)
    )


def vector_type(d):
    return ir.VectorType(scalar_type(d), LANES)


def emit(b: ir.IRBuilder, e: Expr, a: list, module: ir.Module):
    """The value of one node whose arguments are the values `a`."""
    kind, vec = (e.args[0].dtype if e.args else e.dtype), vector_type(e.dtype)
    if e.op == "const":
        return ir.Constant(vec, [ir.Constant(vec.element, e.value)] * LANES)
    if e.op == "call" and e.value == "scale":
        return emit_scale(b, vec, a, module)
    if e.op == "call" and e.value in LOOKUPS:
        return emit_lookup(b, vec, LOOKUPS[e.value], a, module)
    if e.op == "neg":
        return b.fneg(a[0])
    if e.op == "select":
        return b.select(*a)
    if e.op == "bitcast":
        return b.bitcast(a[0], vec)
    if e.op == "cast":
        return emit_cast(b, kind, e.dtype, a[0])
    if e.op in PREDICATES:
        if not kind.is_float:
            return (b.icmp_signed if kind.is_signed else b.icmp_unsigned)(PREDICATES[e.op], *a)
        unordered = e.op == "ne"
        return (b.fcmp_unordered if unordered else b.fcmp_ordered)(PREDICATES[e.op], *a)
    if e.op == "shr":
        return (b.ashr if kind.is_signed else b.lshr)(*a)
    if kind.is_float and e.op in INTRINSICS:
        width = f"v{LANES}f{kind.bits}"
        f = module.declare_intrinsic(
            f"llvm.{INTRINSICS[e.op]}.{width}", fnty=ir.FunctionType(vec, [vec] * len(a))
        )
        return b.call(f, a)
    return getattr(b, (FLOAT if kind.is_float else INTEGER)[e.op])(*a)


def emit_scale(b, vec, a, module):
    mask, mode = ir.IntType(16), ir.IntType(32)
    kind = ir.FunctionType(vec, [vec, vec, vec, mask, mode])
    f = module.globals.get("llvm.x86.avx512.mask.scalef.ps.512") or ir.Function(
        module, kind, "llvm.x86.avx512.mask.scalef.ps.512"
    )
    return b.call(f, [*a, a[0], ir.Constant(mask, -1), ir.Constant(mode, 4)])


def emit_lookup(b, vec, table, a, module):
    name = "llvm.x86.avx512.permvar.sf.512"
    kind = ir.FunctionType(vec, [vec, ir.VectorType(ir.IntType(32), LANES)])
    f = module.globals.get(name) or ir.Function(module, kind, name)
    return b.call(f, [ir.Constant(vec, list(table)), *a])


def emit_cast(b, source, to, value):
    vec = vector_type(to)
    if source.is_float and to.is_float:
        return (b.fpext if to.bits > source.bits else b.fptrunc)(value, vec)
    if to.is_float:
        return (b.sitofp if source.is_signed and source.kind != "bool" else b.uitofp)(value, vec)
    if source.is_float:
        return b.fptosi(value, vec)
    if source.bits > to.bits:
        return b.trunc(value, vec)
    return (b.sext if source.is_signed else b.zext)(value, vec)


class Kernel:
    """A compiled loop y[j] = e(x[j], ...), j = i & mask, over arrays a multiple of LANES long."""

    def __init__(self, inputs: list[Expr], e: Expr):
        module = ir.Module("math")
        self.arrays = len(inputs) + 1
        pointers = [scalar_type(i.dtype).as_pointer() for i in inputs]
        pointers.append(scalar_type(e.dtype).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [*pointers, ir.IntType(64), ir.IntType(64)])
        f = ir.Function(module, kind, "run")
        entry, loop, done = (f.append_basic_block(n) for n in ("entry", "loop", "done"))
        b = ir.IRBuilder(entry)
        b.branch(loop)
        b.position_at_end(loop)
        i = b.phi(ir.IntType(64))
        i.add_incoming(ir.Constant(ir.IntType(64), 0), entry)
        at = b.and_(i, f.args[-1])
        values = {x: self._load(b, p, at, x.dtype) for x, p in zip(inputs, f.args)}
        for node in walk(e):
            if node not in values:
                values[node] = emit(b, node, [values[a] for a in node.args], module)
        out = b.bitcast(b.gep(f.args[-3], [at]), vector_type(e.dtype).as_pointer())
        b.store(values[e], out).align = e.dtype.bytes
        following = b.add(i, ir.Constant(ir.IntType(64), LANES))
        i.add_incoming(following, loop)
        b.cbranch(b.icmp_signed("<", following, f.args[-2]), loop, done)
        b.position_at_end(done)
        b.ret_void()
        self._compile(module, e)

    @staticmethod
    def _load(b, pointer, i, d):
        value = b.load(b.bitcast(b.gep(pointer, [i]), vector_type(d).as_pointer()))
        value.align = d.bytes
        return value

    def _compile(self, module: ir.Module, e: Expr) -> None:
        target = llvm.Target.from_default_triple()
        features = llvm.get_host_cpu_features().flatten()
        machine = target.create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=3
        )
        head, body = str(module).split("\n{", 1)
        text = head + ' "prefer-vector-width"="512" "min-legal-vector-width"="512"\n{' + body
        parsed = llvm.parse_assembly(text)
        parsed.verify()
        self.assembly = machine.emit_assembly(parsed)
        self.engine = llvm.create_mcjit_compiler(parsed, machine)
        self.engine.finalize_object()
        kinds = [ctypes.c_void_p] * self.arrays + [ctypes.c_int64] * 2
        self.function = ctypes.CFUNCTYPE(None, *kinds)(self.engine.get_function_address("run"))
        self.dtype = e.dtype.numpy

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        size = arrays[0].size
        padded = [np.concatenate([a.ravel(), np.ones(-size % LANES, a.dtype)]) for a in arrays]
        out = np.empty(padded[0].size, self.dtype)
        self.function(*(a.ctypes.data for a in (*padded, out)), out.size, -1)
        return out[:size].reshape(arrays[0].shape)

    def nanoseconds(self, *arrays: np.ndarray, repeat: int = 400) -> float:
        """Time of LANES elements, over arrays of a power of two elements that fit in cache."""
        out = np.empty(arrays[0].size, self.dtype)
        addresses = [a.ctypes.data for a in (*arrays, out)]
        best = float("inf")
        for _ in range(20):
            start = time.perf_counter()
            self.function(*addresses, out.size * repeat, out.size - 1)
            best = min(best, time.perf_counter() - start)
        return best * 1e9 * LANES / (out.size * repeat)
