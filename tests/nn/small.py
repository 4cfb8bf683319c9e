"""Small seeded models of the `transformers` library, and folders as it saves them."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import tokenizers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
             num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64,
             bos_token_id=1, eos_token_id=2)  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 10000.0}  # fmt: skip
KINDS = {
    "llama": ("Llama", {}),
    "llama-tied-biased": ("Llama", {"tie_word_embeddings": True, "attention_bias": True,
                                    "mlp_bias": True, "head_dim": 16}),
    "llama-3": ("Llama", {"rope_parameters": LLAMA3}),
    "mistral": ("Mistral", {"sliding_window": 7}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5,
                               "max_window_layers": 1}),
}  # fmt: skip


@functools.cache
def model(kind: str):
    name, settings = KINDS[kind]
    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **settings})
    made = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():  # larger than they start, so that tokens differ and biases count
        for p in made.parameters():
            p.mul_(3).add_(0.1 * torch.randn(p.shape))
    return made


def greedy(kind: str, prompt, count: int) -> list[int]:
    """What `generate` goes on with."""
    with torch.no_grad():
        ids = torch.tensor(np.asarray(prompt)[None])
        made = model(kind).generate(ids, max_new_tokens=count, do_sample=False, eos_token_id=None)
    return made[0, len(prompt) :].tolist()


def logits(kind: str, tokens) -> np.ndarray:
    with torch.no_grad():
        return model(kind)(torch.tensor(np.asarray(tokens)[None])).logits.numpy()


def prompts(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(3, SIZES["vocab_size"], n) for n in lengths]


def save(folder, kind: str = "llama", template: str = "", **changes) -> None:
    """The model and a tokenizer of bytes as a folder."""
    model(kind).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    words = ["<unk>", "<s>", "</s>", *map(chr, range(32, 125))]
    words = {w: k for k, w in enumerate(words[: SIZES["vocab_size"]])}
    t = tokenizers.Tokenizer(tokenizers.models.BPE(words, [], unk_token="<unk>"))
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    t.decoder = tokenizers.decoders.Fuse()
    t.save(str(folder / "tokenizer.json"))
    settings = {"chat_template": template, "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
