"""Copies of a model by deepcopy, pickle and folders give the same bits."""

from __future__ import annotations

import copy
import errno
import json
import pickle
import shutil

import numpy as np
import pytest

from simdformer import CrossEncoder, SentenceTransformer
from simdformer.folder.activation import TorchActivation
from tests.support import assert_same_bits, output_of
from tests.support.model_fixtures import (
    NEW_TYPES,
    TEXTS,
    config_json,
    write_cross_encoder,
    write_model,
)

PAIRS = [("abc", "de"), ("f", "ghi")]

# Some tests set a low limit.
pytestmark = pytest.mark.filterwarnings("ignore:texts longer than")


@pytest.fixture
def own(tmp_path):
    """A model that the test may change."""
    return SentenceTransformer(write_model(tmp_path / "own"))


def saved_again(model):
    """The model, saved to a folder and loaded again."""
    target = model.folder.parent / "saved"
    model.save_pretrained(target)
    return type(model)(target)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "folder": saved_again,
}


@pytest.fixture(params=COPIES)
def again(request):
    return COPIES[request.param]


def test_a_copy_gives_the_same_bits(own, again):
    assert_same_bits(again(own).encode(TEXTS), own.encode(TEXTS))


def test_a_copy_has_the_changed_settings(own, again):
    own.prompts = {"query": "ab ", "document": ""}
    own.default_prompt_name = "query"
    own.truncate_dim = 3
    own.similarity_fn_name = "dot"
    own.max_seq_length = 9
    own.set_pooling_include_prompt(False)
    other = again(own)
    for name in ("prompts", "default_prompt_name", "truncate_dim", "similarity_fn_name"):
        assert getattr(other, name) == getattr(own, name)
    assert other.max_seq_length == 9
    assert not other.pipeline.include_prompt
    assert_same_bits(other.encode(TEXTS), own.encode(TEXTS))


def test_a_copy_has_the_overridden_fields(tmp_path, again):
    model = SentenceTransformer(
        write_model(tmp_path / "m"),
        config_kwargs={"layer_norm_eps": 0.5},
        processor_kwargs={"truncation_side": "left", "model_max_length": 5},
    )
    assert_same_bits(again(model).encode(TEXTS), model.encode(TEXTS))


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", ["deepcopy", "pickle"])
def test_a_copy_has_the_compute_type(tmp_path, compute_type, name):
    model = SentenceTransformer(write_model(tmp_path / "m"), compute_type=compute_type)
    other = COPIES[name](model)
    assert other.compute_type == compute_type
    assert other.part_types == model.part_types
    assert_same_bits(other.encode(TEXTS), model.encode(TEXTS))


def test_a_setting_of_a_copy_does_not_change_the_model(own):
    other = copy.deepcopy(own)
    before = own.encode(TEXTS)
    other.prompts["query"] = "x"
    other.max_seq_length = 4
    other.encoder.layers[0].linear1.weight = np.zeros_like(other.encoder.layers[0].linear1.weight)
    assert own.prompts["query"] == ""
    assert own.max_seq_length == 100
    assert_same_bits(own.encode(TEXTS), before)
    assert (other.encode(TEXTS) != before).any()


def test_a_shallow_copy_shares_the_encoder(own):
    other = copy.copy(own)
    other.truncate_dim = 3
    assert own.truncate_dim is None
    assert other.encoder is own.encoder
    assert other.pipeline is own.pipeline


def test_a_changed_encoder_can_be_copied_in_memory_only(own, tmp_path):
    own.encoder.layers[0].linear1.weight = np.zeros_like(own.encoder.layers[0].linear1.weight)
    assert_same_bits(copy.deepcopy(own).encode(TEXTS), own.encode(TEXTS))
    for copying in (pickle.dumps, lambda model: model.save_pretrained(tmp_path / "x")):
        with pytest.raises(pickle.PicklingError, match="the encoder was changed after loading"):
            copying(own)
    assert not (tmp_path / "x").exists()


