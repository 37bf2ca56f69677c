# SPDX-License-Identifier: Apache-2.0
"""A mixture of experts in place of a layer's feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from simdformer import _core
from simdformer.functional.arrays import positive_int
from simdformer.nn import initialization as init
from simdformer.nn.activations import activation_name
from simdformer.nn.containers import ModuleList
from simdformer.nn.linear import Linear
from simdformer.nn.module import Module


class _Router(Linear):
    """A linear map that is always in float32: rounding it could choose other experts."""

    matrix_names: ClassVar[tuple[str, ...]] = ()


class MixtureOfExperts(Module):
    """Feed-forwards, the experts, of which each token uses those that a router chooses.

    y = sum of p_e linear2_e(activation(linear1_e(x))) + bias over the top_k experts with the largest
    probabilities p = softmax(router(x)). The chosen probabilities are not normalized again. A layer uses it
    as its argument `experts`; it cannot be called itself.

    Parameters
    ----------
    d_model, dim_feedforward
        Numbers of features: of tokens, and of the inner layer of each expert.
    num_experts, top_k
        The number of experts, and how many of them a token uses.
    activation
        As of `TransformerEncoderLayer`, but not a gated one.
    bias
        Whether a bias is added to the sum.

    Attributes
    ----------
    router
        The `Linear` from d_model to num_experts, without a bias. It is in float32 in every compute type.
    linear1, linear2
        `ModuleList`s of the experts' `Linear` maps, without biases.
    bias
        float32 (d_model,), or None.

    References
    ----------
    Shazeer et al. 2017, Outrageously Large Neural Networks, arXiv:1701.06538.

    Examples
    --------
    >>> from simdformer import nn
    >>> experts = nn.MixtureOfExperts(8, 16, num_experts=4, top_k=2)
    >>> layer = nn.TransformerEncoderLayer(8, nhead=2, batch_first=True, experts=experts)
    >>> layer(np.ones((1, 5, 8), dtype=np.float32)).shape
    (1, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        dim_feedforward: int,
        num_experts: int,
        top_k: int,
        activation: str | Callable[..., Any] = "gelu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.d_model = positive_int("d_model", d_model)
        self.num_experts = positive_int("num_experts", num_experts)
        self.top_k = positive_int("top_k", top_k)
        if top_k > num_experts:
            raise ValueError(f"top_k must be at most num_experts={num_experts}, got {top_k}")
        self.activation = activation_name(activation, ())
        self.router = _Router(d_model, num_experts, bias=False)
        each = range(num_experts)
        self.linear1 = ModuleList(Linear(d_model, dim_feedforward, bias=False) for _ in each)
        self.linear2 = ModuleList(Linear(dim_feedforward, d_model, bias=False) for _ in each)
        self._register("bias", init.zeros(d_model) if bias else None)

    def _pack(self) -> _core.Experts:
        experts = [
            _core.FeedForward(up.native(), down.native(), activation=self.activation)
            for up, down in zip(self.linear1, self.linear2, strict=True)
        ]
        return _core.Experts(self.router.native(), experts, self.bias, top_k=self.top_k)
