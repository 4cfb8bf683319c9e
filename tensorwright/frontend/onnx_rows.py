"""The operators that the ONNX converters build graphs of, under one name: `ops.add(x, y)`."""

# ruff: noqa: F401

from tensorwright.ops.activations import (
    celu,
    clamp,
    elu,
    gelu,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    mish,
    prelu,
    relu,
    selu,
    shrink,
    silu,
    softplus,
    softsign,
    swish,
    thresholded_relu,
)  # fmt: skip
from tensorwright.ops.attention import attention, attention_parts, rotary_embedding, tensor_scatter
from tensorwright.ops.control import conditional, item, items, loop_while, scan
from tensorwright.ops.conv import conv, conv_transpose
from tensorwright.ops.cumulative import cumprod, cumsum
from tensorwright.ops.einsum import einsum
from tensorwright.ops.elementwise import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    atan,
    atanh,
    bitcast,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    cast,
    ceil,
    cos,
    cosh,
    div,
    equal,
    erf,
    exp,
    floor,
    greater,
    greater_equal,
    is_inf,
    is_nan,
    less,
    less_equal,
    log,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mod,
    mul,
    neg,
    not_equal,
    pow,
    reciprocal,
    rem,
    round,
    rsqrt,
    select,
    shift_left,
    shift_right,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    sub,
    tan,
    tanh,
    trunc_div,
)  # fmt: skip
from tensorwright.ops.index import (
    dynamic_slice,
    dynamic_update_slice,
    gather,
    gather_elements,
    gather_nd,
    scatter_elements,
    scatter_nd,
)  # fmt: skip
from tensorwright.ops.linalg import det, dot_general, gemm, linear, matmul
from tensorwright.ops.movement import (
    broadcast_to,
    concat,
    flip,
    pad,
    reshape,
    slice,
    tile,
    transpose,
)  # fmt: skip
from tensorwright.ops.norm import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    log_softmax,
    lp_norm,
    lrn,
    rms_norm,
    softmax,
)  # fmt: skip
from tensorwright.ops.patches import col2im, deform_conv, max_unpool
from tensorwright.ops.pool import (
    avg_pool,
    global_avg_pool,
    global_lp_pool,
    global_max_pool,
    lp_pool,
    max_pool,
    max_pool_with_indices,
)  # fmt: skip
from tensorwright.ops.positions import bind_size, full, iota, nonzero, size, trilu
from tensorwright.ops.quantize import (
    conv_integer,
    dequantize,
    dynamic_quantize,
    matmul_integer,
    quantize,
    quantized_conv,
    quantized_matmul,
)  # fmt: skip
from tensorwright.ops.random import bernoulli, multinomial, normal, uniform
from tensorwright.ops.recurrent import gru, lstm, rnn
from tensorwright.ops.reduce import (
    argmax,
    argmin,
    reduce_all,
    reduce_any,
    reduce_max,
    reduce_min,
    reduce_prod,
    reduce_sum,
)  # fmt: skip
from tensorwright.ops.resample import affine_grid, grid_sample, resize
from tensorwright.ops.sort import top_k, unique
from tensorwright.ops.statistics import (
    reduce_l1,
    reduce_l2,
    reduce_log_sum,
    reduce_log_sum_exp,
    reduce_mean,
    reduce_sum_square,
)  # fmt: skip
from tensorwright.ops.vision import non_max_suppression, roi_align
