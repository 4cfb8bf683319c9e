"""How each peer compiles a model and calls it, in float32 (or bf16 where its name says so) with
pinned threads.

A peer prepares (imports, once, not timed), compiles (timed) and gives a zero-argument call that
runs the model on the stored inputs the way a user would; `arrays` turns a result into NumPy.
One process holds one peer, so global settings (torch threads) are safe here.
"""

import os

import numpy as np

from benchmarks.peer import Call, Case, Peer
from benchmarks.peers_more import MORE


class Tensorwright(Peer):
    precision = "model"

    def version(self) -> str:
        import tensorwright

        return tensorwright.__version__

    def prepare(self, case: Case) -> None:
        import tensorwright.frontend.onnx
        import tensorwright.tools.program  # noqa: F401

    def compile(self, case: Case) -> Call:
        import tensorwright as tw

        program = tw.compile(case.artifact.onnx, threads=case.threads, precision=self.precision)
        inputs = case.artifact.inputs
        return lambda: program(**inputs)

    def settle(self) -> None:
        from tensorwright.driver import programs

        programs.settle()


class OnnxRuntime(Peer):
    package = "onnxruntime"

    def prepare(self, case: Case) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime  # noqa: F401

    def compile(self, case: Case) -> Call:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = case.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(case.artifact.onnx, options, providers)
        return lambda: session.run(None, case.artifact.inputs)


class TensorwrightBf16(Tensorwright):
    precision = "bf16"


class OpenVino(Peer):
    package = "openvino"
    precision = "f32"

    def prepare(self, case: Case) -> None:
        import openvino  # noqa: F401

    def compile(self, case: Case) -> Call:
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": case.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        model = core.read_model(case.artifact.onnx)
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        inputs = list(case.artifact.inputs.values())
        return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)

    def arrays(self, result: object) -> list[np.ndarray]:
        return [np.array(result[i]) for i in range(len(result))]


class OpenVinoBf16(OpenVino):
    precision = "bf16"


class Torch(Peer):
    package = "torch"
    needs_torch = True

    def prepare(self, case: Case) -> None:
        import torch

        torch.set_num_threads(case.threads)
        if torch.get_num_interop_threads() != 1:  # may be set but once
            torch.set_num_interop_threads(1)
        torch.set_grad_enabled(False)
        self.net = case.row.net(case.small)

    def compile(self, case: Case) -> Call:
        module, args = self.net.module, tuple(self.net.inputs.values())
        return lambda: module(*args)


class Inductor(Torch):
    compiles_for_threads = True

    def compile(self, case: Case) -> Call:
        import torch

        torch._dynamo.reset()
        module, args = torch.compile(self.net.module), tuple(self.net.inputs.values())
        module(*args)
        return lambda: module(*args)


class TorchBf16(Torch):
    """The whole module and its inputs in bfloat16, as `module.to(torch.bfloat16)` makes it."""

    def compile(self, case: Case) -> Call:
        import copy

        import torch

        low = torch.bfloat16
        module = copy.deepcopy(self.net.module).to(low)
        args = tuple(x.to(low) if x.is_floating_point() else x for x in self.net.inputs.values())
        return lambda: module(*args)

    def arrays(self, result: object) -> list[np.ndarray]:
        return [t.float().numpy() for t in tensors(result)]


class TorchAutocast(TorchBf16):
    """The f32 module under `torch.autocast`."""

    def compile(self, case: Case) -> Call:
        import torch

        module, args = self.net.module, tuple(self.net.inputs.values())

        def call() -> object:
            with torch.autocast("cpu", torch.bfloat16):
                return module(*args)

        return call


def tensors(result: object) -> list:
    """The tensors of a possibly nested result, in order."""
    if isinstance(result, tuple | list):
        return [t for part in result for t in tensors(part)]
    return [result]


PEERS: dict[str, Peer] = {
    "tensorwright": Tensorwright(),
    "ort": OnnxRuntime(),
    "openvino": OpenVino(),
    "torch": Torch(),
    "inductor": Inductor(),
    **MORE,
    "tensorwright-bf16": TensorwrightBf16(),
    "openvino-bf16": OpenVinoBf16(),
    "torch-bf16": TorchBf16(),
    "torch-autocast": TorchAutocast(),
}
