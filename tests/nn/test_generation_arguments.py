"""Arguments of generation: accepted prompts and options, their meaning, and errors."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import nn
from simdformer.generation import GenerationConfig, distribution, draw, generate, penalized, stream
from tests.nn.test_generation import PROMPTS, VOCAB, language_model


@pytest.fixture(scope="module")
def model():
    return language_model()


def broken():
    """A model with NaN for one of its tokens."""
    model = language_model()
    weight = model.embedding.weight.copy()
    weight[3] = np.nan
    model.embedding.weight = weight
    return model


@pytest.mark.parametrize(
    "prompts",
    ["12", ["12"], [["1", "2"]], [[1.0, 2.0]], [[True, False]], [[1, True]], [1.5], {"ids": [1]}, 3,
     None, b"12", [[[1], [2]]], [None], np.array([[1.0, 2.0]]), np.array([True])],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("run", [generate, lambda *a: list(stream(*a))], ids=["generate", "stream"])
def test_prompts_that_are_not_ids_are_refused(model, run, prompts):
    with pytest.raises((TypeError, ValueError), match="input_ids"):
        run(model, prompts)


@pytest.mark.parametrize(
    "prompts",
    [np.array([[3, 1]]), (np.array([3, 1], np.uint8),), [(np.int64(3), np.int32(1))], [3, 1], (3, 1),
     np.array([3, 1]), [range(3, 0, -2)]],
    ids=repr,
)  # fmt: skip
def test_prompts_of_every_form_are_ids(model, prompts):
    assert generate(model, prompts, max_new_tokens=4) == generate(model, [[3, 1]], max_new_tokens=4)


@pytest.mark.parametrize("eos", [-1, VOCAB, VOCAB + 5, [-1, 99], np.int64(-1), np.array([-1])])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 1}], ids=str)
def test_an_end_token_outside_the_vocabulary_changes_nothing(model, eos, options):
    options = {**options, "max_new_tokens": 5}
    expected = generate(model, PROMPTS, **options)
    for least in (0, 3):
        assert (
            generate(model, PROMPTS, eos_token_id=eos, min_new_tokens=least, **options) == expected
        )


def test_penalties_without_effect_do_not_change_scores():
    scores = np.array([0.0, 1.0, 2.0, 9.0])
    config = GenerationConfig(eos_token_id=-1, min_new_tokens=1, repetition_penalty=2.0)
    np.testing.assert_array_equal(penalized(scores, [], [], config), scores)


@pytest.mark.parametrize("eos", [1.0, "4", True, [True], [1.5], ["4"], [[4]]])
def test_end_tokens_that_are_not_ids_are_refused(model, eos):
    with pytest.raises((TypeError, ValueError), match="eos_token_id"):
        generate(model, PROMPTS, eos_token_id=eos)


@pytest.mark.parametrize("stops", [["ab"], [[1.5]], [[True]], [1], 3])
def test_stop_sequences_that_are_not_ids_are_refused(model, stops):
    with pytest.raises((TypeError, ValueError)):
        generate(model, PROMPTS, stop_sequences=stops)


EVERY = list(range(VOCAB))
SEARCHES = [{}, {"num_beams": 2}, {"do_sample": True, "seed": 0}]


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_nan_logits_are_an_error_that_names_the_prompt(options):
    with pytest.raises(ValueError, match=r"input_ids\[1\]: the model's logits are NaN"):
        generate(broken(), [[1], [3]], max_new_tokens=2, **options)


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_excluding_all_tokens_is_an_error(model, options):
    with pytest.raises(ValueError, match=r"input_ids\[0\]: no token is left"):
        generate(model, [[1]], min_new_tokens=1, eos_token_id=EVERY, **options)


@pytest.mark.parametrize("scores", [[np.nan, 1.0], [-np.inf, -np.inf], [np.inf, 1.0]])
def test_scores_without_a_distribution_are_an_error(scores):
    with pytest.raises(ValueError, match="scores must have a finite maximum"):
        distribution(np.array(scores), GenerationConfig(do_sample=True))


@pytest.mark.parametrize("temperature", [1e-309, 5e-324, 1e-40, np.float32(1e-20)])
def test_a_temperature_near_0_draws_the_best(model, temperature):
    config = GenerationConfig(do_sample=True, temperature=temperature)
    assert draw(np.array([1.0, 3.0, 2.0]), config, np.random.default_rng(0)) == 1
    got = generate(model, PROMPTS, do_sample=True, seed=0, temperature=temperature)
    assert got == generate(model, PROMPTS)


NUMPY = {
    "max_new_tokens": np.int64(5), "min_new_tokens": np.uint8(1), "do_sample": np.True_,
    "temperature": np.float32(0.5), "top_k": np.int32(4), "top_p": np.float64(0.75),
    "min_p": np.float32(0.0), "repetition_penalty": np.float16(1.5), "num_beams": np.int64(1),
    "length_penalty": np.float32(1.0), "early_stopping": np.False_, "eos_token_id": np.int64(4),
    "seed": np.int64(3), "num_threads": np.int64(1), "num_return_sequences": np.int64(1),
}  # fmt: skip


def test_numpy_scalars_are_numbers(model):
    plain = {name: value.item() for name, value in NUMPY.items()}
    assert generate(model, PROMPTS, **NUMPY) == generate(model, PROMPTS, **plain)


def test_none_is_the_default(model):
    names = [name for name in GenerationConfig.__dataclass_fields__ if name != "eos"]
    assert generate(model, PROMPTS, **dict.fromkeys(names)) == generate(model, PROMPTS)


@pytest.mark.parametrize("value", [1, np.True_, np.int64(1)])
def test_flags_are_evaluated_as_in_python(model, value):
    options = {"num_beams": 3, "max_new_tokens": 8, "eos_token_id": 4}
    assert generate(model, PROMPTS, early_stopping=value, **options) == generate(
        model, PROMPTS, early_stopping=True, **options
    )
    assert generate(model, PROMPTS, do_sample=value, seed=0) == generate(
        model, PROMPTS, do_sample=True, seed=0
    )


@pytest.mark.parametrize(
    "name", ["max_new_tokens", "top_k", "temperature", "top_p", "seed", "num_beams", "pad_token_id"]
)
@pytest.mark.parametrize("value", ["1", [1], True, 1j], ids=repr)
def test_an_option_that_is_not_a_number_is_refused_by_name(model, name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        generate(model, PROMPTS, **{name: value})


def test_max_length_counts_the_prompt(model):
    got = generate(model, PROMPTS, max_length=7)
    assert got == [generate(model, [p], max_new_tokens=7 - len(p))[0] for p in PROMPTS]
    beams = generate(model, PROMPTS, max_length=7, num_beams=3)
    assert beams == [
        generate(model, [p], max_new_tokens=7 - len(p), num_beams=3)[0] for p in PROMPTS
    ]


def test_max_length_that_leaves_no_room_is_refused(model):
    with pytest.raises(ValueError, match="max_length=5 leaves no room after a prompt of 5 tokens"):
        generate(model, PROMPTS, max_length=5)
    with pytest.raises(ValueError, match="max_length and max_new_tokens are mutually exclusive"):
        generate(model, PROMPTS, max_length=9, max_new_tokens=4)


def test_sampled_sequences_of_one_prompt_are_draws_of_their_own(model):
    options = {"do_sample": True, "seed": 5, "max_new_tokens": 12}
    got = generate(model, PROMPTS, num_return_sequences=3, **options)
    assert got == generate(model, [p for p in PROMPTS for _ in range(3)], **options)
    assert len({tuple(row) for row in got[:3]}) == 3


def test_several_sequences_of_a_search_are_its_best_in_order(model):
    options = {"num_beams": 4, "max_new_tokens": 6, "eos_token_id": 4}
    got = generate(model, PROMPTS, num_return_sequences=4, **options)
    assert got[::4] == generate(model, PROMPTS, **options)
    for first in range(0, 12, 4):
        assert len({tuple(row) for row in got[first : first + 4]}) == 4


def test_more_sequences_than_there_are_beams_are_refused(model):
    with pytest.raises(ValueError, match="num_return_sequences must be at most num_beams=1"):
        generate(model, PROMPTS, num_return_sequences=2)
    with pytest.raises(ValueError, match=r"input_ids\[0\]: 11 sequences were found"):
        generate(model, [[1]], max_new_tokens=1, num_beams=20, num_return_sequences=12)


def test_a_padding_token_is_removed_from_prompts_and_pads_the_results(model):
    plain = generate(model, [[3, 1, 4], [2]], eos_token_id=4, max_new_tokens=9)
    padded = np.array([[3, 1, 4], [0, 0, 2]])
    got = generate(model, padded, eos_token_id=4, max_new_tokens=9, pad_token_id=0)
    longest = max(map(len, plain))
    assert got == [row + [0] * (longest - len(row)) for row in plain]


def test_a_padding_token_that_is_an_end_stays_in_the_prompts(model):
    """As in transformers, which cannot distinguish them."""
    got = generate(model, [[4, 3, 1]], eos_token_id=4, pad_token_id=4, max_new_tokens=5)
    assert got == generate(model, [[4, 3, 1]], eos_token_id=4, max_new_tokens=5)


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="model must be a LanguageModel, got Linear"):
        generate(nn.Linear(3, 3), [[1]])
