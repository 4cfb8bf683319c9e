"""Models of the `transformers` library, token for token."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import ArtifactError, FrontendError, RunError
from tensorwright.nn.llama import Llama, LlamaConfig
from tensorwright.nn.serve import Engine, Sampling
from tensorwright.nn.weights import (
    from_transformers,
    llama_config,
    load_folder,
    read_safetensors,
)
from tests.nn import small


@functools.cache
def program(kind: str):
    return tw.compile(from_transformers(small.model(kind), max_batch=4, max_length=64))


@pytest.mark.parametrize("kind", small.KINDS)
def test_logits_and_tokens(kind):
    engine = Engine(program(kind))
    prompts = small.prompts(5, 1, 23)
    made = [engine.submit(p, max_tokens=20) for p in prompts]
    engine.run()
    for p, g in zip(prompts, made):
        assert g.output == small.greedy(kind, p, 20)
    row = np.zeros((1, 4), "i4") + np.arange(4, dtype="i4")
    keys, values = from_transformers(small.model(kind), max_length=64).new_cache(4)
    zero, one = np.zeros(1, "i8"), np.ones(1, "f")
    given = (zero, row, keys, values, np.zeros(1, "f"), zero, one, np.zeros(2, "u8"))
    step = program(kind).prefill(prompts[2][None], *given)
    wanted = small.logits(kind, prompts[2])
    np.testing.assert_allclose(step.logits, wanted[:, -1], atol=1e-4)
    assert step.keys is keys and step.values is values


def test_whole_text_at_once():
    model = from_transformers(small.model("llama"), max_length=64)
    f = tw.compile(tw.function(model.forward), (np.zeros((2, 4), "i8"),),
                   shapes={"tokens": "b[1..4], s[1..64]"})  # fmt: skip
    for n in (1, 9):
        tokens = small.prompts(n)[0]
        np.testing.assert_allclose(f(tokens[None]), small.logits("llama", tokens), atol=1e-4)


@pytest.mark.parametrize("pages", [16, 7, 4])
def test_sequences_come_and_go(pages):
    """With few pages some must wait, or start over."""
    engine = Engine(program("llama"), pages=pages)
    prompts = small.prompts(5, 1, 17, 30, 3, 16, 15)
    made = [engine.submit(p, max_tokens=20) for p in prompts[:4]]
    while engine.step() and len(made[0].output) < 6:
        pass
    made += [engine.submit(p, max_tokens=20) for p in prompts[4:]]
    engine.run()
    assert [g.output for g in made] == [small.greedy("llama", p, 20) for p in prompts]
    assert sorted(engine.free) == list(range(pages)) and not engine.running


def test_a_conversation_goes_on():
    engine = Engine(program("llama"))
    (start,) = small.prompts(6)
    g = engine.submit(start, max_tokens=8, keep=True)
    engine.run()
    whole = [*g.tokens, 9, 8, 7]
    engine.resume(g, whole, max_tokens=8)
    assert g.held == len(start) + 7  # only what is new is read
    engine.run()
    assert g.output == small.greedy("llama", whole, 8)
    other = [*whole[:10], 5, 4]  # a text that parts from the old one
    engine.resume(g, other, max_tokens=8)
    engine.run()
    assert g.output == small.greedy("llama", other, 8)


def test_ends():
    engine = Engine(program("llama"))
    (p,) = small.prompts(5)
    tokens = small.greedy("llama", p, 6)
    g = engine.submit(p, stop=[tokens[3]])
    engine.run()
    assert g.finish == "stop" and g.output == tokens[: tokens.index(tokens[3]) + 1]
    g = engine.submit(p, max_tokens=1000)
    assert list(engine.stream(g)) == g.output
    assert g.finish == "length" and len(g.tokens) == engine.longest + 1
    with pytest.raises(RunError, match="a prompt of 64 tokens"):
        engine.submit([1] * 64)
    with pytest.raises(RunError, match="at least one token"):
        engine.submit([])


def test_decode_allocates_nothing():
    """All memory of a decode step of one sequence is planned: one frame of known size."""
    model = from_transformers(small.model("llama"), max_length=64)
    p = tw.compile(model)
    (decode,) = (f for f in p.built.host if f.name == "tw_main_decode")
    from tensorwright.ir import loop as ir

    scopes = {s.buffer.scope for s in ir.statements(decode.body) if isinstance(s, ir.Alloc)}
    assert scopes <= {"input", "input_shape", "output", "const", "arena", "frame"}
    copies = [s for s in ir.statements(decode.body) if isinstance(s, ir.Copy)]
    assert not [s for s in copies if s.target.name in ("keys", "values")]


def test_saved_program(tmp_path):
    program("llama").save(tmp_path / "llama.tw")
    engine = Engine(tw.load(tmp_path / "llama.tw"))
    (p,) = small.prompts(4)
    g = engine.submit(p, max_tokens=5)
    engine.run()
    assert g.output == small.greedy("llama", p, 5)


def test_seeds_decide_samples():
    (p,) = small.prompts(4)

    def sampled(seed: int) -> list[int]:
        engine = Engine(program("llama"), seed=seed)
        g = engine.submit(p, max_tokens=12, sampling=Sampling(1.5, top_k=40, top_p=0.99))
        engine.run()
        return g.output

    assert sampled(1) == sampled(1) != sampled(2)


# ---- files -------------------------------------------------------------------------------------


def test_folder(tmp_path):
    small.save(tmp_path)
    model = load_folder(tmp_path, max_length=4096)
    assert model.max_length == 64  # what the model was made for
    w = model.layers[0].mlp.up_proj.weight.value
    assert not w.flags.owndata and not w.flags.writeable  # a view of the file
    engine = Engine(tw.compile(model))
    (p,) = small.prompts(4)
    g = engine.submit(p, max_tokens=5)
    engine.run()
    assert g.output == small.greedy("llama", p, 5)


def test_narrow_weights_are_widened(tmp_path):
    small.model("llama").to(small.torch.bfloat16).save_pretrained(tmp_path)
    small.model.cache_clear()
    read = read_safetensors(tmp_path / "model.safetensors")["model.norm.weight"]
    value = load_folder(tmp_path).norm.weight.value
    assert str(read.dtype) == "bfloat16" and value.dtype == np.float32
    np.testing.assert_array_equal(read.astype("f"), value)


@pytest.mark.parametrize("damage, message", [
    (lambda b: b[:4], "damaged"),
    (lambda b: b[:-4], "lies outside the file"),
    (lambda b: b"\xff" * 8 + b[8:], "the header is longer"),
    (lambda b: b[:8] + b"[" + b[9:], "damaged"),
    (lambda b: b.replace(b'"F32"', b'"F31"'), "type F31"),
])  # fmt: skip
def test_damaged_files(tmp_path, damage, message):
    small.save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=message):
        read_safetensors(path)


def test_what_is_not_known():
    c = small.model("llama").config.to_dict()
    with pytest.raises(FrontendError, match="GPTForLife is not known"):
        llama_config({**c, "architectures": ["GPTForLife"]})
    c = {**c, "architectures": ["LlamaForCausalLM"]}
    with pytest.raises(FrontendError, match="activation gelu"):
        llama_config({**c, "hidden_act": "gelu"})
    yarn = llama_config({**c, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}})
    with pytest.raises(FrontendError, match="'yarn' are not supported"):
        Llama(yarn)


def test_weights_must_fit():
    config = LlamaConfig(vocab=8, width=8, inner=8, layers=1, heads=2, shared=1)
    model = Llama(config).initialize()
    arrays = {n: p.value for n, p in model.named().items()}
    with pytest.raises(FrontendError, match=r"it lacks norm\.weight"):
        Llama(config).load({n: a for n, a in arrays.items() if n != "norm.weight"})
    with pytest.raises(FrontendError, match=r"it has more\.weight, unknown here"):
        Llama(config).load({**arrays, "more.weight": arrays["norm.weight"]})
    with pytest.raises(FrontendError, match=r"norm.weight is f32\[8\]"):
        Llama(config).load({**arrays, "norm.weight": np.zeros(9, "f")})
