"""libsimdformer opens files of `export` and returns the same bits as Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simdformer import CrossEncoder, SentenceTransformer, SparseEncoder, _core
from tests.pipeline.test_sparse_encoder import write_sparse
from tests.support import ROOT, assert_same_bits
from tests.support.c_library import FOLDER, Library, LibraryError, Model, with_checksum
from tests.support.model_fixtures import PAIRS, write_cross_encoder, write_dense, write_model
from tests.support.tiny_experts import NOMIC_EXPERTS
from tests.support.tiny_models import ARCHITECTURES, BY_NAME, TEXTS, TINY

pytestmark = [
    pytest.mark.skipif(
        FOLDER is None, reason="SIMDFORMER_LIBRARY_DIR is not set: see make library"
    ),
    pytest.mark.filterwarnings("ignore:texts longer than max_seq_length"),
]
EXAMPLES = Path(os.environ.get("SIMDFORMER_EXAMPLES_DIR", "."))
each = pytest.mark.parametrize(
    "architecture",
    [*ARCHITECTURES, NOMIC_EXPERTS],
    ids=[*(a.model_type for a in ARCHITECTURES), "nomic_bert with experts"],
)


@pytest.fixture(scope="module")
def library():
    return Library()


@pytest.fixture(scope="module")
def file(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("exported") / "tiny.simdformer"
    model.export(path)
    return path


def token_ids(model, texts):
    return model.pipeline.tokenizer(texts).input_ids


def rows_of(library, model, path, texts, **options):
    """The library's results for texts, which are tokenized here."""
    tokens = model.pipeline.tokenizer(texts)
    model.export(path)
    with Model(library, path) as opened:
        return opened.encode(tokens.input_ids, tokens.type_ids, **options)


# The same bits as Python


@each
@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_vectors_have_the_bits_of_encode(library, tmp_path, architecture, compute_type):
    folder = architecture.write(tmp_path / "m")
    model = SentenceTransformer(folder, compute_type=compute_type)
    rows = rows_of(library, model, tmp_path / "file", TEXTS)
    assert_same_bits(rows, model.encode(TEXTS))


@pytest.mark.parametrize("labels", [1, 3])
def test_scores_have_the_bits_of_predict(library, tmp_path, labels):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m", labels))
    rows = rows_of(library, model, tmp_path / "file", PAIRS)
    assert_same_bits(rows, model.predict(PAIRS).reshape(len(PAIRS), labels))


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_weights_of_the_vocabulary_have_the_bits_of_encode(library, tmp_path, strategy):
    model = SparseEncoder(write_sparse(tmp_path / "m", pooling_strategy=strategy))
    rows = rows_of(library, model, tmp_path / "file", TEXTS)
    expected = model.encode(TEXTS, convert_to_sparse_tensor=False)
    assert_same_bits(rows, np.asarray(expected))


def test_dense_layers_normalization_and_truncation_are_applied(library, tmp_path):
    folder = write_model(
        tmp_path / "m", kinds=("Transformer", "Pooling", "Dense", "Normalize"), files={}
    )
    write_dense(folder / "2_Dense", TINY.hidden_size, 24)
    model = SentenceTransformer(folder, truncate_dim=10)
    rows = rows_of(library, model, tmp_path / "file", TEXTS)
    assert rows.shape == (len(TEXTS), 10)
    assert_same_bits(rows, model.encode(TEXTS))


def test_pooling_leaves_out_the_tokens_of_a_prompt(library, tmp_path, model):
    model.set_pooling_include_prompt(False)
    try:
        start = model.pipeline.pooling_start("the dog ")
        expected = model.encode(["a cab"], prompt="the dog ")
    finally:
        model.set_pooling_include_prompt(True)
    assert start > 0
    rows = rows_of(library, model, tmp_path / "file", ["the dog a cab"], pooling_start=start)
    assert_same_bits(rows, expected)


def test_threads_and_batches_do_not_change_a_row(library, file, model):
    ids = token_ids(model, TEXTS)
    with Model(library, file) as opened:
        together = opened.encode(ids, num_threads=2)
        alone = [opened.encode([sequence], num_threads=1) for sequence in ids]
    assert_same_bits(np.concatenate(alone), together)


