"""Methods and attributes that programs written for sentence-transformers expect of a model."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import CrossEncoder, SentenceTransformer
from tests.support import assert_same_bits
from tests.support.model_fixtures import NEW_TYPES, TEXTS, TINY, write_cross_encoder, write_model


class TorchDevice:
    """The relevant part of torch.device("cpu")."""

    def __str__(self):
        return "cpu"


def test_the_device_is_the_cpu(model):
    assert model.device == "cpu"
    assert model.device == TorchDevice()
    assert model.device != "cuda:0"
    assert (str(model.device), model.device.type, model.device.index) == ("cpu", "cpu", None)
    assert {model.device: 1}["cpu"] == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.to("cpu"),
        lambda m: m.to(device=m.device),
        lambda m: m.to(TorchDevice(), non_blocking=True),
        lambda m: m.to("torch.float32"),
        lambda m: m.to(dtype="float32"),
        lambda m: m.cpu(),
        lambda m: m.float(),
        lambda m: m.eval(),
        lambda m: m.train(False),
        lambda m: m.requires_grad_(False),
        lambda m: m.share_memory(),
    ],
)
def test_methods_without_effect_return_the_model(model, call):
    assert call(model) is model


def test_other_devices_and_dtypes_are_refused(model):
    with pytest.raises(ValueError, match="device must be None or 'cpu', got 'cuda'"):
        model.to("cuda")
    with pytest.raises(ValueError, match=r"dtype must be None or 'float32', got 'torch\.float16'"):
        model.to("torch.float16")
    with pytest.raises(TypeError, match="to got unknown arguments: x"):
        model.to(x=1)


def test_compile_and_the_backend(model):
    assert model.compile() is None
    assert model.get_backend() == model.backend == "torch"
    assert not model.training


def test_the_config_is_read(model):
    assert model.config.hidden_size == TINY.hidden_size
    assert model.config.model_type == "bert"


def test_an_evaluator_is_called_with_the_model_and_its_folder(model, tmp_path):
    calls = []
    model.evaluate(lambda *args: calls.append(args), tmp_path / "a" / "b")
    assert calls == [(model, tmp_path / "a" / "b")]
    assert (tmp_path / "a" / "b").is_dir()
    assert model.evaluate(lambda given, path: (given is model, path)) == (True, None)


def test_positional_arguments_of_queries_are_encodes(model):
    expected = model.encode("ab", None, "x ", 8, False, "sentence_embedding", "binary")
    for encode in (model.encode_query, model.encode_document):
        found = encode("ab", None, "x ", 8, False, "sentence_embedding", "binary")
        assert found.tobytes() == expected.tobytes()
    assert_same_bits(model.encode_query(sentences=TEXTS), model.encode(TEXTS))


def test_texts_are_the_only_modality(model):
    assert model.modalities == ["text"]
    assert model.supports("text")
    assert not model.supports("image")
    assert model.get_model_kwargs() == []


def test_parameters_are_the_encoders(model):
    assert sum(p.size for p in model.parameters()) == sum(
        p.size for _, p in model.encoder.named_parameters()
    )


def test_modules_have_their_numbers(tmp_path):
    kinds = ("Transformer", "Pooling", "Normalize")
    model = SentenceTransformer(write_model(tmp_path / "m", kinds=kinds, types=NEW_TYPES))
    assert len(model) == 3
    assert [module.name for module in model] == list(kinds)
    assert model[-1].name == "Normalize"
    assert bool(model)
    with pytest.raises(IndexError):
        model[3]
    with pytest.raises(TypeError, match="by number"):
        model[:2]


@pytest.mark.parametrize(
    ("index", "name"),
    [(0, "do_lower_case"), (0, "auto_model"), (0, "name"), (1, "pooling_mode"), (2, "dim")],
)
def test_attributes_without_effect_cannot_be_set(tmp_path, index, name):
    model = SentenceTransformer(
        write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Normalize"))
    )
    with pytest.raises(AttributeError, match=f"{name} of the module"):
        setattr(model[index], name, "cls")


def test_the_first_module_has_the_tokenizer_and_the_encoder(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"))
    first = model[0]
    assert first.tokenizer is model.tokenizer
    assert first.auto_model is model.encoder
    assert first.get_word_embedding_dimension() == TINY.hidden_size
    first.max_seq_length = 7
    assert model.max_seq_length == first.max_seq_length == 7
    model[1].include_prompt = False
    assert not model.pipeline.include_prompt


def test_a_cross_encoder_is_one_module(tmp_path):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m"))
    assert [module.name for module in model] == ["Transformer"]
    with pytest.raises(AttributeError):
        model.num_labels = 3
    assert model.eval() is model
    assert model.is_singular_input(("a", "b"))
    assert not model.is_singular_input([("a", "b")])


def test_a_single_text_is_distinguished_from_a_list(model):
    assert model.is_singular_input("a")
    assert not model.is_singular_input(["a"])


def test_a_precision_of_none_means_float32(model):
    assert_same_bits(model.encode(TEXTS, precision=None), model.encode(TEXTS))


def test_the_older_name_of_truncation(model):
    with model.truncate_sentence_embeddings(3):
        assert model.encode("a").shape == (3,)
    assert model.encode("a").shape == (TINY.hidden_size,)


def test_the_model_card_keeps_what_evaluators_measure(model, tmp_path):
    model.model_card_data.set_evaluation_metrics("evaluator", {"f1": 0.5}, 0, step=0)
    assert model.model_card_data.eval_results_dict == {"evaluator": {"f1": 0.5}}
    given = object()
    folder = write_model(tmp_path / "m")
    assert SentenceTransformer(folder, model_card_data=given).model_card_data is given


# Columns and tables


class Table:
    """The common part of tables of pandas, polars, pyarrow and datasets."""

    def __init__(self, name):
        setattr(self, name, ["id", "text"])

    def __len__(self):
        return 2

    def __iter__(self):
        return iter(["id", "text"])

    def __contains__(self, item):
        return item in ("id", "text")


@pytest.mark.parametrize("name", ["columns", "column_names"])
def test_a_table_is_refused_with_its_columns(model, name):
    with pytest.raises(
        TypeError, match=r"got a table \(Table\); pass one of its columns: 'id', 'text'"
    ):
        model.encode(Table(name))


class ArrowArray:
    """Like pyarrow's arrays: items are not str, and the class is not a Collection."""

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def to_pylist(self):
        return list(self.texts)


def test_an_arrow_array_is_a_list(model):
    assert_same_bits(model.encode(ArrowArray(TEXTS)), model.encode(TEXTS))
    with pytest.raises(TypeError, match=r"texts\[1\] must be a str, got NoneType"):
        model.encode(ArrowArray(["a", None]))


def test_the_tables_of_pandas_and_pyarrow(model):
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame, array = pandas.DataFrame({"text": TEXTS}), pyarrow.array(TEXTS)
    for table in (frame, pyarrow.table({"text": TEXTS})):
        with pytest.raises(TypeError, match="pass one of its columns: 'text'"):
            model.encode(table)
    for column in (frame["text"], array, pyarrow.chunked_array([array])):
        np.testing.assert_array_equal(model.encode(column), model.encode(TEXTS))
