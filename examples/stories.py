"""A model in the format of llama2.c as a folder that `tw chat` reads.

    python examples/stories.py stories260K.bin tok512.bin stories
    tw chat stories --prompt "Once upon a time" --temperature 0

The files are those of https://github.com/karpathy/llama2.c, whose small models tell short stories.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def read_model(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """(config.json, weights by the names of `transformers`)."""
    data = path.read_bytes()
    width, inner, layers, heads, shared, vocab, length = struct.unpack_from("7i", data)
    rest, depth = np.frombuffer(data, "f4", offset=28), width // heads
    tied, vocab = vocab > 0, abs(vocab)

    def take(*shape: int) -> np.ndarray:
        nonlocal rest
        count = int(np.prod(shape))
        part, rest = rest[:count].reshape(shape), rest[count:]
        return part

    def halves(w: np.ndarray, n: int) -> np.ndarray:
        """Rows whose neighbours are turned together -> rows that are turned half a head apart."""
        return w.reshape(layers, n, depth // 2, 2, width).swapaxes(2, 3).reshape(w.shape)

    embedding = take(vocab, width)
    first = take(layers, width)
    q, k = (halves(take(layers, n * depth, width), n) for n in (heads, shared))
    v, o = take(layers, shared * depth, width), take(layers, width, heads * depth)
    second = take(layers, width)
    gate, down, up = take(layers, inner, width), take(layers, width, inner), take(
        layers, inner, width)  # fmt: skip
    weights = {"model.embed_tokens.weight": embedding, "model.norm.weight": take(width)}
    take(2, length, depth // 2)  # angles
    if not tied:
        weights["lm_head.weight"] = take(vocab, width)
    for i in range(layers):
        parts = {
            "input_layernorm": first, "self_attn.q_proj": q, "self_attn.k_proj": k,
            "self_attn.v_proj": v, "self_attn.o_proj": o, "post_attention_layernorm": second,
            "mlp.gate_proj": gate, "mlp.down_proj": down, "mlp.up_proj": up,
        }  # fmt: skip
        weights |= {f"model.layers.{i}.{n}.weight": w[i] for n, w in parts.items()}
    config = {
        "architectures": ["LlamaForCausalLM"], "vocab_size": vocab, "hidden_size": width,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": shared, "max_position_embeddings": length, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 1,
    }  # fmt: skip
    return config, {n: np.ascontiguousarray(w) for n, w in weights.items()}


def read_tokenizer(path: Path, vocab: int) -> dict:
    """tokenizer.json: byte pairs, merged by the scores of what they become."""
    data, at, words, scores = path.read_bytes(), 4, [], []
    for _ in range(vocab):
        score, length = struct.unpack_from("fi", data, at)
        words.append(data[at + 8 : at + 8 + length].decode().replace(" ", "\u2581"))
        scores.append(score)
        at += 8 + length
    words[1:3] = ["<s>", "</s>"]
    number = {w: k for k, w in enumerate(words)}
    merges = []
    for w in sorted(words[259:], key=lambda w: -scores[number[w]]):
        cuts = [(w[:k], w[k:]) for k in range(1, len(w))]
        known = [c for c in cuts if c[0] in number and c[1] in number]
        merges += sorted(known, key=lambda c: (number[c[0]], number[c[1]]))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special = [{"id": k, "content": words[k], "special": True, **plain} for k in range(3)]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    first = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0", "added_tokens": special, "pre_tokenizer": None, "post_processor": None,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"}, space]},
        "decoder": {"type": "Sequence", "decoders": [
            back, {"type": "ByteFallback"}, {"type": "Fuse"}, first]},
        "model": {"type": "BPE", "vocab": number, "merges": merges, "byte_fallback": True,
                  "fuse_unk": True, "unk_token": "<unk>", "dropout": None},
    }  # fmt: skip


def main(model: str, tokenizer: str, folder: str) -> None:
    to = Path(folder)
    to.mkdir(parents=True, exist_ok=True)
    config, weights = read_model(Path(model))
    save_file(weights, to / "model.safetensors")
    (to / "config.json").write_text(json.dumps(config, indent=1))
    words = read_tokenizer(Path(tokenizer), config["vocab_size"])
    (to / "tokenizer.json").write_text(json.dumps(words))


if __name__ == "__main__":
    main(*sys.argv[1:])