def test_contents_in_memory_give_the_same_rows(library, file, model):
    with Model(library, file.read_bytes()) as opened:
        rows = opened.encode(token_ids(model, TEXTS))
    assert_same_bits(rows, model.encode(TEXTS))


def test_sizes_are_those_of_the_model(library, file, model):
    stack = model.pipeline.encoder
    with Model(library, file) as opened:
        assert opened.dimension == model.get_embedding_dimension()
        assert opened.vocab_size == stack.vocab_size
        assert opened.num_token_types == stack.num_token_types
        assert opened.max_length == stack.max_positions


# Instruction set levels


@pytest.mark.parametrize("name", ["bert", "nomic_bert", "gte"])
@pytest.mark.parametrize("compute_type", ["float32", "bfloat16"])
def test_every_level_writes_the_same_file(tmp_path, name, compute_type):
    folder = BY_NAME[name].write(tmp_path / "m")
    before, files = _core.active_isa(), []
    for isa in _core.available_isas():
        _core.set_active_isa(isa)
        try:
            SentenceTransformer(folder, compute_type=compute_type).export(tmp_path / isa)
        finally:
            _core.set_active_isa(before)
        files.append((tmp_path / isa).read_bytes())
    assert files.count(files[0]) == len(files)


# The examples: programs without Python


def program(name, *arguments, isa=None, **options):
    environment = {"SIMDFORMER_ISA": isa} if isa else {}
    return subprocess.run(
        [EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
        **options,
    )


def test_the_c_example_prints_the_vector(file, tmp_path, active_isa):
    model = SentenceTransformer(write_model(tmp_path / "m"))
    (ids,) = token_ids(model, ["the quick brown fox"])
    done = program("embed", file, *ids, isa=active_isa)
    assert done.returncode == 0, done.stderr
    assert_same_bits(np.array(done.stdout.split(), np.float32), model.encode("the quick brown fox"))


def test_the_cpp_example_prints_one_row_per_line(file, model):
    lines = [" ".join(map(str, ids)) for ids in token_ids(model, TEXTS)]
    done = program("rows", file, input="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    rows = [np.array(line.split(), np.float32) for line in done.stdout.splitlines()]
    assert_same_bits(np.stack(rows), model.encode(TEXTS))


@pytest.mark.parametrize("name", ["embed", "rows"])
def test_an_example_prints_the_error(tmp_path, name):
    done = program(name, tmp_path / "missing", *([1] if name == "embed" else []), input="")
    assert done.returncode == 1
    assert "missing" in done.stderr


def test_the_library_does_not_need_python(library):
    symbols = subprocess.run(
        ["nm", "-D", library.path], capture_output=True, text=True, check=True
    ).stdout
    assert not re.search(r" _?Py", symbols)
    own = re.findall(r" [TD] (\S+)", symbols)
    assert own
    assert all(name.startswith("simdformer_") for name in own)


def test_versions(library):
    assert library.abi_version() == 1
    header = next(Path(FOLDER).glob("include/simdformer.h")).read_text()
    assert f"#define SIMDFORMER_ABI_VERSION {library.abi_version()}\n" in header
    assert re.match(r"\d+\.\d+", library.version().decode())


# What is refused


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-8], "truncated or damaged"),
        (lambda data: data[:-3], "truncated"),
        (lambda data: data[: len(data) // 16 * 8], "truncated or damaged"),
        (lambda data: data[:0], "0 bytes: it is no exported model"),
        (lambda data: b"PK" + data[2:], "it is no exported model"),
        (
            lambda data: data[:8] + bytes([3]) + data[9:],
            "its format has version 3, this library reads 2",
        ),
        (lambda data: data[:-24] + bytes([data[-24] ^ 1]) + data[-23:], "checksum does not match"),
        (lambda data: data + bytes(8), "8 bytes behind its end"),
    ],
    ids=["8 bytes", "3 bytes", "half", "empty", "another", "version", "a bit", "longer"],
)
def test_a_damaged_file_is_refused(library, tmp_path, file, damage, message):
    path = tmp_path / "damaged"
    path.write_bytes(damage(file.read_bytes()))
    with pytest.raises(LibraryError, match=message) as error:
        Model(library, path)
    assert str(error.value).startswith(f"{path}: ")


