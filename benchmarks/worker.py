"""One peer in one process, driven by JSON lines on stdin and answering on stdout.

    echo '{"do": "load", "model": "lstm2", "threads": 1}' | python -m benchmarks.worker ort 0,1

Commands: load (compile twice: cold and warm), run (time calls for a while), answers (write outputs
to a file), quit. Invariant: one JSON object out once it has started (imports, so that no process
starts while another one compiles), then one per line in; what libraries print goes to stderr.
"""

import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

from benchmarks import peers, zoo
from benchmarks.peer import Case


class Session:
    """The loaded peer and its call."""

    def __init__(self, peer: str):
        self.name, self.peer = peer, peers.PEERS[peer]
        self.call: Callable[[], object] | None = None
        self.names: list[str] = []

    def load(self, model: str, threads: int, small: bool = False, once: bool = False) -> dict:
        """Compile twice; the second time finds whatever caches the first one filled. Where an
        earlier process filled them, there is no cold time. once: nobody asks for times."""
        row, version = zoo.find(model), self.peer.version()
        artifact = row.artifact(small)
        key = hashlib.sha256(f"{artifact.onnx} {artifact.meta.get('key')} {version}".encode())
        form = f"{self.name}-{threads}" if self.peer.compiles_for_threads else self.name
        name = f"{form}-{model}-{key.hexdigest()[:12]}"
        folder = Path(os.environ.get("TW_BENCH_FOLDER") or tempfile.mkdtemp()) / name
        unfinished = folder / "unfinished"
        if unfinished.exists():  # that process was killed: its files may be cut off
            shutil.rmtree(folder)
        kept = folder.exists() and any(folder.iterdir())
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
        case = Case(row, artifact, threads, small, folder)
        self.peer.prepare(case)
        before = most_memory()
        unfinished.touch()
        try:
            first = self._compile(case)
        finally:
            unfinished.unlink()
        reply = {"version": version, "peak": most_memory() - before}
        if kept or once:
            return reply | {"cold_s": None, "warm_s": first}
        self.peer.settle()
        return reply | {"cold_s": first, "warm_s": self._compile(case)}

    def _compile(self, case: Case) -> float:
        self.call = None
        start = time.perf_counter()
        self.call = self.peer.compile(case)
        return time.perf_counter() - start

    def run(self, seconds: float, at_least: int) -> dict:
        """Seconds of each call, after one untimed call."""
        call = self._loaded()
        call()
        times, end = [], time.perf_counter() + seconds
        while len(times) < at_least or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return {"times": times}

    def answers(self, path: str) -> dict:
        outputs = self.peer.arrays(self._loaded()())
        np.savez(path, *outputs)
        return {"outputs": len(outputs)}

    def _loaded(self) -> Callable[[], object]:
        if self.call is None:
            raise RuntimeError("nothing is loaded")
        return self.call


def most_memory() -> int:
    """Bytes that this process had in memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:300]


def serve(peer: str, commands: TextIO, replies: TextIO) -> None:
    session = Session(peer)
    actions = {"load": session.load, "run": session.run, "answers": session.answers}
    print(json.dumps({"started": peer}), file=replies, flush=True)
    for line in commands:
        command = json.loads(line)
        action = command.pop("do")
        if action == "quit":
            return
        try:
            reply = actions[action](**command)
        except Exception as error:
            reply = {"error": first_line(error)}
        print(json.dumps(reply), file=replies, flush=True)


def private_stdout() -> TextIO:
    """Keep the pipe for replies and point everybody else's stdout at stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


if __name__ == "__main__":
    # Pinned before any library starts its threads.
    os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[2].split(",")})
    serve(sys.argv[1], sys.stdin, private_stdout())
