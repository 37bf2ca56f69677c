"""The eight points: known values for all-MiniLM-L6-v2, and a report for every architecture."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.explain import measure_points
from simdformer.explain.points import heads, positions, scores, sequence, stability
from simdformer.explain.points.scores import saturation
from simdformer.explain.points.sequence_layers import influence, random_layers
from simdformer.explain.points.study import Study, default_texts, maps_of
from tests.support import assert_same_bits
from tests.support.tiny_models import BY_NAME

TITLES = [
    "1. Several heads",
    "2. Separate weights for queries and keys",
    "3. Scaled scores",
    "4. Attention, CNN, RNN",
    "5. Five scores",
    "6. Residual connections",
    "7. LayerNorm and BatchNorm",
    "8. Positions",
]


@pytest.fixture(scope="module")
def study():
    return Study(SentenceTransformer("all-MiniLM-L6-v2"), default_texts()[:33])


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(sequence, "_LENGTHS", (4, 8))
    monkeypatch.setattr(sequence, "find_spec", lambda name: None)  # noqa: ARG005


def figure(section, title):
    return next(each for each in section.figures if each.title == title)


# Every model


@pytest.mark.parametrize(
    ("name", "missing"),
    [("bert", set()), ("mpnet", {2, 3, 5}), ("modernbert", {2, 3, 5, 7}), ("qwen3", {2, 3, 5, 7})],
)
def test_every_architecture_has_a_report(tmp_path, name, missing):
    """Points that do not apply to its layers are reported as such."""
    model = SentenceTransformer(BY_NAME[name].write(tmp_path / "m"))
    before = model.encode("a cab")
    report = measure_points(model)
    assert [section.title for section in report.sections] == TITLES
    found = {
        number
        for number, section in enumerate(report.sections, 1)
        if section.paragraphs[0].startswith("Not measured on this model: ")
    }
    assert found == missing
    for number, section in enumerate(report.sections, 1):
        assert bool(section.figures) == (number not in missing)
    assert_same_bits(model.encode("a cab"), before)
    assert report.to_html()


def test_too_few_texts_are_refused(model):
    with pytest.raises(ValueError, match="at least 33 texts, got 32"):
        measure_points(model, ["a"] * 32)


def test_the_sample_is_64_texts():
    assert len(set(default_texts())) == 64


def test_heads_scores_are_those_of_the_attention(study):
    for layer in range(study.num_layers):
        for head, weights in zip(
            study.heads(study.output, layer), maps_of(study.output)[layer], strict=True
        ):
            powers = np.exp((head.query @ head.key.T).astype(np.float64) * head.scale)
            expected = powers / powers.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(weights, expected, rtol=0, atol=2e-5)


# 2 and 3


def test_tied_keys_increase_attention_to_the_token_itself(study):
    section = heads.queries_and_keys(study)
    weight = figure(section, "Attention of a token to itself").series
    asymmetry = figure(section, "Asymmetry of the scores").series
    assert weight["separate"].mean() < 0.15
    assert weight["tied"].mean() > 0.45
    assert 1.2 < asymmetry["separate"].mean() < 1.45


@pytest.mark.parametrize(
    ("dim", "scaled", "unscaled"),
    [(32, 0.180, 0.256), (64, 0.184, 0.217), (128, 0.185, 0.158), (512, 0.184, 0.097)],
)
def test_unscaled_scores_of_random_vectors_saturate_only_at_large_dims(dim, scaled, unscaled):
    norms = scores._random(dim)[:, 3]
    np.testing.assert_allclose(norms, [scaled, unscaled], rtol=0, atol=0.01)


def test_unscaled_scores_of_a_trained_model_saturate(study):
    section = scores.scaling(study)
    largest = figure(section, "Largest weight, by layer").series
    rows = figure(section, "Rows with a weight above 0.99, by layer").series
    np.testing.assert_allclose(
        [largest["scaled"][1], largest["unscaled"][1]], [0.648, 0.955], atol=0.03
    )
    assert rows["scaled"][1] < 0.02
    assert rows["unscaled"][1] > 0.7


def test_saturation_for_one_key_and_for_uniform_weights():
    certain = saturation(np.eye(4) * 1e3)
    np.testing.assert_allclose(certain[1:], [0, 1, 0, 1], atol=1e-6)
    uniform = saturation(np.zeros((4, 4)))
    # |I / n - 1 1^T / n^2|
    np.testing.assert_allclose(uniform, [0, np.log(4), 0.25, np.sqrt(3) / 4, 0], atol=1e-6)


# 4


def test_influence_by_distance():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((24, 16))
    by_layer = {name: influence(layer, x) for name, layer in random_layers(16, 3, rng).items()}
    assert (by_layer["convolution of 3"][:2] > 0.1).all()
    assert not by_layer["convolution of 3"][2:].any()
    assert by_layer["attention"][1:].min() > 0.2 * by_layer["attention"][1:].max()
    for name in ("RNN", "GRU", "LSTM"):
        assert by_layer[name][20] < 1e-3 * by_layer[name][0]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_recurrent_layers_are_torchs(name):
    import torch

    rng = np.random.default_rng(0)
    layer = random_layers(8, 3, rng)[name]
    _, inputs, states = layer.args
    theirs = getattr(torch.nn, name)(8, 8, bias=False).double()
    for parameter, ours in ((theirs.weight_ih_l0, inputs), (theirs.weight_hh_l0, states)):
        stacked = np.concatenate(ours.transpose(0, 2, 1))
        parameter.data = torch.from_numpy(np.ascontiguousarray(stacked))
    x = rng.standard_normal((12, 8))
    expected = theirs(torch.from_numpy(x))[0].detach().numpy()
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-12)


def test_there_is_a_time_for_every_length(model):
    section = sequence.sequence_layers(Study(model, ["a"]))
    times = figure(section, "Time of one layer, one thread").series
    assert list(times) == ["attention"]
    assert (times["attention"] > 0).all()


# 5 to 8


def test_five_scores_of_one_head(study):
    rows = {row[0]: row[1:] for row in scores.five_scores(study).figures[0].rows}
    expected = {
        "scaled dot product": 0.455,
        "dot product": 0.007,
        "euclidean": 0.049,
        "cosine": 2.517,
    }
    for name, entropy in expected.items():
        np.testing.assert_allclose(rows[name][0], entropy, rtol=0, atol=1e-3)
    assert rows["bilinear"][1] < 1e-6  # the head's own score


def test_without_residual_connections_all_tokens_become_equal(study):
    [lines] = stability.residual_connections(study).figures
    assert lines.series["with"].min() > 0.7
    assert lines.series["without"][-1] < 1e-4
    assert (np.diff(lines.series["without"]) < 0).all()


def test_other_texts_in_the_batch_change_batch_norm_only(study):
    batches, padding = stability.layer_and_batch_norm(study).figures
    for lines in (batches, padding):
        assert not lines.series["LayerNorm"].any()
        assert lines.series["BatchNorm"].max() > 0.4


def test_the_layers_with_their_own_norms_are_the_model(study):
    found = stability._text(study, [study.output], stability._own)
    expected = study.output.last_hidden_state.mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_positions_and_word_order(study):
    section = positions.positions(study)
    errors = figure(section, "Error of PE(p + k) = M_k PE(p)").series
    assert errors["float64"].max() < 1e-12
    assert errors["float32 table"].max() < 2e-7
    assert "cosine of 0.978 with the table, and of 1.000000 with" in section.paragraphs[1]
