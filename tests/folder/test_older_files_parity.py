"""Older files, without safetensors and tokenizer.json, as written by PyTorch and transformers. Needs the
group parity."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from simdformer import CrossEncoder, SentenceTransformer
from simdformer.checkpoint import Checkpoint
from tests.support import assert_same_bits
from tests.support.model_fixtures import PAIRS, TEXTS, write_cross_encoder, write_dense, write_model
from tests.support.parity_models import KINDS, tokenizer_of
from tests.support.parity_texts import docstrings

pytestmark = [
    pytest.mark.parity,
    # Deprecations inside torch and transformers cannot be fixed here.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


# Weights


@pytest.fixture
def state(torch):
    """Every dtype of floats and every kind of view that modules and conversions produce."""
    torch.manual_seed(0)
    table = torch.randn(5, 3)
    return {
        **torch.nn.TransformerEncoderLayer(8, 2, 16).state_dict(),
        "float16": torch.randn(3, 4).half(),
        "bfloat16": torch.randn(3, 4).bfloat16(),
        "float64": torch.randn(3, 4).double(),
        "tied": table,
        "tied too": table,
        "part": table[2:4],
        "transposed": torch.randn(4, 6).T,
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "x" * 300: torch.ones(1),
    }


def test_every_view_that_torch_saves_is_read(torch, state, tmp_path):
    torch.save(state, tmp_path / "pytorch_model.bin")
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.names() == list(state)
        for name, tensor in state.items():
            assert_same_bits(checkpoint.read(name), tensor.detach().float().contiguous().numpy())


def test_a_state_dict_with_metadata_and_other_numbers_is_read(torch, tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    with Checkpoint(tmp_path / "m.pt") as checkpoint:
        assert checkpoint.names() == list(module.state_dict())
        assert_same_bits(checkpoint.read("0.weight"), module[0].weight.detach().numpy())
        with pytest.raises(ValueError, match="has dtype I64"):
            checkpoint.read("1.num_batches_tracked")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda torch: torch.nn.Linear(2, 2), r"asks for 'torch\.nn\.modules\.linear\.Linear'"),
        (lambda torch: {"x": torch.ones(1, 3).expand(5, 3)}, "has gaps or overlaps"),
        (lambda torch: {"x": torch.arange(10.0)[::2]}, "has gaps or overlaps"),
        (lambda torch: {"x": torch.ones(2).to(torch.complex64)}, "ComplexFloatStorage"),
        (lambda torch: {"x": torch.eye(3).to_sparse()}, "_rebuild_sparse_tensor"),
        (lambda torch: {"x": torch.ones(2, dtype=torch.complex64).conj().imag}, "in a way that"),
        (lambda torch: {"state_dict": {"x": torch.ones(2)}}, "it is a training checkpoint"),
        (lambda torch: [torch.ones(2)], "it contains a list, not tensors by name"),
        (lambda torch: torch.ones(2), "not tensors by name"),
        (
            lambda torch: torch.optim.Adam([torch.ones(2)]).state_dict(),
            "'state' is a dict, not a tensor",
        ),
    ],
)
def test_other_files_of_torch_are_refused(torch, tmp_path, make, match):
    torch.save(make(torch), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=rf"pytorch_model\.bin: not a supported PyTorch .*{match}"):
        Checkpoint(tmp_path)


def test_the_format_before_1_6_contains_the_same(torch, state, tmp_path):
    read = []
    for new in (True, False):
        file = tmp_path / str(new) / "pytorch_model.bin"
        file.parent.mkdir()
        torch.save(state, file, _use_new_zipfile_serialization=new)
        with Checkpoint(file.parent) as checkpoint:
            floats = [n for n in checkpoint.names() if state[n].is_floating_point()]
            read.append({name: checkpoint.read(name) for name in floats})
    assert read[0].keys() == read[1].keys()
    for name, array in read[0].items():
        assert_same_bits(read[1][name], array)


def to_bin(torch, folder):
    """Replace a folder's safetensors by PyTorch's file."""
    tensors = load_file(folder / "model.safetensors")
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("compute_type", ["float32", "int8"])
def test_a_model_has_the_bits_of_its_safetensors(torch, tmp_path, compute_type):
    folder = write_model(tmp_path / "m", kinds=("Transformer", "Pooling", "Dense"))
    write_dense(folder / "2_Dense", 20, 12)
    expected = SentenceTransformer(folder, compute_type=compute_type).encode(TEXTS)
    to_bin(torch, folder)
    to_bin(torch, folder / "2_Dense")
    model = SentenceTransformer(folder, compute_type=compute_type)
    assert_same_bits(model.encode(TEXTS), expected)


def test_a_cross_encoder_has_the_bits_of_its_safetensors(torch, tmp_path):
    write_cross_encoder(tmp_path)
    expected = CrossEncoder(tmp_path).predict(PAIRS)
    to_bin(torch, tmp_path)
    assert_same_bits(CrossEncoder(tmp_path).predict(PAIRS), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_models_own_state_dict_is_read(torch, transformers, tmp_path, dtype):
    folder = write_model(tmp_path / "m")
    model = transformers.AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    expected = SentenceTransformer(folder).encode(TEXTS)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert_same_bits(SentenceTransformer(folder).encode(TEXTS), expected)


# Tokenizers


def test_a_whole_model_of_older_files_gives_transformers_token_vectors(
    torch, transformers, tmp_path
):
    texts = [text for _, text in zip(range(100), docstrings(), strict=False)]
    tokenizer = tokenizer_of(transformers, KINDS["bert"], texts)
    tokenizer.save_pretrained(tmp_path)
    tokenizer.backend_tokenizer.model.save(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(vocab_size=700, intermediate_size=128, **sizes)
    model = transformers.BertModel(config).eval()
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(tmp_path)
    ours = SentenceTransformer(tmp_path)
    for text in texts[::20]:
        with torch.no_grad():
            inputs = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
            expected = model(**inputs).last_hidden_state[0].numpy()
        found = ours.encode(text, output_value="token_embeddings")
        assert np.abs(found - expected).max() < 1e-5
