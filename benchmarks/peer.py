"""What a peer is: something that compiles a model and gives a call to time."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks.zoo import Artifact, Row

Call = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One model at one thread count; what a peer writes into `folder` it may find there at the
    next load, in this process or, if the user keeps the folder, in a later one."""

    row: Row
    artifact: Artifact
    threads: int
    small: bool
    folder: Path


class Peer:
    package = ""
    needs_torch = False  # compiles the torch module, not the ONNX file
    compiles_for_threads = False  # what it keeps holds for one number of threads

    def version(self) -> str:
        return metadata.version(self.package)

    def prepare(self, case: Case) -> None:
        """Import what compiling needs."""

    def compile(self, case: Case) -> Call:
        raise NotImplementedError

    def settle(self) -> None:
        """Wait for what compiling left to be done in the background."""

    def arrays(self, result: object) -> list[np.ndarray]:
        return [np.asarray(a) for a in (result if isinstance(result, tuple | list) else [result])]
