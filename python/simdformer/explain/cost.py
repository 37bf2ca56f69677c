# SPDX-License-Identifier: Apache-2.0
"""Self-attention beside convolutions and recurrent layers, counted."""

from __future__ import annotations

from dataclasses import dataclass

from simdformer.functional.arrays import positive_int


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs over n vectors of d features.

    Attributes
    ----------
    layer
        "attention", "convolution", "rnn", "gru" or "lstm".
    parameters
        Weights and biases.
    flops
        Multiplications and additions of matrix products, two for each pair.
    sequential_steps
        Operations that cannot run side by side, each a matrix product.
    path_length
        Layers that information passes through between the first and the last vector.
    """

    layer: str
    parameters: int
    flops: int
    sequential_steps: int
    path_length: int


def cost_table(n: int, d: int, kernel_size: int = 3) -> list[LayerCost]:
    """Count what one layer of each kind costs over n vectors of d features.

    Fewer parameters than an LSTM or a GRU holds for attention at every n; less compute than an LSTM
    only for n < 2 d, than a GRU for n < d, than a convolution of width 3 for no n.

    Parameters
    ----------
    n
        Length of the sequence.
    d
        Features of inputs and outputs; of attention's queries, keys and values over all heads too.
    kernel_size
        Vectors that the convolution reads for each output, an odd number above 1.

    Returns
    -------
    A LayerCost each for attention, convolution, rnn, gru and lstm. The recurrent layers have two
    biases for each gate, as torch.nn's.

    Raises
    ------
    TypeError, ValueError
        For what is not a positive int, and for an even kernel_size or 1.

    References
    ----------
    Vaswani et al. 2017, Attention Is All You Need, section 4 and table 1.

    Examples
    --------
    >>> [cost.parameters for cost in cost_table(128, 384)]
    [591360, 442752, 295680, 887040, 1182720]
    """
    n, d = positive_int("n", n), positive_int("d", d)
    kernel_size = positive_int("kernel_size", kernel_size)
    if kernel_size % 2 == 0 or kernel_size == 1:
        raise ValueError(f"kernel_size must be odd and above 1, got {kernel_size}")
    hops = -(-(n - 1) // (kernel_size // 2))
    # Four projections, scores and their product with the values.
    table = [
        LayerCost("attention", 4 * d * (d + 1), 8 * n * d * d + 4 * n * n * d, 1, min(n - 1, 1))
    ]
    parameters, flops = kernel_size * d * d + d, 2 * kernel_size * n * d * d
    table.append(LayerCost("convolution", parameters, flops, 1, hops))
    for layer, gates in (("rnn", 1), ("gru", 3), ("lstm", 4)):
        # Each gate reads the input and the state.
        parameters, flops = 2 * gates * d * (d + 1), 4 * gates * n * d * d
        table.append(LayerCost(layer, parameters, flops, n, n - 1))
    return table
