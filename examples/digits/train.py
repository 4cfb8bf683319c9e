"""Train a small convolutional net on scikit-learn's 8x8 digits and write it as ONNX.

    python examples/digits/train.py     # writes digits.onnx and digits_test.npz beside this file

The net is written and differentiated by hand in NumPy (convolution as a matrix product over
patches), so that the example needs no framework. Fixed seed; held-out accuracy must pass 98 %.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
SEED, EPOCHS, BATCH, RATE = 0, 60, 64, 2e-3
Array = np.ndarray
Params = dict[str, Array]


def held_out_split() -> tuple[Array, Array, Array, Array]:
    """Training images and labels, then the held-out quarter; pixels 0..1."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    order = np.random.default_rng(SEED).permutation(len(images))
    cut = len(order) * 3 // 4
    train, test = order[:cut], order[cut:]
    return images[train], digits.target[train], images[test], digits.target[test]


def initial(rng: np.random.Generator) -> Params:
    he = lambda *shape: rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
    zeros = lambda n: np.zeros(n, np.float32)
    return {
        "conv1_w": he(16, 1, 3, 3),
        "conv1_b": zeros(16),
        "conv2_w": he(32, 16, 3, 3),
        "conv2_b": zeros(32),
        "head_w": he(10, 512),
        "head_b": zeros(10),
    }


def patches(x: Array) -> Array:
    """[n, c, h, w] -> [n, h, w, c*9] of the 3x3 neighbourhoods, zero outside."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(*x.shape[:1], *x.shape[2:], -1)


def unpatch(gradient: Array, channels: int) -> Array:
    """The transpose of `patches`: add every patch back where it came from."""
    n, h, w, _ = gradient.shape
    pieces = gradient.reshape(n, h, w, channels, 3, 3)
    out = np.zeros((n, channels, h + 2, w + 2), np.float32)
    for i in range(3):
        for j in range(3):
            out[:, :, i : i + h, j : j + w] += pieces[..., i, j].transpose(0, 3, 1, 2)
    return out[:, :, 1:-1, 1:-1]


def conv(x: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """3x3 convolution, and the patches for its gradient."""
    columns = patches(x)
    out = columns @ weight.reshape(len(weight), -1).T + bias
    return out.transpose(0, 3, 1, 2), columns


def pool(x: Array) -> tuple[Array, Array]:
    """2x2 maximum and the mask of where it was."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
    best = blocks.max(axis=(3, 5), keepdims=True)
    return best[:, :, :, 0, :, 0], (blocks == best).reshape(x.shape)


def logits(params: Params, x: Array) -> tuple[Array, tuple]:
    """conv, relu, conv, relu, 2x2 max pool, linear."""
    a, columns1 = conv(x, params["conv1_w"], params["conv1_b"])
    b, columns2 = conv(np.maximum(a, 0), params["conv2_w"], params["conv2_b"])
    pooled, mask = pool(np.maximum(b, 0))
    flat = pooled.reshape(len(x), -1)
    kept = (a, columns1, b, columns2, mask, flat)
    return flat @ params["head_w"].T + params["head_b"], kept


def gradients(params: Params, x: Array, labels: Array) -> Params:
    """Of the mean cross entropy."""
    out, (a, columns1, b, columns2, mask, flat) = logits(params, x)
    shifted = np.exp(out - out.max(1, keepdims=True))
    error = shifted / shifted.sum(1, keepdims=True)
    error[np.arange(len(x)), labels] -= 1
    error /= len(x)
    found = {"head_w": error.T @ flat, "head_b": error.sum(0)}
    back = (error @ params["head_w"]).reshape(len(x), 32, 4, 4)
    back = back.repeat(2, 2).repeat(2, 3) * mask * (b > 0)
    back = back.transpose(0, 2, 3, 1)
    found |= _conv_gradients("conv2", params, back, columns2)
    back = unpatch(back @ params["conv2_w"].reshape(32, -1), 16) * (a > 0)
    return found | _conv_gradients("conv1", params, back.transpose(0, 2, 3, 1), columns1)


def _conv_gradients(name: str, params: Params, back: Array, columns: Array) -> Params:
    weight = params[f"{name}_w"]
    flat = back.reshape(-1, len(weight)).T @ columns.reshape(-1, columns.shape[-1])
    return {f"{name}_w": flat.reshape(weight.shape), f"{name}_b": back.sum((0, 1, 2))}


def train(x: Array, labels: Array) -> Params:
    """Adam with a cosine rate and one-pixel shifts as augmentation."""
    rng = np.random.default_rng(SEED)
    params = initial(rng)
    first = {k: np.zeros_like(v) for k, v in params.items()}
    second = {k: np.zeros_like(v) for k, v in params.items()}
    steps = len(x) // BATCH
    for step in range(1, EPOCHS * steps + 1):
        batch = rng.integers(0, len(x), BATCH)
        shift = rng.integers(-1, 2, 2)
        rate = RATE * (1 + np.cos(np.pi * step / (EPOCHS * steps))) / 2
        moved = np.roll(x[batch], shift, (2, 3))
        for name, gradient in gradients(params, moved, labels[batch]).items():
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, variance = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            params[name] -= (rate * mean / (np.sqrt(variance) + 1e-8)).astype(np.float32)
    return params


def to_onnx(params: Params) -> onnx.ModelProto:
    """The same net as a graph with a symbolic batch."""
    node = helper.make_node
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", ["image", "conv1_w", "conv1_b"], ["c1"], name="conv1", **pads),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "conv2_w", "conv2_b"], ["c2"], name="conv2", **pads),
        node("Relu", ["c2"], ["r2"], name="relu2"),
        node("MaxPool", ["r2"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["flat"], name="flatten"),
        node("Gemm", ["flat", "head_w", "head_b"], ["logits"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value, name) for name, value in params.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    x, labels, test_x, test_labels = held_out_split()
    params = train(x, labels)
    accuracy = float((logits(params, test_x)[0].argmax(1) == test_labels).mean())
    print(f"held-out accuracy {accuracy:.2%} on {len(test_x)} images")
    if accuracy <= 0.98:
        raise SystemExit("training did not reach 98 %")
    onnx.save(to_onnx(params), HERE / "digits.onnx")
    pixels = np.round(test_x * 16).astype(np.uint8)
    np.savez_compressed(HERE / "digits_test.npz", image=pixels, label=test_labels.astype(np.uint8))


if __name__ == "__main__":
    main()
