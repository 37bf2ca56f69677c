"""Intermediate results of a model of every architecture, compared with transformers' eager attention in
float64 with exact angles. Needs the group parity."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.models import REGISTRY
from tests.support.parity_models import COMPARED, KINDS, reference_model, save_plain
from tests.support.parity_texts import parity_texts

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

# The largest difference, relative to the largest number of an array; for attention weights, relative to 1,
# their sum.
BOUND = 2e-6
# The linear layer after the heads' outputs, by the end of its name.
MIXERS = (
    "attention.output.dense",
    "attention.dense",
    "out_lin",
    "attn.o",
    "Wo",
    "o_proj",
    "SelfAttention.o",
)
EVERYTHING = {
    "output_attentions": True,
    "output_hidden_states": True,
    "output_head_outputs": True,
}


def test_every_architecture_is_compared():
    assert set(REGISTRY) == COMPARED


@pytest.fixture(scope="module")
def texts():
    """Texts of all lengths. The last ones have as many tokens as there are positions."""
    ordered = sorted(parity_texts(), key=len)
    return [*ordered[:: len(ordered) // 12], *ordered[-2:]]


class Reference:
    """transformers' model of a folder, in float64. mask: factors of each layer's heads, or None."""

    def __init__(self, folder, transformers):
        self.model = reference_model(transformers, folder, attn_implementation="eager").double()
        self.mask = None
        self.head_outputs = []
        named = self.model.named_modules()
        mixers = [m for name, m in named if name.endswith(MIXERS) and "mlp" not in name]
        for mixer in mixers:
            mixer.register_forward_pre_hook(self._mixed)
        for module in self.model.modules():
            if type(module).__name__.endswith("RotaryEmbedding"):
                module.forward = exact_angles(module)

    def _mixed(self, _module, inputs):
        (x,) = inputs
        if self.mask is not None:
            factors = x.new_tensor(self.mask[len(self.head_outputs)])  # ALBERT's layers repeat
            x = x * factors.repeat_interleave(x.shape[-1] // len(factors))
        self.head_outputs.append(x[0].numpy())
        return (x,)

    def __call__(self, input_ids, mask=None):
        """Hidden states, attentions and heads' outputs of one text, as lists of arrays."""
        import torch

        self.mask, self.head_outputs = mask, []
        with torch.no_grad():
            found = self.model(
                torch.tensor(input_ids[None]), output_hidden_states=True, output_attentions=True
            )
        attentions = [a[0].numpy() for a in found.attentions]
        if mask is not None:
            attentions = [a * row[:, None, None] for a, row in zip(attentions, mask, strict=True)]
        return [x[0].numpy() for x in found.hidden_states], attentions, self.head_outputs


def exact_angles(rotary):
    """The forward method of rotary positions, multiplying in float64 instead of float32."""
    import torch

    def forward(_x, position_ids, layer_type=None):
        parameters = rotary.config.rope_parameters
        theta = (parameters[layer_type] if layer_type else parameters)["rope_theta"]
        rounded = getattr(rotary, f"{layer_type}_inv_freq" if layer_type else "inv_freq")
        half = len(rounded)
        frequencies = theta ** -(torch.arange(half, dtype=torch.float64) / half)
        torch.testing.assert_close(frequencies, rounded.double(), rtol=1e-6, atol=0)
        angles = position_ids[..., None].double() * frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()

    return forward


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory):
    """A function from a kind to our model and the reference."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def load(kind):
        folder = tmp_path_factory.mktemp("outputs") / "m"
        save_plain(transformers, KINDS[kind], parity_texts(), folder)
        ours = SentenceTransformer(folder)
        ours.max_seq_length = None
        return ours, Reference(folder, transformers)

    return load


def differences(output, expected):
    """The largest difference of each kind of array, relative to its scale."""
    found = output.hidden_states, output.attentions, output.head_outputs
    for ours, theirs in zip(found, expected, strict=True):
        worst = 0.0
        for a, b in zip(ours, theirs, strict=True):
            scale = 1 if ours is output.attentions else np.abs(b).max()
            worst = max(worst, np.abs(a.reshape(b.shape) - b).max() / scale)
        yield worst


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_all_layers_are_those_of_float64(pair_of, texts, kind, masked):
    ours, reference = pair_of(kind)
    ours.max_seq_length = KINDS[kind].longest
    mask = None
    if masked:
        shape = ours.pipeline.encoder.num_layers, ours.pipeline.encoder.layer_heads[0][0]
        mask = np.random.default_rng(5).integers(0, 2, shape).astype(np.float32)  # half of them off
    worst = np.zeros(3)
    longest = 0
    for text in texts:
        output = ours.outputs(text, **EVERYTHING, head_mask=mask)
        longest = max(longest, len(output.tokens))
        expected = reference(output.input_ids, mask)
        worst = np.maximum(worst, list(differences(output, expected)))
    print(f"{kind}: states {worst[0]:.2g}, attentions {worst[1]:.2g}, heads {worst[2]:.2g}")
    assert longest == KINDS[kind].longest
    assert worst.max() <= BOUND
