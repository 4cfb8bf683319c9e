"""Why single kernels are slower than the best peer, as far as it was found out.

The command `python -m benchmarks.kernels` writes these beside the rows that lose. A row that has
none is said to have none.
"""

TURNED = (
    "the operands come channels first and the result leaves so: both are turned here, which takes "
    "a third of the time; the peer computes along rows. Inside a model nothing is turned."
)
SHORT_ROWS = (
    "rows of 7 or 14 results: turning a map of 7 x 7 stores quarters of vectors; stores and "
    "shuffles, not arithmetic, take most of the time."
)
LOADS = "bound by loads: at rows of 112 to 28 results two of three loads cross a cache line."
NEAR = "both are at the FMA limit within a few percent."

CAUSES = {
    "conv_c1": "the window's 7 x 3 elements are read one by one (the image has three channels) "
               "and the 64 channels of the result are turned at the store; " + NEAR,
    "conv_c4": NEAR + " What differs is turning the operand with its padding.",
    "conv_c7": NEAR,
    "conv_c10": NEAR + " 4.7 MB of weights are read from the L3 cache by every block of rows.",
    "conv_r_1x1_7": NEAR + " 4 MB of weights are read once; the tile's 49 rows make 8 tiles of 6 "
                    "and 7, and the result is turned.",
    "conv_dilated": NEAR + " Dilated windows have no Winograd form here.",
    "conv_transposed": NEAR + " The four phases of the result are interleaved in a pass apart.",
    "conv_grouped32": "groups of 8 channels fill half of a vector's distinct elements: the other "
                      "operand is two elements spread over a vector, a load and a shuffle for each "
                      "multiply-add. Winograd for groups is not built.",
    "depthwise_d1": TURNED, "depthwise_d3": TURNED, "depthwise_d5": TURNED, "depthwise_d7": TURNED,
    "depthwise_d2": LOADS, "depthwise_d4": LOADS, "depthwise_d6": LOADS,
    "depthwise_d8": SHORT_ROWS, "depthwise_d9": SHORT_ROWS,
    "rows_softmax": "exponentials take 9 to 10 cycles a vector, which is the FMA pipe's limit for "
                    "a polynomial of degree 6 with its reduction; the rest are three more passes "
                    "over a row in the L1 cache.",
    "map_tanh": "one division and ten multiply-adds a vector; the peer's rational form is shorter "
                "and less exact.",
    "map_add": "bound by memory; new results are not written past the cache.",
    "reduce_sum_axis2": "bound by memory.",
    "recurrent_gru_64": "weights of 4.7 MB are read from the L3 cache in every step, by both.",
    "matmul_512x768x3072": NEAR,
    "matmul_128x768x50257": "154 MB of weights and 26 MB of results are bound by memory in part; "
                            "results are stored through the cache.",
    "move_concat": "bound by the bandwidth of the cache, as the peer is.",
    "move_embedding": "bound by the bandwidth of the cache, as the peer is.",
    "attention": "scores and products run at 85 to 90 % of the FMA limit; exponentials and sums "
                 "run between them, not beside them.",
}  # fmt: skip


def cause_of(name: str) -> str:
    """The cause known for a row, by the longest key that its name begins with."""
    known = [key for key in CAUSES if name.startswith(key)]
    return CAUSES[max(known, key=len)] if known else "no cause is known yet."
