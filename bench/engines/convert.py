"""Convert a BERT model folder for ONNX Runtime, OpenVINO and CTranslate2.

    python -m engines.convert onnx MODEL OUT        OUT/model.onnx and OUT/fused.onnx
    python -m engines.convert onnx-int8 MODEL OUT   and OUT/int8.onnx
    python -m engines.convert openvino-int8 MODEL OUT   and OUT/int8.xml
    python -m engines.convert ctranslate2 MODEL OUT OUT/ctranslate2/
    python -m engines.convert random-bert-base MODEL OUT
                                    a BERT-base of random weights with MODEL's tokenizer

Runs in a process of its own: a worker that times a runtime must not have PyTorch loaded.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
)
_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))


def convert_onnx(model_path: Path, out: Path) -> None:
    import torch
    from onnxruntime.transformers import optimizer
    from transformers import AutoModel

    # The optimizer fuses the pattern of eager attention into its Attention operator.
    model = AutoModel.from_pretrained(model_path, attn_implementation="eager").eval()

    class HiddenStates(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, input_ids: torch.Tensor, mask: torch.Tensor, token_type_ids: torch.Tensor
        ) -> torch.Tensor:
            return self.model(input_ids, mask, token_type_ids).last_hidden_state

    ids = torch.ones((2, 8), dtype=torch.int64)
    mask = ids.clone()
    mask[1, 5:] = 0
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {0: "batch", 1: "length"}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            HiddenStates(),
            (ids, mask, torch.zeros_like(ids)),
            str(out / "model.onnx"),
            input_names=inputs,
            output_names=["last_hidden_state"],
            dynamic_axes=dict.fromkeys([*inputs, "last_hidden_state"], axes),
            opset_version=17,
            dynamo=False,  # the fusions support the pattern of this exporter
        )
    config = model.config
    fused = optimizer.optimize_model(
        str(out / "model.onnx"),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
    )
    operators = fused.get_fused_operator_statistics()
    expected = {"Attention": 1, "SkipLayerNormalization": 2, "BiasGelu": 1}
    for operator, per_layer in expected.items():
        count, wanted = operators[operator], per_layer * config.num_hidden_layers
        if count != wanted:
            raise RuntimeError(f"ONNX fusion: expected {wanted} x {operator}, got {count}")
    fused.save_model_to_file(str(out / "fused.onnx"))


def convert_onnx_int8(model_path: Path, out: Path) -> None:
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    convert_onnx(model_path, out)
    # Quantization comes after fusion; otherwise there is no Attention to fuse.
    quantize_dynamic(
        out / "fused.onnx",
        out / "int8.onnx",
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},  # outputs of the fused operators
    )


def convert_openvino_int8(model_path: Path, out: Path) -> None:
    import nncf
    import openvino
    from tokenizers import Tokenizer

    from texts import calibration_texts

    convert_onnx(model_path, out)
    tokenizer = Tokenizer.from_file(str(model_path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)

    def inputs(text: str) -> dict[str, np.ndarray]:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        return {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }

    quantized = nncf.quantize(
        openvino.Core().read_model(str(out / "model.onnx")),
        nncf.Dataset(calibration_texts(), inputs),
        model_type=nncf.ModelType.TRANSFORMER,  # SmoothQuant, and float32 where needed
    )
    openvino.save_model(quantized, str(out / "int8.xml"), compress_to_fp16=False)


def convert_ctranslate2(model_path: Path, out: Path) -> None:
    import ctranslate2
    from transformers import BertConfig

    # The converter reads an attribute of BertConfig that transformers 5 removed.
    if not hasattr(BertConfig, "position_embedding_type"):
        BertConfig.position_embedding_type = "absolute"
    converter = ctranslate2.converters.TransformersConverter(str(model_path))
    converter.convert(str(out / "ctranslate2"), quantization="float32")


def make_random_bert_base(tokenizer_path: Path, out: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(out)
    for name in _TOKENIZER_FILES:
        if (tokenizer_path / name).is_file():
            shutil.copy(tokenizer_path / name, out / name)
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, (path, kind) in enumerate(_MODULES)
    ]
    (out / "modules.json").write_text(json.dumps(modules, indent=2))
    (out / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 256, "do_lower_case": false}'
    )
    (out / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True}
    (out / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (out / "2_Normalize").mkdir()


_CONVERSIONS = {
    "onnx": convert_onnx,
    "onnx-int8": convert_onnx_int8,
    "openvino-int8": convert_openvino_int8,
    "ctranslate2": convert_ctranslate2,
    "random-bert-base": make_random_bert_base,
}

if __name__ == "__main__":
    _kind, _model, _out = sys.argv[1:]
    _CONVERSIONS[_kind](Path(_model), Path(_out))
