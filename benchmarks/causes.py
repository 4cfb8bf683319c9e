"""Why single kernels are slower than the best peer, as far as it was found out.

The command `python -m benchmarks.kernels` writes these beside the rows that lose. What was read off
the machine code or measured is said to be so; the rest is said to be a guess, or not known. Single
numbers in here are from the machine that the page names.
"""

EXPONENTIALS = (
    "the loop of exponentials has 9 instructions a vector for the FMA pipe (machine code), of "
    "which one of 512 bits starts a cycle (measured); "
)

CAUSES = {
    "conv_c4": "not known; the share of turning and padding the operand was not separated.",
    "conv_dilated": "near the FMA limit, as the peer; there is no Winograd form for dilation.",
    "depthwise_d8": "measured: turning and padding the operand takes 14.9 of 28.5 us, the "
                    "convolution, which turns its result as it stores it, 13.2; with channels "
                    "outside of rows (`panels = around`) 2 less. Along rows, which are 7 long, it "
                    "was slower (0.037 ms against 0.033).",
    "depthwise_d9": "measured: turning and padding the operand takes 10.6 of 35.9 us, the "
                    "convolution 25.0, of which its multiply-adds are 7.6. For 63 of them a tile "
                    "stores 32 quarters of vectors, 24 after taking them out (machine code); what "
                    "lies above and beside an element is 4 KiB apart, in one set of the L1 cache. "
                    "Other tiles, orders and windows of the space were 2 to 64 % slower.",
    "map_add": "bound by memory. The result is stored past the caches; new results fault in page "
               "by page until one of their size was let go of.",
    "map_exp": EXPONENTIALS + "what the peer does was not looked at.",
    "map_tanh": "not known; the loop has 27 instructions a vector (machine code), one of them a "
                "division, which takes 6 cycles (measured).",
    "move_concat": "at the measured bandwidth of the L3 cache, as the peer.",
    "move_embedding": "not known.",
    "move_heads": "at 94 % of the measured bandwidth of the L3 cache, as the peer.",
    "rows_softmax": EXPONENTIALS + "the maximum, the sum and the division are three more passes "
                    "over the row. The sum joined with the exponentials was not faster.",
}  # fmt: skip


def cause_of(name: str) -> str:
    """The cause known for a row, by the longest key that its name begins with."""
    known = [key for key in CAUSES if name.startswith(key)]
    return CAUSES[max(known, key=len)] if known else "not known."
