"""Errors of `outputs` and `encode(output_value=None)`."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

from tests.support.model_fixtures import TINY

LAYERS, HEADS = TINY.num_layers, TINY.num_heads


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"output_attentions": [LAYERS]}, ValueError, f"output_attentions asks for layer {LAYERS}"),
        ({"output_attentions": [-LAYERS - 1]}, ValueError, "output_attentions asks for layer -"),
        (
            {"output_attentions": {0: [HEADS]}},
            ValueError,
            f"output_attentions asks for head {HEADS}",
        ),
        ({"output_attentions": [1, 1]}, ValueError, "output_attentions asks for layer 1 twice"),
        ({"output_attentions": {0: [1, 1]}}, ValueError, "output_attentions asks for head 1 twice"),
        (
            {"output_attentions": {0: 1}},
            TypeError,
            "output_attentions must be a bool or give heads",
        ),
        ({"output_attentions": 1}, TypeError, "output_attentions must be a bool or give layers"),
        (
            {"output_attentions": "all"},
            TypeError,
            "output_attentions must be a bool or give layers",
        ),
        ({"output_attentions": [0.5]}, TypeError, "output_attentions must give layers by number"),
        ({"output_head_outputs": [LAYERS]}, ValueError, "output_head_outputs asks for layer"),
        ({"output_hidden_states": [0]}, TypeError, "output_hidden_states must be a bool"),
        ({"head_mask": np.ones(HEADS + 1)}, ValueError, "head_mask must have shape"),
        ({"head_mask": np.ones((LAYERS + 1, HEADS))}, ValueError, "head_mask must have shape"),
        (
            {"head_mask": [np.nan] * HEADS},
            ValueError,
            "head_mask contains a number that is not finite",
        ),
        ({"head_mask": ["a"] * HEADS}, TypeError, "head_mask must be an array of numbers"),
        ({"max_bytes": 0}, ValueError, "max_bytes"),
    ],
)
def test_nonexistent_layers_and_heads_are_refused_by_name(model, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        model.outputs("a", **arguments)


@pytest.mark.parametrize("inputs", [3, None, b"a", ["a", 3]])
def test_an_input_that_is_not_a_text_is_refused(model, inputs):
    with pytest.raises(TypeError):
        model.outputs(inputs)


def test_the_size_is_named_before_anything_is_allocated(model):
    texts = ["a" * 90] * 500
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="max_bytes is 1000000") as error:
            model.outputs(texts, output_attentions=True, max_bytes=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    n = 92
    a_text = 4 * (n * TINY.hidden_size + n * n * LAYERS * HEADS)
    assert f"take {500 * a_text} bytes" in str(error.value)
    assert peak < 250 * a_text  # the memory that tokenizing may need is reserved


def test_exactly_max_bytes_is_enough(model):
    n = len(model.outputs("a cab").tokens)
    features = (LAYERS + 1) * TINY.hidden_size + LAYERS * TINY.hidden_size
    needed = 4 * (n * features + n * n * 1)
    wanted = {
        "output_attentions": {0: [1]},
        "output_hidden_states": True,
        "output_head_outputs": True,
    }
    output = model.outputs("a cab", **wanted, max_bytes=needed)
    arrays = (*output.hidden_states, *output.attentions[:1], *output.head_outputs)
    assert sum(array.nbytes for array in arrays) == needed
    with pytest.raises(ValueError, match=f"take {needed} bytes, max_bytes is {needed - 1}"):
        model.outputs("a cab", **wanted, max_bytes=needed - 1)


def test_hidden_states_need_dicts_as_output(model):
    with pytest.raises(ValueError, match="output_hidden_states=True needs output_value=None"):
        model.encode("a", output_hidden_states=True)


def test_a_dict_has_no_precision(model):
    with pytest.raises(ValueError, match="precision must be 'float32' with output_value=None"):
        model.encode("a", output_value=None, precision="int8")
