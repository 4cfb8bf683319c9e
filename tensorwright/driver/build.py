"""Module -> Program: the back half of a compilation.

    lowered module  ->  host functions, memory plan, LLVM text, objects  ->  Program

Equal kernels are compiled once: a kernel's text without its name is its identity, in the process
and in the object cache on disk. Kernels are compiled while the texts of others are written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tensorwright.base import config
from tensorwright.codegen.host import emit_entry, emit_function, recursive
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.codegen.support import support_ir
from tensorwright.driver.jobs import Jobs
from tensorwright.driver.kernels import KnownKernels
from tensorwright.ir.expr import Expr, Symbol, as_dim
from tensorwright.ir.graph import Graph, Node, array_of
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module, digest
from tensorwright.ir.type import DataType, Type, dim_text, type_symbols
from tensorwright.memory.overlap import verify_plan
from tensorwright.memory.plan import plan_memory
from tensorwright.passes.announce import announce
from tensorwright.passes.host import called_graphs, lower_entry, lower_function
from tensorwright.runtime.manifest import (
    EntryInfo,
    KernelInfo,
    Manifest,
    SymbolInfo,
    TargetInfo,
    TensorInfo,
)  # fmt: skip
from tensorwright.runtime.program import Program
from tensorwright.schedule.rules import refusal
from tensorwright.target.target import Target


@dataclass(frozen=True)
class Built:
    """What building leaves for tools: the host functions."""

    host: tuple[Kernel, ...]


def build_program(
    m: Module, target: Target, name: str, threads: int, coder: Coder, extra: dict, make=Program,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Program, Built]:  # fmt: skip
    """Compile a lowered module, of which the coder may have begun some kernels."""
    constants: dict[Node, int] = {}
    entries = [lower_entry(m, constants, name) for name in m.offered]
    functions = [lower_function(m, g, constants) for g in called_graphs(m)]
    planned = tuple(announce(plan_memory(f), m.kernels, target) for f in (*entries, *functions))
    for f in planned if config.get("verify") else ():
        verify_plan(f)
    jobs, errors = coder.jobs, coder.errors
    report = reporter(jobs, progress, len(m.kernels) + 2)
    code = coder.code(m.kernels, report)
    symbols = {k: c.symbol for k, c in code.items()}
    host = jobs.add(host_text(planned, len(entries), m, target, errors, symbols))
    keys = dict.fromkeys((host, *(c.key for c in code.values()), coder.support))
    objects = [jobs.result(key) for key in keys]
    learn(m.kernels, code, coder.known)
    report(len(m.kernels) + 2)
    jobs.cache.settle()
    manifest = make_manifest(m, target, name, threads, errors, extra)
    weights = [np.ascontiguousarray(array_of(n)) for n in constants]
    return make(manifest, objects, weights), Built(planned)


def reporter(jobs: Jobs, progress, total: int) -> Callable[[int], None]:
    """Tells `progress` how many of all kernels are compiled, of those whose text is written."""

    def report(written: int) -> None:
        if progress is not None:
            progress(written - (len(jobs.found) - jobs.done), total)

    return report


def host_text(
    planned: tuple[Kernel, ...], entries: int, m: Module, target: Target, errors: list[str],
    symbols: dict[str, str],
) -> str:  # fmt: skip
    """The LLVM text of the host functions, `entries` first, calling kernels by the names of their
    shared code."""
    host = ModuleText(errors)
    ids = {k: i for i, k in enumerate(m.kernels)}
    deep = recursive(planned)
    for f in planned[:entries]:
        emit_entry(f, host, ids, bool(deep))
    for f in planned[entries:]:
        emit_function(f, host, ids, f.name in deep)
    called = re.compile(r"@([\w.$-]+)\(")
    text = called.sub(lambda c: f"@{symbols.get(c[1], c[1])}(", host.text(target.triple))
    return unique_lines(text)


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


@dataclass(frozen=True)
class Code:
    """Where a kernel's machine code is: a function in the object of a key. `codes`: the numbers of
    its messages, None if they were known before."""

    symbol: str
    key: str
    codes: dict[str, int] | None = None


class Coder:
    """Begins the code of kernels, as soon as they are as they will be, each once, and before them
    that of the support functions. errors: the messages of all of them, by number."""

    def __init__(self, target: Target, jobs: Jobs, known: KnownKernels | None = None):
        self.target, self.jobs, self.known = target, jobs, known
        self.errors: list[str] = []
        self.codes: dict[Kernel, Code] = {}
        self.support = jobs.add(support_ir(target.triple))

    def begin(self, k: Kernel) -> Code:
        """The kernel's code, known or begun."""
        if k not in self.codes:
            self.codes[k] = self.find(k) or self.write(k)
        return self.codes[k]

    def find(self, k: Kernel) -> Code | None:
        record = None if self.known is None else self.known.records.get(k)
        if record is None or not numbered(record.codes, self.errors):
            return None
        self.jobs.keep(record.object, self.known.objects[k])
        return Code(record.symbol, record.object)

    def write(self, k: Kernel) -> Code:
        symbol, text, codes = kernel_text(k, self.target, self.errors)
        return Code(symbol, self.jobs.add(text), codes)

    def code(self, kernels: dict[str, Kernel], report: Callable[[int], None]) -> dict[str, Code]:
        """Each kernel's code, by name."""
        code: dict[str, Code] = {}
        for name, k in kernels.items():
            code[name] = self.begin(k)
            report(len(code))
        return code


