"""cost_table: the counts, and the conditions under which attention is cheaper."""

from __future__ import annotations

import pytest

from simdformer import nn
from simdformer.explain import cost_table


def costs(n, d, kernel_size=3):
    return {cost.layer: cost for cost in cost_table(n, d, kernel_size)}


@pytest.mark.parametrize(
    ("layer", "thousands", "mega_128", "mega_512"),
    [
        ("attention", 591, 176, 1007),
        ("convolution", 443, 113, 453),
        ("rnn", 296, 75, 302),
        ("gru", 887, 226, 906),
        ("lstm", 1183, 302, 1208),
    ],
)
def test_counts_of_a_layer_of_384_features(layer, thousands, mega_128, mega_512):
    short, long = costs(128, 384)[layer], costs(512, 384)[layer]
    assert short.parameters == long.parameters
    assert round(short.parameters / 1e3) == thousands
    assert (round(short.flops / 1e6), round(long.flops / 1e6)) == (mega_128, mega_512)


def test_attentions_parameters_are_those_of_the_layer():
    layer = nn.MultiheadAttention(24, 4)
    held = sum(array.size for array in layer.state_dict().values())
    assert costs(7, 24)["attention"].parameters == held


def test_attention_is_cheaper_than_recurrent_layers_only_for_short_texts():
    d = 64
    for other, most in (("lstm", 2 * d), ("gru", d)):
        for n, cheaper in ((most - 1, True), (most, False), (most + 1, False)):
            table = costs(n, d)
            assert (table["attention"].flops < table[other].flops) == cheaper


@pytest.mark.parametrize("n", [1, 2, 64, 10_000])
def test_attention_is_never_cheaper_than_a_convolution_of_width_3(n):
    table = costs(n, 64)
    assert table["attention"].flops > table["convolution"].flops
    assert table["attention"].parameters > table["convolution"].parameters


def test_steps_and_paths():
    table = costs(10, 8, kernel_size=5)
    assert [cost.sequential_steps for cost in table.values()] == [1, 1, 10, 10, 10]
    # With a width of five, a convolution reaches two neighbors on either side.
    assert [cost.path_length for cost in table.values()] == [1, 5, 9, 9, 9]


def test_a_single_vector_has_no_path():
    assert {cost.path_length for cost in cost_table(1, 8)} == {0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8), "n must be a positive integer, got 0"),
        ((8, 1.5), "d must be a positive integer, got 1.5"),
        ((8, 8, 4), "kernel_size must be odd and above 1, got 4"),
        ((8, 8, 1), "kernel_size must be odd and above 1, got 1"),
    ],
)
def test_invalid_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        cost_table(*arguments)
