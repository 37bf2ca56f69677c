"""quantize_model: the folder gives the bits of quantizing when loading, and damaged folders are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simdformer import SentenceTransformer, _core, quantize_model
from simdformer.cli import main
from simdformer.folder.resolve import resolve_model
from simdformer.int8 import calibration
from simdformer.int8.losses import cosines_of
from tests.support import assert_same_bits
from tests.support.model_fixtures import (
    OLD_TYPES,
    TINY,
    config_json,
    tokenizer_json,
    write_dense,
    write_files,
    write_model,
)
from tests.support.tiny_bert import Config, random_weights
from tests.support.torch_files import write_torch

TEXTS = ["abc", "a b c d", "hello world", "z" * 30, ""]
WEIGHTS, DECLARATION = "model-int8.safetensors", "quantization_config.json"
QKV = "layers.0.self_attn.in_proj_weight"
WORDS = "embeddings.word_embeddings.weight"

WIDE = Config(hidden_size=160, num_heads=4, intermediate_size=320)
WIDE_FILES = {
    "config.json": config_json(WIDE),
    "1_Pooling/config.json": {"word_embedding_dimension": 160, "pooling_mode_mean_tokens": True},
}


@pytest.fixture
def source(tmp_path):
    weights = random_weights(WIDE)
    # Outliers in the first layer's query, key and value.
    weights["embeddings.LayerNorm.weight"][[3, 40, 77]] = 25
    return write_model(tmp_path / "source", weights=weights, files=WIDE_FILES)


@pytest.fixture
def saved(source, tmp_path):
    quantize_model(source, tmp_path / "saved")
    return tmp_path / "saved"


def encode(folder, **options):
    return SentenceTransformer(folder, **options).encode(TEXTS)


def test_a_text_without_tokens_does_not_keep_parts_in_float32(tmp_path):
    files = {
        "tokenizer.json": tokenizer_json() | {"post_processor": None},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
    }
    source = write_model(tmp_path / "source", files=files)
    report = quantize_model(
        source, tmp_path / "saved", texts=["abc", "", "a b c d"], min_cosine=0.9
    )
    assert set(SentenceTransformer(tmp_path / "saved").part_types.values()) == {"int8"}
    assert 0.9 <= report.min_cosine < 1


def test_two_rows_of_zeros_have_the_cosine_1():
    a, b = np.float32([[0, 0], [0, 0], [3, 4]]), np.float32([[0, 0], [1, 0], [6, 8]])
    np.testing.assert_array_equal(cosines_of(a, b), [1, 0, 1])


# Saved files


def test_a_saved_model_has_the_bits_of_quantizing_at_load(source, saved):
    assert_same_bits(encode(saved), encode(source, compute_type="int8"))


def test_a_saved_minilm_has_the_bits_of_quantizing_at_load_in_a_quarter_of_the_bytes(tmp_path):
    try:
        source = resolve_model("all-MiniLM-L6-v2", local_files_only=True)
    except FileNotFoundError:
        pytest.skip("all-MiniLM-L6-v2 is not installed")
    report = quantize_model(source, tmp_path / "saved")
    assert 3.5 < report.float32_bytes / report.int8_bytes < 4
    assert report.min_cosine >= 0.9995
    assert_same_bits(encode(tmp_path / "saved"), encode(source, compute_type="int8"))


def test_a_saved_model_loads_without_the_float32_weights(source, saved):
    before = encode(saved)
    (source / "model.safetensors").unlink()
    assert_same_bits(encode(saved), before)


def test_a_saved_model_is_int8_by_itself(saved):
    model = SentenceTransformer(saved)
    assert model.compute_type == "int8"
    assert set(model.part_types.values()) == {"int8"}


def test_a_saved_model_keeps_dense_modules_and_plain_files(tmp_path):
    dense = write_model(tmp_path / "dense", kinds=("Transformer", "Pooling", "Dense", "Normalize"))
    write_dense(dense / "2_Dense", TINY.hidden_size, 7)
    (dense / "README.md").write_text("card")
    (dense / "LICENSE").write_text("license")
    quantize_model(dense, tmp_path / "saved")
    assert_same_bits(encode(tmp_path / "saved"), encode(dense, compute_type="int8"))
    assert (tmp_path / "saved" / "README.md").read_text() == "card"
    assert (tmp_path / "saved" / "LICENSE").read_text() == "license"
    assert not (tmp_path / "saved" / "model.safetensors").exists()


def test_a_saved_model_keeps_a_dense_module_in_pytorchs_format(tmp_path):
    dense = write_model(tmp_path / "dense", kinds=("Transformer", "Pooling", "Dense"))
    weight, bias = write_dense(dense / "2_Dense", TINY.hidden_size, 7)
    before = encode(dense, compute_type="int8")
    (dense / "2_Dense" / "model.safetensors").unlink()
    (dense / "model.safetensors").unlink()
    tensors = {"linear.weight": weight, "linear.bias": bias}
    write_torch(dense / "2_Dense" / "pytorch_model.bin", tensors)
    write_torch(dense / "pytorch_model.bin", random_weights())
    quantize_model(dense, tmp_path / "saved")
    assert_same_bits(encode(tmp_path / "saved"), before)
    kept = [path.relative_to(tmp_path / "saved") for path in (tmp_path / "saved").rglob("*.bin")]
    assert list(map(str, kept)) == ["2_Dense/pytorch_model.bin"]


def test_a_task_model_is_saved_without_its_prefix_and_head(tmp_path):
    weights = {f"bert.{name}": tensor for name, tensor in random_weights().items()}
    weights["cls.predictions.bias"] = np.zeros(61, np.float32)
    task = write_model(tmp_path / "task", weights=weights)
    quantize_model(task, tmp_path / "saved")
    assert_same_bits(encode(tmp_path / "saved"), encode(task, compute_type="int8"))
    names = load_file(tmp_path / "saved" / WEIGHTS)
    assert {name.split(".")[0] for name in names} == {"embeddings", "layers"}


def test_rows_that_are_zero_constant_or_subnormal_are_saved_and_loaded(tmp_path):
    weights = random_weights(WIDE)
    matrix = weights["encoder.layer.0.attention.self.query.weight"]
    matrix[0] = 0
    matrix[1] = 0.25
    matrix[2] = 1e-40
    weights["embeddings.word_embeddings.weight"][7] = 0
    source = write_model(tmp_path / "source", weights=weights, files=WIDE_FILES)
    quantize_model(source, tmp_path / "saved")
    assert_same_bits(encode(tmp_path / "saved"), encode(source, compute_type="int8"))


def test_the_declaration_names_scheme_version_and_every_part(saved):
    declared = json.loads((saved / DECLARATION).read_text())
    assert (declared["scheme"], declared["version"]) == ("simdformer-int8", 3)
    assert declared["rotated"] == _core.s8_rotates()
    assert declared["group_size"] == _core.s8_group()
    assert len(declared["parts"]) == 1 + 4 * WIDE.num_layers
    assert all(part["compute_type"] == "int8" for part in declared["parts"].values())
    assert 0.999 <= declared["min_cosine"] < 1


def test_a_folder_of_version_2_is_not_rotated(source, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "s8_rotates", lambda: False)
    quantize_model(source, tmp_path / "saved")
    expected = encode(tmp_path / "saved")
    path = tmp_path / "saved" / DECLARATION
    declared = json.loads(path.read_text())
    assert declared.pop("rotated") is False
    path.write_text(json.dumps(declared | {"version": 2}))
    assert_same_bits(encode(tmp_path / "saved"), expected)


@pytest.mark.parametrize("rotated", [False, True])
def test_a_folder_of_either_form_runs_at_every_level(
    source, tmp_path, monkeypatch, active_isa, rotated
):
    monkeypatch.setattr(calibration, "s8_rotates", lambda: rotated)
    quantize_model(source, tmp_path / "saved")
    found, exact = encode(tmp_path / "saved"), encode(source)
    cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0.999 <= cosines.min() < 1, active_isa


# Parts that stay in float32


def test_min_cosine_1_keeps_every_part(source, tmp_path):
    report = quantize_model(source, tmp_path / "kept", min_cosine=1)
    assert {part.compute_type for part in report.parts} == {"float32"}
    assert_same_bits(encode(tmp_path / "kept"), encode(source))


def test_the_worst_parts_are_kept_until_the_fidelity_holds(source, tmp_path):
    plain = quantize_model(source, tmp_path / "plain", min_cosine=0)
    least = 1 - (1 - plain.min_cosine) / 3
    report = quantize_model(source, tmp_path / "kept", min_cosine=least)
    kept = [part for part in report.parts if part.compute_type == "float32"]
    others = [part for part in report.parts if part.compute_type == "int8"]
    assert report.min_cosine >= least > plain.min_cosine
    assert kept
    assert others
    assert min(p.cosine_loss for p in kept) >= max(p.cosine_loss for p in others)
    assert SentenceTransformer(tmp_path / "kept").part_types == {
        part.name: part.compute_type for part in report.parts
    }


def planted(num_channels):
    """Weights with this number of huge channels in the residual stream. The parts that read them, including
    embeddings, give them small weights."""
    weights = random_weights(WIDE)
    channels = np.arange(num_channels) * 5
    readers = (".query.weight", ".key.weight", ".value.weight", "intermediate.dense.weight")
    for name, tensor in weights.items():
        if name.endswith("LayerNorm.weight"):
            tensor[channels] *= 60
        elif name.endswith(readers):
            tensor[:, channels] /= 60
    last = f"encoder.layer.{WIDE.num_layers - 1}.output"
    weights[f"{last}.LayerNorm.weight"][channels] /= 3600
    weights[f"{last}.LayerNorm.bias"] *= 0.1
    weights[f"{last}.dense.weight"] *= 20
    return weights


def test_more_outlier_channels_than_columns_for_them_fall_back_to_float32(tmp_path, monkeypatch):
    source = write_model(tmp_path / "source", weights=planted(24), files=WIDE_FILES)
    exact = encode(source)

    def smallest_cosine():
        found = encode(source, compute_type="int8")
        sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
        return ((found * exact).sum(1) / sizes).min()

    model = SentenceTransformer(source, compute_type="int8")
    assert "float32" in model.part_types.values()
    assert smallest_cosine() >= calibration.MIN_COSINE
    quantize_model(source, tmp_path / "saved")
    assert_same_bits(encode(tmp_path / "saved"), model.encode(TEXTS))
    defaults = calibration.quantize_encoder.__kwdefaults__ | {"min_cosine": 0.0}
    monkeypatch.setattr(calibration.quantize_encoder, "__kwdefaults__", defaults)
    assert smallest_cosine() < calibration.MIN_COSINE


def test_texts_measure_the_loss_and_find_the_outliers(source, tmp_path):
    report = quantize_model(source, tmp_path / "saved", texts=["abc", "q r s t", "zz"])
    assert report.texts == 3
    outliers = load_file(tmp_path / "saved" / WEIGHTS)[f"{QKV}_outliers"]
    quantize_model(source, tmp_path / "vocabulary")
    assert len(outliers) == len(load_file(tmp_path / "vocabulary" / WEIGHTS)[f"{QKV}_outliers"])
    vectors = encode(source)
    cosines = (encode(tmp_path / "saved") * vectors).sum(1)
    sizes = np.linalg.norm(vectors, axis=1) * np.linalg.norm(encode(tmp_path / "saved"), axis=1)
    assert (cosines / sizes >= 0.998).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"texts": []}, ValueError, "texts must have at least one text"),
        ({"texts": ["a", 3]}, TypeError, r"texts\[1\] must be a str, got int"),
        ({"min_cosine": 1.5}, ValueError, r"min_cosine must be in \[0, 1\], got 1.5"),
    ],
)
def test_bad_arguments_are_named(source, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        quantize_model(source, tmp_path / "saved", **options)


@pytest.mark.usefixtures("active_isa")
def test_auto_is_int8_where_that_is_faster_and_is_reported(source, saved, isa):
    chosen = "float32" if isa in ("generic", "avx512") else "int8"
    model = SentenceTransformer(source, compute_type="auto")
    assert model.compute_type == chosen
    assert_same_bits(model.encode(TEXTS), encode(source, compute_type=chosen))
    assert SentenceTransformer(saved, compute_type="auto").compute_type == "int8"


# What is refused


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16"])
def test_other_compute_types_of_a_saved_model_are_refused(saved, compute_type):
    with pytest.raises(
        ValueError, match=rf"compute_type='{compute_type}', but .*saved is quantized"
    ):
        SentenceTransformer(saved, compute_type=compute_type)


def test_a_saved_model_is_not_quantized_again(saved, tmp_path):
    with pytest.raises(ValueError, match="is quantized already"):
        quantize_model(saved, tmp_path / "again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"version": 4},
            "version 4 is newer than this release of simdformer, which reads versions up to 3",
        ),
        ({"rotated": "yes"}, "rotated must be true or false, got 'yes'"),
        ({"version": 0}, "version must be an int above 0, got 0"),
        ({"version": "1"}, "version must be an int above 0, got '1'"),
        ({"scheme": "int3"}, "unknown scheme 'int3'; known: 'simdformer-int8'"),
        ({"group_size": 7}, "group_size is 7, this release of simdformer computes in groups of"),
        ({"parts": []}, "parts must map names to objects"),
        ({"parts": {}}, f"'parts' has no entry for '{WORDS}'"),
        (
            {"parts": {"layers.9.linear1.weight": {"compute_type": "int8"}}},
            "'parts' has 'layers.9.linear1.weight', which the model does not have",
        ),
        ({"parts": {QKV: {"compute_type": "int4"}}}, f"unknown compute_type 'int4' of '{QKV}'"),
    ],
)
def test_an_invalid_declaration_is_refused_by_file_and_field(saved, change, message):
    path = saved / DECLARATION
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message) as error:
        SentenceTransformer(saved)
    assert str(path) in str(error.value)


def test_a_code_in_an_outlier_column_is_refused_by_file_and_name(tmp_path):
    weights = random_weights(WIDE)
    weights["embeddings.LayerNorm.weight"][150] = 25  # in columns that are never rotated
    source = write_model(tmp_path / "source", weights=weights, files=WIDE_FILES)
    quantize_model(source, tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / WEIGHTS)
    assert 150 in tensors[f"{QKV}_outliers"]
    tensors[QKV][3, 150] = 1
    save_file(tensors, tmp_path / "saved" / WEIGHTS)
    with pytest.raises(ValueError, match=rf"'{QKV}' in .*{WEIGHTS}: codes of outlier columns must"):
        SentenceTransformer(tmp_path / "saved")


def set_first(value):
    def change(tensor):
        tensor.reshape(-1)[0] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        ("", None, "is missing from the checkpoint"),
        ("_scale", None, "is missing from the checkpoint"),
        ("_outliers", None, "is missing from the checkpoint"),
        ("_outlier_weight", None, "is missing from the checkpoint"),
        ("", lambda t: t[1:], "has shape"),
        ("_scale", lambda t: t[:, 1:], "has shape"),
        ("_outlier_weight", lambda t: t[:, 1:], "has shape"),
        ("", lambda t: t.astype(np.float32), "has dtype F32, expected I8"),
        ("_outliers", lambda t: t.astype(np.float32), "has dtype F32, expected I32"),
        ("_outliers", lambda t: t[::-1], "columns must ascend"),
        ("_outliers", set_first(-1), "columns must ascend"),
        ("_scale", set_first(0), "scales must be above 0"),
        ("_scale", set_first(-1), "scales must be above 0"),
        ("_scale", set_first(np.nan), "NaN or infinite"),
        ("_scale", set_first(np.inf), "NaN or infinite"),
        ("_outlier_weight", set_first(np.inf), "NaN or infinite"),
    ],
)
def test_a_damaged_tensor_is_refused_by_file_and_name(saved, suffix, change, message):
    tensors = load_file(saved / WEIGHTS)
    tensor = tensors.pop(f"{QKV}{suffix}")
    if change:
        tensors[f"{QKV}{suffix}"] = np.ascontiguousarray(change(tensor))
    save_file(tensors, saved / WEIGHTS)
    with pytest.raises(ValueError, match=message) as error:
        SentenceTransformer(saved)
    assert f"'{QKV}{suffix}'" in str(error.value)
    assert WEIGHTS in str(error.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layers.1.norm1.weight", None, "is missing from the checkpoint"),
        ("embeddings.position_embeddings.weight", lambda t: t[1:], "has shape"),
        ("layers.0.self_attn.in_proj_bias", lambda t: t * np.float32(np.nan), "NaN or infinite"),
        ("layers.2.norm1.weight", lambda t: t, "has 1 tensors that do not belong to the model"),
    ],
)
def test_a_damaged_float32_tensor_is_refused_by_name(saved, name, change, message):
    tensors = load_file(saved / WEIGHTS)
    tensor = tensors.pop(name, np.zeros(160, np.float32))
    if change:
        tensors[name] = np.ascontiguousarray(change(tensor))
    save_file(tensors, saved / WEIGHTS)
    with pytest.raises(ValueError, match=message) as error:
        SentenceTransformer(saved)
    assert f"'{name}'" in str(error.value)


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_truncated_file_is_refused_by_name(saved, size):
    path = saved / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"{WEIGHTS}: not a valid safetensors file"):
        SentenceTransformer(saved)


def test_missing_weights_are_named(saved):
    (saved / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        SentenceTransformer(saved)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, bad):
    weights = random_weights()
    weights["encoder.layer.0.attention.self.key.weight"][1, 2] = bad
    source = write_model(tmp_path / "source", weights=weights)
    with pytest.raises(
        ValueError, match=r"attention\.self\.key\.weight.*holds 1 values that are NaN"
    ):
        quantize_model(source, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# The folder appears whole or not at all


def test_an_existing_folder_is_refused_before_any_work(source, saved):
    with pytest.raises(FileExistsError, match=r"saved exists; overwrite=True replaces"):
        quantize_model(source, saved)


def test_only_a_quantized_model_is_overwritten(source, saved, tmp_path):
    before = encode(saved)
    (saved / "stray").write_text("x")
    quantize_model(source, saved, overwrite=True)
    assert_same_bits(encode(saved), before)
    assert not (saved / "stray").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    with pytest.raises(FileExistsError, match="is not a quantized model"):
        quantize_model(source, other, overwrite=True)
    assert (other / "precious").exists()


def test_a_folder_of_quantized_models_is_not_overwritten(source, saved, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(saved, models / "a-int8")
    with pytest.raises(FileExistsError, match="is not a quantized model"):
        quantize_model(source, models, overwrite=True)
    assert (models / "a-int8").exists()


def test_a_quantized_model_whose_transformer_is_in_a_folder_is_overwritten(tmp_path, source):
    target = tmp_path / "target"
    modules = [{"idx": 0, "name": "0", "path": "inner", "type": OLD_TYPES["Transformer"]}]
    write_files(target, {"modules.json": modules, f"inner/{DECLARATION}": {}})
    assert quantize_model(source, target, overwrite=True).folder == target


def test_a_target_that_contains_the_model_is_refused(source, saved, tmp_path):
    target = tmp_path / "target"
    shutil.copytree(saved, target)
    inside = shutil.copytree(source, target / "original")
    with pytest.raises(ValueError, match="is or contains the model itself"):
        quantize_model(inside, target, overwrite=True)
    assert inside.exists()


def test_the_model_itself_is_never_the_target(source):
    with pytest.raises(ValueError, match="is or contains the model itself"):
        quantize_model(source, source, overwrite=True)


def test_a_missing_parent_folder_is_named(source, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"cannot create saved: there is no folder .*nowhere"
    ):
        quantize_model(source, tmp_path / "nowhere" / "saved")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing(source, tmp_path, monkeypatch, interruption):
    def interrupted(*_):
        raise interruption

    monkeypatch.setattr("simdformer.int8.saved.save", interrupted)
    with pytest.raises(interruption):
        quantize_model(source, tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# The command


def test_the_command_writes_the_folder_and_prints_each_part(source, tmp_path, capsys):
    assert main(["quantize", str(source), "-o", str(tmp_path / "saved")]) == 0
    printed = capsys.readouterr().out
    assert f"{QKV} " in printed
    assert "cosine to float32 over ids of the vocabulary: mean 0.999" in printed
    assert SentenceTransformer(tmp_path / "saved").compute_type == "int8"


def test_the_command_takes_texts_and_a_fidelity(source, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("abc\nde f\n")
    arguments = ["quantize", str(source), "-o", str(tmp_path / "saved")]
    texts = ["--texts", str(tmp_path / "texts.txt"), "--min-cosine", "1"]
    assert main([*arguments, *texts]) == 0
    printed = capsys.readouterr().out
    assert "over 2 texts: mean 1.0000" in printed
    assert " int8 " not in printed.replace("1 - cosine", "")


def test_the_command_needs_force_for_an_existing_folder(source, saved, capsys):
    arguments = ["quantize", str(source), "-o", str(saved)]
    assert main(arguments) == 1
    assert "exists; --force replaces a quantized model" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


def test_the_command_stopped_by_a_signal_leaves_nothing(tmp_path):
    big = Config(hidden_size=160, num_heads=4, intermediate_size=640, num_layers=12)
    files = {**WIDE_FILES, "config.json": config_json(big)}
    source = write_model(tmp_path / "source", weights=random_weights(big), files=files)
    command = [sys.executable, "-m", "simdformer.cli", "quantize", source, "-o", tmp_path / "saved"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(30) in (143, -15)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