def numbered(codes: dict[str, int], errors: list[str]) -> bool:
    """Whether messages get the numbers that compiled code has for them; they are then added."""
    module = ModuleText(list(errors))
    if any(module.error_code(message) != code for message, code in codes.items()):
        return False
    errors[:] = module.errors
    return True


def kernel_text(k: Kernel, target: Target, errors: list[str]) -> tuple[str, str, dict[str, int]]:
    """(name by content, LLVM text under that name, the numbers of its messages)."""
    module = ModuleText(errors)
    emit_kernel(k, module, target)
    own = re.compile(rf"@{re.escape(k.name)}([(.])")
    text = module.text(target.triple)
    symbol = "k" + digest(own.sub(r"@K\1", text))[:16]
    return symbol, own.sub(rf"@{symbol}\1", text), module.codes


def learn(kernels: dict[str, Kernel], code: dict[str, Code], known: KnownKernels | None) -> None:
    """Keep what new kernels became, now that it is compiled."""
    for name, c in code.items():
        if known is not None and c.codes is not None:
            known.learn(kernels[name], c.symbol, c.key, c.codes)


def make_manifest(m: Module, target: Target, name, threads, errors, extra) -> Manifest:
    main = entry_info(m.main)
    return Manifest(
        name=name,
        target=TargetInfo(target.triple, target.required, target.name),
        inputs=main.inputs, outputs=main.outputs, symbols=main.symbols, state=main.state,
        errors=tuple(errors),
        kernels=tuple(kernel_info(k) for k in m.kernels.values()),
        threads=threads, extra=extra,
        entries={e: entry_info(m.graphs[e]) for e in m.entries},
        data={t.name: data_info(t) for t in m.data_types().values()},
    )  # fmt: skip


def entry_info(g: Graph) -> EntryInfo:
    names = g.result_names or tuple(r.name or f"out{k}" for k, r in enumerate(g.results))
    return EntryInfo(
        tuple(tensor_info(p.name, p) for p in g.params),
        tuple(tensor_info(n, r) for n, r in zip(names, g.results)),
        make_symbols(g), g.state,
    )  # fmt: skip


def kernel_info(k: Kernel) -> KernelInfo:
    flops, moved = (0, 0) if k.work is None else map(as_dim, k.work)
    return KernelInfo(k.name, *(dim_text(d) if isinstance(d, Expr) else d for d in (flops, moved)),
                      k.sources, refusal(k))  # fmt: skip


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


def data_info(t: DataType) -> list:
    return [[c.name, [field_info(name, f) for name, f in c.fields]] for c in t.cases]


def field_info(name: str, t: Type) -> list:
    if isinstance(t, DataType):
        return [name, t.name, []]
    return [name, t.dtype.name, [dim_text(d) if isinstance(d, Expr) else d for d in t.shape]]


def tensor_info(name: str, node: Node) -> TensorInfo:
    if isinstance(node.type, DataType):
        return TensorInfo(name, node.type.name, ())
    shape = tuple(dim_text(d) if isinstance(d, Expr) else d for d in node.shape)
    return TensorInfo(name, node.dtype.name, shape)
