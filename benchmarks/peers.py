"""How each peer compiles a model and calls it, all of them in float32 with pinned threads.

A peer prepares (imports, once, not timed), compiles (timed) and gives a zero-argument call that
runs the model on the stored inputs the way a user would; `arrays` turns a result into NumPy.
One process holds one peer, so global settings (torch threads) are safe here.
"""

import os

import numpy as np

from benchmarks.peer import Call, Case, Peer
from benchmarks.peers_more import MORE


class Tensorwright(Peer):
    def version(self) -> str:
        import tensorwright

        return tensorwright.__version__

    def prepare(self, case: Case) -> None:
        import tensorwright  # noqa: F401

    def compile(self, case: Case) -> Call:
        import tensorwright as tw

        program = tw.compile(case.artifact.onnx, threads=case.threads)
        inputs = case.artifact.inputs
        return lambda: program(**inputs)


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


class OpenVino(Peer):
    package = "openvino"

    def prepare(self, case: Case) -> None:
        import openvino  # noqa: F401

    def compile(self, case: Case) -> Call:
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
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


class Torch(Peer):
    package = "torch"
    needs_torch = True

    def prepare(self, case: Case) -> None:
        import torch

        torch.set_num_threads(case.threads)
        torch.set_num_interop_threads(1)
        torch.set_grad_enabled(False)
        self.net = case.row.net(case.small)

    def compile(self, case: Case) -> Call:
        module, args = self.net.module, tuple(self.net.inputs.values())
        return lambda: module(*args)


class Inductor(Torch):
    def compile(self, case: Case) -> Call:
        import torch

        torch._dynamo.reset()
        module, args = torch.compile(self.net.module), tuple(self.net.inputs.values())
        module(*args)
        return lambda: module(*args)


PEERS: dict[str, Peer] = {
    "tensorwright": Tensorwright(),
    "ort": OnnxRuntime(),
    "openvino": OpenVino(),
    "torch": Torch(),
    "inductor": Inductor(),
    **MORE,
}
