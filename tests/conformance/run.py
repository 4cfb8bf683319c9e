"""The ONNX backend tests against this compiler, in workers that may die: `docs/conformance.md`.

    python -m tests.conformance.run --via reference --only 'reshape' --show
    python -m tests.conformance.run --via native --write docs/conformance.md

pass: right within the case's tolerance; wrong: another shape, type or value; refused: a
TensorwrightError said why; crash: any other exception, a dead worker, or the time limit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

from tests.conformance.cases import KINDS, TOLERANCES, Case, load_cases

LIMIT_S = {"reference": 60, "native": 120}
CONSTANT = re.compile(r'constants=\{"([^"]+)"')
PROMISED = "tensors"


def executor(via: str):
    """model, constants -> function of arrays."""
    if via == "reference":
        from tensorwright.frontend.onnx import import_onnx
        from tensorwright.ir.interp import run_module

        def prepare(model, constants):
            module = import_onnx(model, constants=constants)
            return lambda inputs: run_module(module, inputs)

        return prepare
    from tensorwright.driver.compile import compile
    from tensorwright.frontend.onnx import import_onnx

    def prepare(model, constants):
        program = compile(import_onnx(model, constants=constants), threads=1)

        def run(inputs):
            result = program(*inputs)
            return list(result) if len(program.outputs) != 1 else [result]

        return run

    return prepare


def check(case: Case, prepare) -> dict:
    """The outcome of one case."""
    from tensorwright.base.errors import InternalError, TensorwrightError

    constants: dict[str, np.ndarray] = {}
    try:
        if not case.data:
            return {"status": "refused", "why": "the case has no data"}
        for inputs, outputs in case.data:
            found = _run(case, prepare, inputs, constants)
            why = difference(case, found, outputs)
            if why:
                return {"status": "wrong", "why": why, "fixed": sorted(constants)}
        return {"status": "pass", "fixed": sorted(constants)}
    except InternalError as e:
        return {"status": "crash", "why": _first_line(e), "trace": traceback.format_exc()}
    except TensorwrightError as e:
        return {"status": "refused", "why": _first_line(e), "trace": str(e)}
    except Exception as e:
        return {"status": "crash", "why": f"{type(e).__name__}: {_first_line(e)}",
                "trace": traceback.format_exc()}  # fmt: skip


def _first_line(e: Exception) -> str:
    return str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__


def _run(case: Case, prepare, inputs, constants: dict) -> list:
    """The results; inputs that the compiler says it must know are given to it as constants."""
    from tensorwright.base.errors import FrontendError

    names = [v.name for v in case.model.graph.input]
    given = {t.name for t in case.model.graph.initializer}
    names = [n for n in names if n not in given] if len(inputs) < len(names) else names
    arrays = dict(zip(names, inputs))
    for _ in range(len(names) + 1):
        try:
            run = prepare(case.model, {n: arrays[n] for n in constants} or None)
            return run([arrays[n] for n in names if n not in constants])
        except FrontendError as e:
            wanted = [n for n in CONSTANT.findall(e.help) if n in arrays and n not in constants]
            if not wanted:
                raise
            constants.update(dict.fromkeys(wanted))
    raise AssertionError("unreachable")


def difference(case: Case, found: list, expected: list) -> str:
    """How the results differ from what the case expects; empty if they agree."""
    if len(found) != len(expected):
        return f"{len(found)} results, expected {len(expected)}"
    for k, (a, b) in enumerate(zip(found, expected)):
        if isinstance(a, list) and isinstance(b, list):
            why = difference(case, a, b)
            if why:
                return f"in result {k}: {why}"
            continue
        if a is None or b is None or isinstance(a, list) or isinstance(b, list):
            if a is not b:
                return f"result {k} is a {type(a).__name__}, expected a {type(b).__name__}"
            continue
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape:
            return f"result {k} has shape {a.shape}, expected {b.shape}"
        if a.dtype != b.dtype:
            return f"result {k} has type {a.dtype}, expected {b.dtype}"
        if case.group == "random":
            continue
        why = _values_differ(a, b, case.rtol, case.atol)
        if why:
            return f"result {k}: {why}"
    return ""


def _values_differ(a, b, rtol: float, atol: float) -> str:
    if a.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)
    if a.dtype.kind not in "iub":
        a, b = (
            a.astype(np.complex128 if a.dtype.kind == "c" else np.float64),
            b.astype(np.complex128 if b.dtype.kind == "c" else np.float64),
        )
    close = np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return ""
    at = tuple(np.argwhere(~close)[0].tolist())
    return f"{(~close).sum()} of {close.size} elements differ, first at {at}: {a[at]}, not {b[at]}"


# ---- workers ------------------------------------------------------------------------------------


def _serve(cases: list[Case], via: str, pipe) -> None:
    prepare = executor(via)
    while True:
        k = pipe.recv()
        if k is None:
            return
        pipe.send(check(cases[k], prepare))


class Worker:
    """A forked process that checks cases one at a time, and may die doing so."""

    def __init__(self, cases: list[Case], via: str):
        context = multiprocessing.get_context("fork")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(cases, via, other), daemon=True)
        self.process.start()
        other.close()
        self.started, self.job = 0.0, None

    def give(self, k: int) -> None:
        self.pipe.send(k)
        self.started, self.job = time.monotonic(), k

    def poll(self, limit: float) -> dict | None:
        """The outcome of the current job if it is known, else None."""
        try:
            if self.pipe.poll(0.02):
                return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return {"status": "crash", "why": f"the process died ({self.process.exitcode})"}
        if time.monotonic() - self.started > limit:
            self.stop()
            return {"status": "crash", "why": f"no result after {limit} s"}
        return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()

    @property
    def dead(self) -> bool:
        return not self.process.is_alive()


def run_all(cases: list[Case], via: str, workers: int = 1, log: Path | None = None) -> dict:
    """Outcomes by case name; each is also appended to the file `log` as a line of JSON."""
    todo = list(reversed(range(len(cases))))
    pool = [Worker(cases, via) for _ in range(min(workers, len(cases)) or 1)]
    results: dict[str, dict] = {}
    while len(results) < len(cases):
        for i, w in enumerate(pool):
            if w.job is None and todo:
                w.give(todo.pop())
            if w.job is None:
                continue
            outcome = w.poll(LIMIT_S[via])
            if outcome is None:
                continue
            name = cases[w.job].name
            results[name] = outcome
            if log is not None:
                seconds = round(time.monotonic() - w.started, 2)
                with log.open("a") as f:
                    f.write(json.dumps({"name": name, "seconds": seconds, **outcome}) + "\n")
            w.job = None
            if w.dead:
                pool[i] = Worker(cases, via)
    for w in pool:
        w.stop()
    return results


# ---- report -------------------------------------------------------------------------------------


def summary(cases: list[Case], results: dict[str, dict]) -> dict[str, Counter]:
    """Counts of outcomes by group."""
    groups: dict[str, Counter] = {}
    for case in cases:
        groups.setdefault(case.group, Counter())[results[case.name]["status"]] += 1
    return groups


def report(cases: list[Case], results: dict[str, dict], via: str) -> str:
    """The page: totals by group, then operators with anything but passes."""
    import onnx

    lines = [
        "# ONNX conformance", "",
        f"The backend tests of onnx {onnx.__version__} (opset {onnx.defs.onnx_opset_version()}), "
        f"executed {'natively' if via == 'native' else 'by the reference interpreter'}. "
        "Written by `make conformance`.", "",
        "- *pass*: right within the case's own tolerance; some of them with inputs that only make "
        "sense as constants (axes and the like) fixed while compiling: *of these fixed*",
        "- *refused*: the compiler says that it does not support the model, and why",
        "- *wrong*, *crash*: must be zero",
        "- *random*: only shapes and types are compared. Tolerances (relative, absolute) other "
        "than the suite's own: " + ", ".join(f"{n} {t}" for n, t in TOLERANCES.items()), "",
        "| cases | total | pass | of these fixed | refused | wrong | crash |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    groups = summary(cases, results)
    for name in sorted(groups, key=lambda g: (g != PROMISED, g)):
        count = groups[name]
        fixed = sum(
            bool(results[c.name].get("fixed")) and results[c.name]["status"] == "pass"
            for c in cases if c.group == name
        )  # fmt: skip
        lines.append(
            f"| {name} | {sum(count.values())} | {count['pass']} | {fixed} | {count['refused']} "
            f"| {count['wrong']} | {count['crash']} |"
        )
    lines += ["", "## What does not pass", ""]
    lines += ["| operator | case | outcome | why |", "|---|---|---|---|"]
    for c in sorted(cases, key=lambda c: (c.group != PROMISED, c.group, c.op, c.name)):
        r = results[c.name]
        if r["status"] != "pass":
            why = r.get("why", "").replace("|", "\\|")
            lines.append(f"| {c.op} | {c.name} ({c.group}) | {r['status']} | {why} |")
    return "\n".join([*lines, "", "## Operators", "", *_operators(cases, results), ""])


def _operators(cases: list[Case], results: dict[str, dict]) -> list[str]:
    count: dict[str, Counter] = {}
    for c in cases:
        count.setdefault(c.op, Counter())[results[c.name]["status"] == "pass"] += 1
    full = [f"{op} {n[True]}" for op, n in sorted(count.items()) if not n[False]]
    part = [f"{op} {n[True]}/{n[True] + n[False]}" for op, n in sorted(count.items()) if n[False]]
    return ["All cases pass: " + ", ".join(full) + ".", "", "Some do not: " + ", ".join(part) + "."]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--via", choices=("reference", "native"), default="reference")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--only", default="", help="regular expression of case names")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", type=Path, help="write the page here")
    parser.add_argument("--log", type=Path, help="append each outcome here, as a line of JSON")
    parser.add_argument("--show", action="store_true", help="print what does not pass")
    args = parser.parse_args(arguments)
    cases = [c for c in load_cases(args.kinds) if re.search(args.only, c.name)]
    results = run_all(cases, args.via, args.workers, args.log)
    for name, count in summary(cases, results).items():
        print(f"{name:12} {dict(count)}")
    if args.show:
        for c in cases:
            r = results[c.name]
            if r["status"] != "pass":
                print(f"{r['status']:8} {c.op} {c.name}: {r.get('why', '')}")
                if len(cases) <= 3:
                    print(r.get("trace", ""))
    if args.write:
        args.write.write_text(report(cases, results, args.via))
    bad = summary(cases, results).get(PROMISED, Counter())
    return 1 if bad["wrong"] or bad["crash"] else 0


if __name__ == "__main__":
    sys.exit(main())
