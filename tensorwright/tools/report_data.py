"""What the report page shows of a program, as plain data.

Graphs are lists of nodes `{id, label, sub, args, kernel, ops, source}`; kernels are numbered as in
the manifest. Everything symbolic is evaluated for the inputs of the run that is shown.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping

import numpy as np

from tensorwright.base.errors import TensorwrightError
from tensorwright.codegen.engine import assembly
from tensorwright.driver.pipeline import stages
from tensorwright.ir import loop as ir
from tensorwright.ir.graph import CONST, PARAM, Graph, Node, subgraphs
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module
from tensorwright.ir.printer import to_text
from tensorwright.runtime.dims import bind
from tensorwright.runtime.profile import Profile
from tensorwright.runtime.program import Program
from tensorwright.target.target import Target
from tensorwright.tools.explain import explain
from tensorwright.tools.machine import Machine
from tensorwright.tools.memory import evaluate, frame_of, placed
from tensorwright.tools.output import duration, size
from tensorwright.tools.roofline import points
from tensorwright.tools.show import native_texts
from tensorwright.tools.summary import short_source, summarize
from tensorwright.tools.timing import Latency

HIDDEN = (PARAM, CONST)


def report_data(
    program: Program, module: Module, feeds: Mapping[str, np.ndarray], profile: Profile,
    machine: Machine, latency: Latency, native: bool,
) -> dict:  # fmt: skip
    """All that the page needs."""
    names = [k.name for k in program.manifest.kernels]
    number = {n: k for k, n in enumerate(names)}
    fused = after_fusion(module, program.target)
    return {
        "title": program.name,
        "summary": summary(program, feeds, latency, profile),
        "graphs": {"model": model_graph(module.main, program.lowered, number),
                   "kernels": kernel_graph(program.lowered.main, fused, number)},
        "kernels": kernels(program, profile, machine, native),
        "machine": {"gflops": machine.gflops, "gbytes": machine.gbytes,
                    "processor": machine.processor, "threads": machine.threads},
        "memory": memory(program.built.host[0], sizes(program, feeds), number),
        "timeline": timeline(profile),
        "decisions": explain(program, module).decisions,
    }  # fmt: skip


def sizes(program: Program, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Values of the symbols for the inputs."""
    return bind(pair for info in program.inputs for pair in zip(info.shape, feeds[info.name].shape))


def summary(program: Program, feeds, latency: Latency, profile: Profile) -> dict:
    inputs = [f"{n}: {'×'.join(map(str, a.shape)) or 'scalar'}" for n, a in feeds.items()]
    tiles = [
        ("latency", duration(latency.p50), f"p90 {duration(latency.p90)}"),
        *((n, v, "") for n, v in summarize(program).rows() if n in ("kernels", "weights", "code")),
        ("arena", *arena_tile(program, sizes(program, feeds))),
    ]
    return {"tiles": tiles, "rows": summarize(program).rows(), "inputs": inputs,
            "runs": len(profile.runs)}  # fmt: skip


def arena_tile(program: Program, known: Mapping[str, int]) -> tuple[str, str]:
    frame = frame_of(program.built.host[0])
    if frame is None:
        return "0 B", "nothing to keep"
    try:
        return size(evaluate(frame, known)), "all intermediate tensors"
    except (KeyError, TensorwrightError):
        return str(frame), "bytes"


# ---- graphs ------------------------------------------------------------------------------------


def after_fusion(m: Module, target: Target) -> Module:
    """The module of groups, before they become kernels."""
    found = m
    for name, after in stages(m, target):
        if name == "lower":
            break
        found = after
    return found


def model_graph(g: Graph, lowered: Module, number: Mapping[str, int]) -> list[dict]:
    """The model as it was imported; each node knows the kernel that computes it."""
    owner: dict[str, int] = {}
    for n in lowered.main.nodes():
        if "callee" in n.attrs and n.attrs["callee"] in number:
            owner.update((place, number[n.attrs["callee"]]) for place in n.loc)
    return nodes_data(g, lambda n: next((owner[p] for p in n.loc if p in owner), None), {})


def kernel_graph(g: Graph, fused: Module, number: Mapping[str, int]) -> list[dict]:
    """The lowered graph: one node a kernel call, with the operators it is made of."""
    groups = {n.loc: operators(n) for n in fused.main.nodes() if n.op not in HIDDEN}
    ops = {n: groups.get(n.loc, []) for n in g.nodes()}
    return nodes_data(g, lambda n: number.get(n.attrs.get("callee", "")), ops)


