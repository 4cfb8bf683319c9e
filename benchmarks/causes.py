"""Why single kernels are slower than the best peer, as far as it was found out.

The command `python -m benchmarks.kernels` writes these beside the rows that lose. What was read off
the machine code or measured is said to be so; the rest is said to be a guess, or not known. Single
numbers in here are from the machine that the page names.
"""

EXPONENTIALS = (
    "The loop of exponentials has 8 instructions a vector for the FMA pipe (count), of which one "
    "of 512 bits starts a cycle, and takes 8.4 cycles a vector in cache (measured); with a table "
    "of 32 roots it has 7, but errors of 2.5 units in the last place (both measured). "
)
CALL = (
    "The call from Python takes 4 us beside the kernels where results are small, about 7 where "
    "they are large (measured). "
)

NEVER_LOST = "not looked for: no peer was faster in the runs that these causes are from."

STATES = (
    "each step reads the weights of the state, 4 MB, from the L3 cache as fast as a plain read of "
    "them (profile), which takes most of the time; so does the peer. Panels read from both ends "
    "in turns, whose last part the L2 cache still has, gave a C program 13 %; not there yet."
)

CAUSES = {
    "lstm2": STATES, "recurrent_lstm_64": STATES, "recurrent_gru_64": STATES,
    "attention": "both products run at 95 and 97 % of the FMA limit; the softmax between them "
                 "takes 12 % of the time (profile of 1024 tokens), of which the exponentials were "
                 "half before they took 8 instructions instead of 10.",
    "hello_world": "the least times are 4.8 us against 5.9; the medians of that run, of which the "
                   "call is all, swung from 4.8 to 8.5.",
    "conv_c1": "at 81 to 87 % of the FMA limit in different runs, as the peer. Padding is 40 of "
               "2330 us (profile); where the rest goes was not found by that.",
    "conv_c4": "at 90 % of the FMA limit; the operand is turned and padded first, 74 of 1125 us "
               "(profile). 2 % of the products are with padding.",
    "conv_c10": "at 94 % of the FMA limit. A tap leaves the picture in one of 7 rows and columns: "
                "9 % of the products are with padding (count), which the operand holds as zeros.",
    "conv_m_expand": "at 73 % of the FMA limit, as the peer: 16 products for each result, "
                     "4.8 MB of which are stored.",
    "conv_transposed": "four convolutions, one for each phase of the result, at 98 % of the FMA "
                       "limit; turning and padding the operand takes 70 of 2220 us, joining and "
                       "turning the results 160 (profile).",
    "depthwise_d8": "measured: turning and padding the operand takes 12.0 of 22.2 us in kernels, "
                    "the convolution, which turns its result as it stores it, 9.8; the call from "
                    "Python 7 beside them. Along rows, which are 7 long, it was slower (0.037 ms "
                    "against 0.033). With two threads the operand takes 9.5, the convolution 5.6.",
    "depthwise_d9": "measured: turning and padding the operand takes 8.1 of 33.7 us in kernels, "
                    "the convolution 25.4, of which its multiply-adds are 7.6. For 63 of them a "
                    "tile stores 32 quarters of vectors, 24 after taking them out (machine code); "
                    "what lies above and beside an element is 4 KiB apart, in one set of the L1 "
                    "cache. Other tiles, orders and windows of the space were 2 to 64 % slower. "
                    "With two threads the operand takes 7.6, the convolution 13 to 16.",
    "map_add": "bound by memory. The result is stored past the caches; new results fault in page "
               "by page until one of their size was let go of.",
    "map_exp": EXPONENTIALS + CALL,
    "map_gelu": "a load waits for stores whose addresses end in the same 12 bits, which depends on "
                "where the operand lies (0.93 ms against 0.70, measured); results begin with a "
                "page, which is best for arrays as NumPy allocates them. Where two multiply-adds "
                "start in a cycle (Zen 5): 8 cycles a vector (measured) for 9 instructions of the "
                "FMA pipe and 6 that look up coefficients, one of which starts in a cycle (count); "
                "17 cycles with one polynomial of degree 16 for all and one vector at a time.",
    "map_tanh": "14.9 cycles a vector in cache, of which the division is 2 (measured); quotients "
                "of polynomials take 13.1 but are off by 5 units in the last place, this one by "
                "2.5 (both measured).",
    "matmul": "at 105 % of the FMA limit and more from 64 rows on (Strassen), at 90 % with 16.",
    "matmul_1x": "bound by memory: one thread reads the weights at 29 GB/s, two at 31 to 40 in "
                 "different runs, as the peers do.",
    "move_concat": CALL + "The copy itself (34 us of channels with one thread, 18 with two, 67 of "
                   "rows) is bound by the L3 cache: by `rep movsb`, by the C library, four vectors "
                   "at a time and with prefetches it took as long, past the caches 1.4 times as "
                   "long (measured).",
    "move_embedding": CALL + "Rows of 3 KB come from the L3 cache and from memory; the indices are "
                      "checked before (0.2 us, profile).",
    "move_heads": CALL + "The copy itself takes 46 us: see move_concat_channels.",
    "reduce_max_axis2": "depends on how much of the operand is still in the L3 cache: the same "
                        "peer took 0.31 ms in one run and 0.54 in the next.",
    "resnet8_f32": "least times are 0.070 ms and the peer's 0.072; while the second CPU is half "
                   "as fast both take 0.107, and which rounds met that decides (measured).",
    "rows_softmax": EXPONENTIALS + "The maximum, the sum and the division are three more passes "
                    "over the row, 15.5 cycles a vector in all (measured). The sum joined with the "
                    "exponentials was not faster. " + CALL,
    "unusual": "not looked for.",
    "unusual_cumsum_1000x1000_0": "bound by the L3 cache: 109 to 170 us by the same code, by "
                                  "where the operand lies; strips of 64 to 1008 columns take as "
                                  "long (measured).",
    "unusual_depthwise_72x5x2x28x1": "the convolution takes 16.5 of 29 us, the border written out "
                                     "6 (profile): every second element is two loads and a "
                                     "permutation for each of 25 products.",
    "unusual_linear_784x10x1": "the kernel takes 0.9 of 5.3 us, the call from Python the rest "
                               "(profile).",
    "unusual_product_1x1x1000x1000": "the kernel takes 62 of 71 us (profile), 65 GB/s from the L3 "
                                     "cache, which gives 81; the call from Python takes the rest.",
    "unusual_product_1x1x1000x1000_nt": "the kernel takes 51 of 60 us (profile): 79 GB/s from the "
                                        "L3 cache, which gives 81.",
    "unusual_product_1x1000x1x1000_tn": "as unusual_product_1x1x1000x1000.",
    "unusual_product_1x2x1000x1000_tn": "laying the matrix in panels takes 137 of 187 us, the "
                                        "product 42 (profile).",
    "unusual_product_1x17x1001x129": "laying the second operand in panels takes 15 of 64 us, the "
                                     "product 39 (profile).",
    "unusual_product_1x9x128x768": "laying the second operand in panels takes 10 to 14 of 32 us, "
                                   "the product 15 (profile).",
    "unusual_resize_linear_odd_3": "four gathers a vector, in rows of 61 (read off the loops): 15 "
                                   "of 20 us are the kernel (profile).",
    "unusual_scatter_elements": "the kernel takes 4.9 of 14 us (profile), the call from Python and "
                                "the result of 256 KB the rest.",
    "unusual_softmax": EXPONENTIALS,
    "unusual_topk_1000x1000_1": "a row takes 1.4 us: 0.2 to look through it (measured with rows "
                                "that fall), the rest for some 25 elements that beat the last of "
                                "the best so far, which are not to be predicted.",
    "unusual_transposed_32x1x9": "the product takes 15.5 of 23.5 us (profile): its 81 columns "
                                 "are 6 vectors, the last with one column, turned where stored.",
}  # fmt: skip


def cause_of(name: str) -> str:
    """The cause known for a row, by the longest key that its name begins with."""
    known = [key for key in CAUSES if name.startswith(key)]
    return CAUSES[max(known, key=len)] if known else NEVER_LOST
