# SPDX-License-Identifier: Apache-2.0
"""Costs of self-attention, convolutions and recurrent layers."""

from __future__ import annotations

from dataclasses import dataclass

from simdformer.functional.arrays import positive_int


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer over n vectors of d features.

    Attributes
    ----------
    layer
        "attention", "convolution", "rnn", "gru" or "lstm".
    parameters
        Weights and biases.
    flops
        Multiplications and additions of matrix products, two for each pair.
    sequential_steps
        Matrix products that cannot run in parallel.
    path_length
        Number of layers between the first and the last vector.
    """

    layer: str
    parameters: int
    flops: int
    sequential_steps: int
    path_length: int


def cost_table(n: int, d: int, kernel_size: int = 3) -> list[LayerCost]:
    """Count the cost of one layer of each kind over n vectors of d features.

    Attention always has fewer parameters than an LSTM or a GRU. It needs less compute than an LSTM only
    for n < 2 d, than a GRU for n < d, and never less than a convolution of width 3.

    Parameters
    ----------
    n
        Length of the sequence.
    d
        Features of inputs and outputs, and of the queries, keys and values of all heads.
    kernel_size
        Vectors that the convolution reads per output, an odd number above 1.

    Returns
    -------
    list of LayerCost
        For attention, convolution, rnn, gru and lstm. The recurrent layers have two biases per gate, as
        in torch.nn.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive int, or kernel_size is even or 1.

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
    # four projections, the scores, and their product with the values
    table = [
        LayerCost("attention", 4 * d * (d + 1), 8 * n * d * d + 4 * n * n * d, 1, min(n - 1, 1))
    ]
    parameters, flops = kernel_size * d * d + d, 2 * kernel_size * n * d * d
    table.append(LayerCost("convolution", parameters, flops, 1, hops))
    for layer, gates in (("rnn", 1), ("gru", 3), ("lstm", 4)):
        # each gate reads the input and the state
        parameters, flops = 2 * gates * d * (d + 1), 4 * gates * n * d * d
        table.append(LayerCost(layer, parameters, flops, n, n - 1))
    return table
