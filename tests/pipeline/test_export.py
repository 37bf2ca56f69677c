"""`export`: what it refuses, and the file that it writes. tests/c_api opens such files with the library."""

from __future__ import annotations

import pytest

from simdformer import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from simdformer.cli import main
from tests.folder.test_module_lists import model_of
from tests.pipeline.test_multi_vector_encoder import write_colbert
from tests.pipeline.test_sparse_encoder import write_sparse
from tests.support.model_fixtures import write_cross_encoder, write_files, write_model


def test_a_file_begins_with_its_kind_and_version(model, tmp_path):
    model.export(tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    assert data[:16] == b"SIMDFORM" + (2).to_bytes(8, "little")
    assert len(data) % 8 == 0


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    model.export(tmp_path / "a")
    model.export(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_changed_weight_is_in_the_file(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"))
    model.export(tmp_path / "a")
    model.encoder.embeddings.norm.weight = model.encoder.embeddings.norm.weight * 2
    model.export(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_the_command_line_writes_the_same_file(model, tmp_path):
    model.export(tmp_path / "a")
    assert main(["export", str(model.folder), "-o", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("write", [write_cross_encoder, write_sparse])
def test_the_command_line_recognizes_the_kind_of_a_folder(tmp_path, write):
    folder = write(tmp_path / "m")
    kind = CrossEncoder if write is write_cross_encoder else SparseEncoder
    kind(folder).export(tmp_path / "a")
    assert main(["export", str(folder), "-o", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_command_line_reports_what_cannot_be_exported(tmp_path, capsys):
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "file")]) == 1
    assert "config.json" in capsys.readouterr().err


def test_a_file_that_cannot_be_exported_leaves_the_old_one(tmp_path):
    model = SparseEncoder(write_sparse(tmp_path / "m"), max_active_dims=3)
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match="max_active_dims=3 cannot be exported"):
        model.export(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "m"]


def test_the_error_names_a_step_outside_the_native_call(tmp_path):
    folder = tmp_path / "m"
    model_of(folder, "Pooling", "Dropout")
    write_files(folder, {"2_Dropout/config.json": {"dropout": 0.5}})
    with pytest.raises(ValueError, match=r"Dropout.*runs outside the native call"):
        SentenceTransformer(folder).export(tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_the_error_names_an_activation_without_a_kernel(tmp_path):
    folder = write_cross_encoder(tmp_path / "m")
    model = CrossEncoder(folder, activation_fn="torch.nn.modules.activation.Softplus")
    with pytest.raises(ValueError, match=r"activation_fn .*Softplus.* has no kernel"):
        model.export(tmp_path / "file")


def test_the_error_names_a_python_activation(tmp_path):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m"), activation_fn=abs)
    with pytest.raises(ValueError, match=r"activation_fn <built-in function abs> has no kernel"):
        model.export(tmp_path / "file")


def test_a_vector_per_token_is_refused(tmp_path):
    model = MultiVectorEncoder(write_colbert(tmp_path / "m"))
    with pytest.raises(ValueError, match="a MultiVectorEncoder gives a vector per token"):
        model.export(tmp_path / "file")
