"""Peers beside the two best known: mobile engines and other compilers.

Each takes the road that its documentation names for a PyTorch or an ONNX model. What a peer cannot
convert stands in the tables as a failure with its message.
"""

import contextlib
import os
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks.peer import Call, Case, Peer


def torch_net(case: Case):
    import torch

    torch.set_num_threads(case.threads)
    torch.set_grad_enabled(False)
    return case.row.net(case.small)


class ExecuTorch(Peer):
    """Through torch.export, with the XNNPACK back end; its pool has one thread for each CPU that
    the process may use."""

    package = "executorch"
    needs_torch = True

    def prepare(self, case: Case) -> None:
        import executorch.backends.xnnpack.partition.xnnpack_partitioner
        import executorch.exir
        import executorch.runtime  # noqa: F401

        self.net = torch_net(case)

    def compile(self, case: Case) -> Call:
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
        from executorch.runtime import Runtime

        inputs, made = tuple(self.net.inputs.values()), case.folder / "model.pte"
        if not made.exists():
            exported = torch.export.export(self.net.module, inputs)
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            made.write_bytes(lowered.to_executorch().buffer)
        self.program = Runtime.get().load_program(made.read_bytes())
        method = self.program.load_method("forward")
        return lambda: method.execute(inputs)


class Ncnn(Peer):
    """Through its own converter from TorchScript; 32-bit floats in storage and arithmetic."""

    package = "ncnn"
    needs_torch = True

    def prepare(self, case: Case) -> None:
        import ncnn  # noqa: F401
        import pnnx  # noqa: F401

        self.net = torch_net(case)

    def compile(self, case: Case) -> Call:
        import ncnn
        import pnnx

        stem = case.folder / "model"
        inputs = tuple(self.net.inputs.values())
        if not stem.with_suffix(".ncnn.bin").exists():
            with contextlib.chdir(case.folder):
                pnnx.export(self.net.module, f"{stem}.pt", inputs, fp16=False)
        net = ncnn.Net()
        net.opt.num_threads = case.threads
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, f"use_{option}", False)
        if net.load_param(f"{stem}.ncnn.param") or net.load_model(f"{stem}.ncnn.bin"):
            raise RuntimeError("the converted model could not be loaded")
        arrays = [np.ascontiguousarray(x[0].numpy()) for x in inputs]  # ncnn has no batch dimension
        self.loaded = net

        def call():
            extractor = net.create_extractor()
            for k, array in enumerate(arrays):
                extractor.input(f"in{k}", ncnn.Mat(array))
            status, out = extractor.extract("out0")
            if status:
                raise RuntimeError(f"extract ended with status {status}")
            return np.array(out)[None]

        return call


class Mnn(Peer):
    package = "MNN"

    def prepare(self, case: Case) -> None:
        import MNN.nn
        import MNN.numpy  # noqa: F401

    def compile(self, case: Case) -> Call:
        import _tools
        import MNN

        made = str(case.folder / "model.mnn")
        arguments = ["", "-f", "ONNX", "--modelFile", str(case.artifact.onnx), "--MNNModel", made,
                     "--bizCode", "MNN"]  # fmt: skip
        if not os.path.exists(made):
            _tools.mnnconvert(arguments)
        if not os.path.exists(made):
            raise RuntimeError("the converter wrote nothing")
        config = {"precision": "high", "backend": "CPU", "numThread": case.threads}
        manager = MNN.nn.create_runtime_manager((config,))
        names = list(case.artifact.inputs)
        module = MNN.nn.load_module_from_file(made, names, [], runtime_manager=manager)
        places = []
        for array in case.artifact.inputs.values():
            wide = array.astype(np.int32) if array.dtype == np.int64 else array
            places.append(MNN.expr.const(wide, wide.shape, MNN.expr.NCHW))
        return lambda: [np.array(y.read()) for y in module.forward(places)]


class Iree(Peer):
    package = "iree-base-compiler"

    def prepare(self, case: Case) -> None:
        import iree.compiler
        import iree.runtime  # noqa: F401

    def compile(self, case: Case) -> Call:
        import iree.compiler
        import iree.runtime

        made = case.folder / "model.vmfb"
        if not made.exists():
            with tempfile.TemporaryDirectory() as folder:
                text = os.path.join(folder, "model.mlir")  # larger than the model, and needed once
                command = [sys.executable, "-m", "iree.compiler.tools.import_onnx"]
                command += [case.artifact.onnx, "-o", text]
                subprocess.run(command, check=True, capture_output=True)
                made.write_bytes(iree.compiler.compile_file(
                    text, input_type="onnx", target_backends=["llvm-cpu"],
                    extra_args=["--iree-llvmcpu-target-cpu=host"],
                ))  # fmt: skip
        iree.runtime.flags.parse_flags(f"--task_topology_group_count={case.threads}")
        config = iree.runtime.Config("local-sync" if case.threads == 1 else "local-task")
        module = iree.runtime.VmModule.copy_buffer(config.vm_instance, made.read_bytes())
        loaded = iree.runtime.load_vm_module(module, config)
        name = next(n for n in module.function_names if "__" not in n and "$" not in n)
        function, inputs = loaded[name], list(case.artifact.inputs.values())

        def call():
            found = function(*inputs)
            found = found if isinstance(found, tuple | list) else [found]
            return [x.to_host() for x in found]

        return call


class Tvm(Peer):
    """Relax with its default CPU pipeline, untuned."""

    package = "apache-tvm"

    def prepare(self, case: Case) -> None:
        os.environ["TVM_NUM_THREADS"] = str(case.threads)
        import tvm.relax.frontend.onnx  # noqa: F401

    def compile(self, case: Case) -> Call:
        import onnx
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        made = case.folder / "model.so"
        if not made.exists():
            module = from_onnx(onnx.load(case.artifact.onnx), keep_params_in_input=False)
            target = tvm.target.Target.from_device(tvm.cpu())
            tvm.compile(module, target=target).export_library(str(made))
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(made)), tvm.cpu())
        inputs = [tvm.runtime.tensor(x) for x in case.artifact.inputs.values()]

        def call():
            found = machine["main"](*inputs)
            parts = [found] if hasattr(found, "numpy") else list(found)
            return [x.numpy() for x in parts]

        return call


MORE: dict[str, Peer] = {
    "executorch": ExecuTorch(), "mnn": Mnn(), "ncnn": Ncnn(), "iree": Iree(), "tvm": Tvm(),
}  # fmt: skip
