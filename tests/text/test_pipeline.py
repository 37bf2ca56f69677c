"""TextPipeline: tokenized texts have the same rows, settings do not change running calls, and every pass is
within the budget."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.server.served import Embedder
from tests.support import assert_same_bits
from tests.support.model_fixtures import TINY, write_model

LETTERS = ["abc", "d", "efgh", "ij"] * 600  # three chunks of the tokenizing thread


@pytest.fixture
def model(tmp_path):
    return SentenceTransformer(write_model(tmp_path / "m"), max_batch_tokens=64)


def test_tokenized_texts_have_the_rows_of_their_texts(model):
    tokens = model.pipeline.tokenizer(LETTERS)
    assert_same_bits(model.pipeline.rows_of_tokens(tokens), model.encode(LETTERS))


def test_tokens_of_tokenized_texts_are_counted(model):
    tokens = model.pipeline.tokenizer(LETTERS[:4])
    model.pipeline.rows_of_tokens(tokens)
    assert model.num_tokens == sum(map(len, tokens.input_ids))


def test_every_pass_is_within_the_budget(model):
    sizes = list(model.pipeline.passes(LETTERS, lambda batch: len(batch.input_ids)))
    assert max(sizes) <= 64
    assert sum(sizes) == sum(map(len, model.pipeline.tokenizer(LETTERS).input_ids))
    assert all(a + b > 64 for a, b in pairwise(sizes[:100]))  # and the budget is used


def test_a_new_limit_does_not_change_a_running_call(model):
    expected = model.encode(LETTERS)
    stream = model.encode_stream(iter(LETTERS))
    parts = [next(stream)]
    model.max_seq_length = 3
    parts.extend(stream)
    assert_same_bits(np.concatenate(parts), expected)
    assert model.truncated_texts == 0


def test_a_warning_in_a_stream_points_at_the_caller(model):
    model.max_seq_length = 4
    with pytest.warns(UserWarning, match="max_seq_length=4 tokens") as seen:
        list(model.encode_stream(iter(LETTERS)))
    assert seen[0].filename == __file__


def test_a_prompt_that_is_pooled_starts_at_the_first_token(model):
    assert model.pipeline.pooling_start("ab") == 0
    assert model.pipeline.pooling_start(None) == 0
    model.set_pooling_include_prompt(False)
    assert model.pipeline.pooling_start(None) == 0
    assert (
        model.pipeline.pooling_start("ab") == len(model.pipeline.tokenizer(["ab"]).input_ids[0]) - 1
    )


def test_the_server_computes_prompts_of_one_length_together(model):
    model.set_pooling_include_prompt(False)
    embedder = Embedder(model)
    group = embedder.group("a b ")
    assert group == embedder.group("c d ")
    assert group != embedder.group("a ")
    rows, _ = embedder.run(["a b ef", "c d gh"], group)
    for row, prompt, text in zip(rows, ("a b ", "c d "), ("ef", "gh"), strict=True):
        assert_same_bits(row, model.encode(text, prompt=prompt))


def test_the_error_for_a_limit_beyond_the_positions_names_the_argument(model):
    with pytest.raises(ValueError, match=f"limit must be at most {TINY.max_positions}"):
        model.pipeline.limit_length("limit", TINY.max_positions + 1)
