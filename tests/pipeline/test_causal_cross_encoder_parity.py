"""Rerankers that are causal language models, compared with sentence-transformers' CrossEncoder, with random
weights. Needs the group parity."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import CrossEncoder
from tests.support.parity_models import KINDS, randomize, tokenizer_of
from tests.support.parity_texts import parity_texts

# Deprecations inside torch and transformers cannot be fixed here.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

# Relative to the largest logit of the head, because a score is a difference of two logits.
BOUND = 2e-6
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}: {{ message['content'] }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>answer:{% endif %}"
)


@pytest.fixture(scope="module")
def pairs():
    texts = [text for text in sorted(parity_texts(), key=len)[:300:20] if text.strip()]
    return list(zip(texts, reversed(texts), strict=True))


@pytest.fixture(scope="module")
def st():
    pytest.importorskip("torch")
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module", params=["qwen2", "qwen3", "gemma"])
def folder(request, st, tmp_path_factory):  # noqa: ARG001
    """Tied without a chat template, tied with one, and with a separate head."""
    transformers = pytest.importorskip("transformers")
    kind = KINDS[request.param]
    fields = {**kind.fields, "tie_word_embeddings": request.param != "qwen3"}
    model = getattr(transformers, f"{kind.stem}ForCausalLM")(
        getattr(transformers, f"{kind.stem}Config")(**fields)
    )
    randomize(model)
    place = tmp_path_factory.mktemp("causal")
    model.save_pretrained(place)
    tokenizer = tokenizer_of(transformers, kind, [*parity_texts()[:100], "yes no yes no"])
    tokenizer.add_tokens(["yes", "no"])
    if request.param != "qwen2":
        tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(place)
    return place


def assert_same(folder, st, pairs, **options):
    import torch

    theirs = st.CrossEncoder(
        str(folder), device="cpu", activation_fn=torch.nn.Identity(), **options
    )
    ours = CrossEncoder(folder, activation_fn="torch.nn.Identity", **options)
    found, expected = ours.predict(pairs), theirs.predict(pairs)
    assert found.shape == expected.shape
    assert np.ptp(expected) > 0.1
    assert np.abs(found - expected).max() <= BOUND * largest_logit(theirs, pairs)


def largest_logit(model, pairs):
    """The largest logit of any token."""
    import torch

    with torch.inference_mode():
        features = model[0](model.preprocess(pairs))
    return float(features["causal_logits"].abs().max())


def test_scores_are_the_same(folder, st, pairs):
    assert_same(folder, st, pairs)


def test_scores_of_truncated_pairs_are_the_same(folder, st, pairs):
    assert_same(folder, st, pairs, max_length=25)


@pytest.mark.parametrize("false", [None, 7])
def test_scores_of_other_tokens_are_the_same(folder, st, pairs, tmp_path, false):
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    transformer = Transformer(str(folder), transformer_task="text-generation")
    model = st.CrossEncoder(
        modules=[transformer, LogitScore(30, false)],
        device="cpu",
        prompts={"judge": "how well?"},
        default_prompt_name="judge",
    )
    model.save_pretrained(str(tmp_path))
    assert_same(tmp_path, st, pairs)


def test_sentence_transformers_reads_a_saved_folder(folder, st, pairs, tmp_path):
    CrossEncoder(folder).save_pretrained(tmp_path)
    assert_same(tmp_path, st, pairs)