def operators(n: Node) -> list[str]:
    """The operators of a group, or of the bodies of control flow."""
    inner = [x for g in subgraphs(n) for x in g.nodes() if x.op not in HIDDEN]
    return [f"{x.op.name}  {x.type}" for x in inner] or [f"{n.op.name}  {n.type}"]


def nodes_data(g: Graph, kernel_of, ops: Mapping[Node, list[str]]) -> list[dict]:
    nodes = [n for n in g.nodes() if n.op is not CONST]
    place = {n: k for k, n in enumerate(nodes)}
    data = []
    for n in nodes:
        weights = [a.name or "constant" for a in n.args if a is not None and a.op is CONST]
        data.append({
            "id": place[n], "label": label(n), "sub": str(n.type), "name": n.name,
            "args": sorted({place[a] for a in n.args if a in place}), "weights": weights,
            "kernel": kernel_of(n), "ops": ops.get(n, []), "input": n.op is PARAM,
            "source": [short_source(s) for s in n.loc],
        })  # fmt: skip
    results = dict.fromkeys(place[r] for r in g.results if r in place)
    for k, r in enumerate(results):
        name = g.result_names[k] if k < len(g.result_names) else "result"
        data.append({"id": len(nodes) + k, "label": name, "sub": "", "name": name, "args": [r],
                     "weights": [], "kernel": None, "ops": [], "input": True,
                     "source": []})  # fmt: skip
    return data


def label(n: Node) -> str:
    return n.name or "input" if n.op is PARAM else n.attrs.get("callee") or n.op.name


# ---- kernels -----------------------------------------------------------------------------------


def kernels(program: Program, profile: Profile, machine: Machine, native: bool) -> list[dict]:
    """One row a kernel of the manifest, measured and written out."""
    found = {p.kernel: p for p in points(profile, machine, program.target)}
    llvm = native_texts(program.lowered, program.target) if native else {}
    rows = []
    for name, k in program.lowered.kernels.items():
        p = found.get(name)
        row = {"name": name, "schedule": k.schedule, "text": to_text(k),
               "sources": [short_source(s) for s in k.sources], "calls": 0, "seconds": 0.0,
               "share": 0.0}  # fmt: skip
        if p is not None:
            row |= {"calls": p.calls // max(len(profile.runs), 1), "seconds": p.seconds,
                    "share": p.share, "flops": p.flops, "bytes": p.bytes, "bound": p.bound,
                    "gflops": p.gflops, "gbytes": p.gbytes, "of_limit": p.of_limit}  # fmt: skip
        if name in llvm:
            row |= {"llvm": packed(llvm[name]), "asm": packed(assembly(llvm[name], program.target))}
        rows.append(row)
    return rows


def packed(text: str) -> str:
    """A long text, compressed; the page unpacks it when it is looked at."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


# ---- memory and time ---------------------------------------------------------------------------


def memory(host: Kernel, known: Mapping[str, int], number: Mapping[str, int]) -> dict:
    """Rectangles of the arena: buffers by statement and byte."""
    rectangles, unknown = [], 0
    for b in placed(host):
        try:
            offset, size = evaluate(b.offset, known), evaluate(b.size, known)
        except (KeyError, TensorwrightError):
            unknown += 1
            continue
        rectangles.append({"name": b.name, "type": b.type, "first": b.first, "last": b.last,
                           "offset": offset, "size": size})  # fmt: skip
    steps = {}
    for time, s in enumerate(ir.statements(host.body), 1):
        if isinstance(s, ir.Call):
            steps[time] = {"name": s.callee, "kernel": number.get(s.callee)}
    return {"buffers": rectangles, "steps": steps, "unknown": unknown}


def timeline(profile: Profile) -> list[dict]:
    """The kernels of the run whose time is the median."""
    if not profile.runs:
        return []
    run = sorted(profile.runs, key=lambda r: r.end - r.begin)[len(profile.runs) // 2]
    marks = [(-1, run.begin), *run.marks.tolist()]
    ends = [time for _, time in marks[1:]] + [run.end]
    return [
        {"kernel": k, "start": start - run.begin, "end": end - run.begin}
        for (k, start), end in zip(marks, ends)
        if end > start
    ]
