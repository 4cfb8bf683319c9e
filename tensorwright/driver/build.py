"""Module -> Program: the back half of a compilation.

    lowered module  ->  host functions, memory plan, LLVM text, objects  ->  Program

Equal kernels are compiled once: a kernel's text without its name is its identity, in the process
and in the object cache on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorwright.codegen.host import emit_entry, emit_function
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.codegen.support import support_ir
from tensorwright.ir.expr import Expr, Symbol, as_dim
from tensorwright.ir.graph import Graph, Node, array_of
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module, digest
from tensorwright.ir.type import dim_text, type_symbols
from tensorwright.memory.plan import plan_memory
from tensorwright.passes.host import lower_entry, lower_function
from tensorwright.runtime.manifest import (
    KernelInfo,
    Manifest,
    SymbolInfo,
    TargetInfo,
    TensorInfo,
)  # fmt: skip
from tensorwright.runtime.program import Program
from tensorwright.target.target import Target


@dataclass(frozen=True)
class Built:
    """What building leaves for tools: the host functions and each kernel's LLVM text."""

    host: tuple[Kernel, ...]
    texts: dict[str, str]


def build_program(
    m: Module, target: Target, name: str, threads: int, objects, extra: dict, make=Program
) -> tuple[Program, Built]:
    """Compile a lowered module. `objects(key, text)` gives the object code of an LLVM text."""
    constants: dict[Node, int] = {}
    entry = lower_entry(m, constants)
    functions = [lower_function(m, g, constants) for k, g in m.graphs.items() if k != m.entry]
    errors: list[str] = []
    rename, texts = kernel_texts(m.kernels, target, errors)
    host = ModuleText(errors)
    ids = {k: i for i, k in enumerate(m.kernels)}
    planned = [plan_memory(entry), *(plan_memory(f) for f in functions)]
    emit_entry(planned[0], host, ids)
    for f in planned[1:]:
        emit_function(f, host, ids)
    host_text = host.text(target.triple)
    for old, new in rename.items():
        host_text = host_text.replace(f"@{old}(", f"@{new}(")
    host_text = unique_lines(host_text)
    all_texts = {"host": host_text, **texts, "support": support_ir(target.triple)}
    code = objects({k: t for k, t in all_texts.items()})
    manifest = make_manifest(m, target, name, threads, errors, extra)
    weights = [np.ascontiguousarray(array_of(n)) for n in constants]
    return make(manifest, code, weights), Built(tuple(planned), all_texts)


def unique_lines(text: str) -> str:
    """Drop repeated declarations, which renaming to shared kernels leaves."""
    seen: set[str] = set()
    out = []
    for line in text.splitlines():
        if line.startswith("declare "):
            if line in seen:
                continue
            seen.add(line)
        out.append(line)
    return "\n".join(out) + "\n"


def kernel_texts(
    kernels: dict[str, Kernel], target: Target, errors: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """(kernel name -> name of the equal kernel that is compiled, that name -> LLVM text)."""
    rename: dict[str, str] = {}
    texts: dict[str, str] = {}
    for name, k in kernels.items():
        module = ModuleText(errors)
        emit_kernel(k, module, target)
        text = module.text(target.triple)
        anonymous = text.replace(f"@{name}(", "@K(").replace(f"@{name}.", "@K.")
        shared = "k" + digest(anonymous)[:16]
        rename[name] = shared
        texts.setdefault(shared, anonymous.replace("@K(", f"@{shared}(").replace("@K.", f"@{shared}."))
    return rename, texts


def make_manifest(m, target: Target, name, threads, errors, extra) -> Manifest:
    g = m.main
    inputs = tuple(tensor_info(p.name, p) for p in g.params)
    names = g.result_names or tuple(r.name or f"out{k}" for k, r in enumerate(g.results))
    outputs = tuple(tensor_info(n, r) for n, r in zip(names, g.results))
    return Manifest(
        name=name,
        target=TargetInfo(target.triple, target.required, target.name),
        inputs=inputs, outputs=outputs,
        symbols=make_symbols(g),
        errors=tuple(errors),
        kernels=tuple(kernel_info(k) for k in m.kernels.values()),
        threads=threads, extra=extra,
    )  # fmt: skip


def kernel_info(k: Kernel) -> KernelInfo:
    flops, moved = (0, 0) if k.work is None else map(as_dim, k.work)
    return KernelInfo(k.name, *(dim_text(d) if isinstance(d, Expr) else d for d in (flops, moved)),
                      k.sources)  # fmt: skip


def _name(s: Symbol) -> str:
    return s.name


def make_symbols(g: Graph) -> dict[str, SymbolInfo]:
    """What is promised of the symbols in the shapes of the inputs."""
    symbols = {s.name: s for p in g.params for s in sorted(type_symbols(p.type), key=_name)}
    return {
        n: SymbolInfo(s.min if s.min is not None else -(2**63), s.max, s.multiple_of,
                      tuple(s.values or ()))
        for n, s in symbols.items()
    }  # fmt: skip


def tensor_info(name: str, node: Node) -> TensorInfo:
    shape = tuple(dim_text(d) if isinstance(d, Expr) else d for d in node.shape)
    return TensorInfo(name, node.dtype.name, shape)