def test_a_pickle_holds_no_weights_and_no_token(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"), token="hf_secret", num_threads=1)
    content = pickle.dumps(model)
    assert len(content) < 5000
    assert b"hf_secret" not in content


def test_a_pickle_of_a_relative_path_is_read_in_any_directory(tmp_path, monkeypatch):
    write_model(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(SentenceTransformer("m"))
    monkeypatch.chdir("/")
    assert pickle.loads(content).name_or_path == "m"


def test_another_process_reads_the_pickle(own, tmp_path):
    (tmp_path / "pickle").write_bytes(pickle.dumps(own))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).encode('abc').tobytes().hex())"
    assert output_of(code, tmp_path / "pickle") == own.encode("abc").tobytes().hex()


def test_a_copy_of_a_subclass_has_the_same_class(tmp_path):
    model = Sub(write_model(tmp_path / "m"))
    model.note = [1]
    for clone in (copy.deepcopy, COPIES["pickle"]):
        other = clone(model)
        assert type(other) is Sub
        assert other.note == [1]
        assert other.note is not model.note


class Sub(SentenceTransformer):
    """A class at the top of the module, as pickle requires."""


# Cross-encoders


def test_a_copy_of_a_cross_encoder_gives_the_same_bits(tmp_path, again):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m"))
    model.prompts, model.default_prompt_name = {"web": "x "}, "web"
    model.activation_fn = TorchActivation("Tanh")
    model.max_length = 7
    other = again(model)
    assert_same_bits(other.predict(PAIRS), model.predict(PAIRS))
    assert other.max_length == 7


def test_the_callers_own_activation_cannot_be_saved(tmp_path):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m"), activation_fn=abs)
    with pytest.raises(
        TypeError, match=r"only activations of torch\.nn can be saved, got <built-in"
    ):
        model.save_pretrained(tmp_path / "x")
    assert copy.deepcopy(model).activation_fn is abs


# Folders


def test_a_plain_folder_gets_its_modules(tmp_path):
    folder = write_model(tmp_path / "m")
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (folder / name).unlink()
    model = SentenceTransformer(folder, prompts={"query": "ab "})
    again = saved_again(model)
    assert again.prompts["query"] == "ab "
    assert_same_bits(again.encode(TEXTS), model.encode(TEXTS))


def test_every_module_is_copied(tmp_path):
    kinds = ("Transformer", "Pooling", "Normalize")
    model = SentenceTransformer(write_model(tmp_path / "m", kinds=kinds, types=NEW_TYPES))
    assert_same_bits(saved_again(model).encode(TEXTS), model.encode(TEXTS))


def test_files_that_no_model_reads_are_not_copied(tmp_path):
    files = {"README.md": "x", "onnx/config.json": {}, "notes.txt": "x"}
    model = SentenceTransformer(write_model(tmp_path / "m", files=files))
    model.save_pretrained(tmp_path / "with")
    model.save_pretrained(tmp_path / "without", create_model_card=False)
    assert (tmp_path / "with/README.md").exists()
    for name in ("onnx", "notes.txt"):
        assert not (tmp_path / "with" / name).exists()
    assert not (tmp_path / "without/README.md").exists()


def test_saving_beside_other_files_leaves_them_there(own, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/other").write_text("x")
    own.save(tmp_path / "x")
    assert (tmp_path / "x/other").read_text() == "x"
    assert not list((tmp_path / "x").rglob("*.tmp"))


def test_a_full_disk_leaves_no_temporary_file(own, tmp_path, monkeypatch):
    def copyfile(_, target):
        target.write_bytes(b"part")
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(OSError, match="no space left"):
        own.save(tmp_path / "x")
    assert not [path for path in (tmp_path / "x").rglob("*") if path.is_file()]


def test_saving_onto_itself_keeps_the_weights(own):
    own.truncate_dim = 5
    own.save_pretrained(own.folder)
    assert SentenceTransformer(own.folder).encode("a").shape == (5,)


def test_saving_to_none_writes_nothing_and_pytorchs_format_is_refused(own, tmp_path):
    own.save(None)
    with pytest.raises(ValueError, match="safe_serialization must be True"):
        own.save(tmp_path / "x", safe_serialization=False)


def test_config_json_stays_as_it_was(own):
    saved_again(own)
    assert json.loads((own.folder.parent / "saved/config.json").read_text()) == config_json()
