"""`tw.nn`: modules, the models made of them, and what serves them.

model = tw.nn.Llama(tw.nn.LlamaConfig(vocab=512, width=64, inner=172, layers=5, heads=8,
                                      shared=4))
engine = tw.nn.Engine(tw.compile(model))
"""

from tensorwright.nn.attention import Attention, Cache, angle_tables, rotate
from tensorwright.nn.layers import Embedding, LayerNorm, Linear, RMSNorm, SwiGLU
from tensorwright.nn.llama import Llama, LlamaConfig, TransformerBlock
from tensorwright.nn.module import Module, Parameter, functional
from tensorwright.nn.sampling import sample
from tensorwright.nn.serve import Engine, Generation, Sampling
from tensorwright.nn.weights import from_transformers, load_folder, read_safetensors

__all__ = [
    "Attention", "Cache", "Embedding", "Engine", "Generation", "LayerNorm", "Linear", "Llama",
    "LlamaConfig", "Module", "Parameter", "RMSNorm", "Sampling", "SwiGLU", "TransformerBlock",
    "angle_tables", "from_transformers", "functional", "load_folder", "read_safetensors", "rotate",
    "sample",
]  # fmt: skip