def test_every_truncation_is_refused(library, file):
    data = file.read_bytes()
    for size in {*range(0, len(data), max(8, len(data) // 500)), *range(1, 300)}:
        with pytest.raises(LibraryError, match="truncated"):
            Model(library, data[:size])


def test_a_missing_file_is_refused(library, tmp_path):
    with pytest.raises(LibraryError, match=r"missing\.bin: it cannot be read"):
        Model(library, tmp_path / "missing.bin")


def test_a_folder_is_refused(library, tmp_path):
    with pytest.raises(LibraryError, match="it cannot be read as a file"):
        Model(library, tmp_path)


@pytest.mark.parametrize(
    ("sequences", "options", "message"),
    [
        ([[1, -1]], {}, r"input_ids\[1\] is -1"),
        ([[1], [10**6]], {}, r"input_ids\[1\] is 1000000"),
        ([[1] * 999], {}, "sequence 0 has 999 tokens"),
        ([[1]], {"num_threads": -1}, "num_threads is -1"),
    ],
    ids=["negative", "large", "long", "threads"],
)
def test_invalid_input_is_refused(library, file, sequences, options, message):
    with Model(library, file) as model, pytest.raises(LibraryError, match=message):
        model.encode(sequences, **options)


def test_an_unknown_token_type_is_refused(library, file):
    with (
        Model(library, file) as model,
        pytest.raises(LibraryError, match=r"token_type_ids\[1\] is 2"),
    ):
        model.encode([[1, 2]], [[0, 2]])


def test_null_is_refused(library, file):
    assert library.open(None) is None
    assert library.error() == "path is NULL"
    with Model(library, file) as model:
        assert library.encode(model.handle, None, None, None, 1, None, None) == -1
        assert library.error() == "output is NULL"
    library.close(None)


def test_no_sequences_give_no_rows(library, file):
    with Model(library, file) as model:
        assert model.encode([]).shape == (0, model.dimension)


@pytest.mark.parametrize(
    ("name", "compute_type"),
    [
        ("bert", "float32"),
        ("bert", "int8"),
        ("deberta-v2", "bfloat16"),
        ("mpnet", "float32"),
        ("nomic_bert", "int8"),
        ("sparse", "float32"),
    ],
)
def test_mutated_files_do_not_crash_the_library(tmp_path, name, compute_type):
    path, folder = tmp_path / "file", tmp_path / "m"
    if name == "sparse":
        SparseEncoder(write_sparse(folder)).export(path)
    else:
        SentenceTransformer(BY_NAME[name].write(folder), compute_type=compute_type).export(path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.exported", str(path), "--count", "1000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert "'refused'" in done.stdout
    assert "'opened'" in done.stdout


def test_a_changed_number_with_a_correct_checksum_is_opened(library, file):
    # What the tests of mutations rely on.
    with Model(library, with_checksum(file.read_bytes())) as model:
        assert model.dimension > 0


def test_cmake_finds_the_library(tmp_path):
    cmake = shutil.which(
        "cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert cmake is not None
    config = next(Path(FOLDER).glob("lib*/cmake/simdformer/simdformerConfig.cmake"))
    project = "cmake_minimum_required(VERSION 3.22)\nproject(x LANGUAGES NONE)\n"
    (tmp_path / "CMakeLists.txt").write_text(
        project + 'find_package(simdformer REQUIRED CONFIG)\nmessage("found ${simdformer_DIR}")\n'
    )
    done = subprocess.run(
        [
            cmake,
            "-S",
            tmp_path,
            "-B",
            tmp_path / "b",
            f"-DCMAKE_PREFIX_PATH={Path(FOLDER).resolve()}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"found {config.resolve().parent}" in done.stderr + done.stdout
