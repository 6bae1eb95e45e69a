"""The fvcore check: fvcore counts a forward pass on a trace, independently of the closed formula."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from madtp_cli.errors import MadtpError

with warnings.catch_warnings():
    # fvcore scripts a loss function while it is imported; torch deprecates that with a warning that Python shows.
    warnings.filterwarnings("ignore", message=".*torch.jit")
    from fvcore.nn import FlopCountAnalysis

#: Operators without multiply-adds, by fvcore's convention.
_FREE = """
__and__ __or__ _upsample_bicubic2d_aa abs add add_ alias all amax amin any arange argsort bitwise_and bitwise_not bool
ceil clamp clamp_max clamp_min clone constant_pad_nd contiguous copy_ cosine_similarity cross_entropy_loss cumsum
detach div div_ elu embedding embedding_bag empty empty_like eq exp expand expand_as fill_ floor floor_divide full
full_like ge gelu gt index index_add index_copy index_copy_ index_put index_put_ index_select le lift_fresh
linalg_vector_norm log log_softmax logical_and logical_not lt masked_fill masked_fill_ masked_scatter masked_select
max mean minimum mul mul_ ne neg new_full new_ones new_zeros nonzero norm numpy_T ones ones_like pad pow reciprocal
relu remainder repeat repeat_interleave round rsqrt rsub scatter scatter_ select sigmoid slice softmax sort split sqrt
square stack sub sum take_along_dim tanh to topk triu unbind unflatten unfold upsample_bicubic2d where zeros
zeros_like
""".split()  # noqa: SIM905  one name per line would fill the file
_UNCOUNTED_IS_FREE = {f"aten::{name}" for name in _FREE}


def _attention_flops(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Count scaled_dot_product_attention, which fvcore does not know."""
    query, key, value = (list(node.type().sizes()) for node in inputs[:3])
    pairs = int(np.prod(query[:-1])) * key[-2]
    return Counter(attention=pairs * (query[-1] + value[-1]))


def _convolution_flops(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Count a convolution whose padding is given by name, which fvcore does not know."""
    weight, output = inputs[1].type().sizes(), outputs[0].type().sizes()
    return Counter(conv=output[0] * int(np.prod(weight)) * int(np.prod(output[2:])))


class UncountedOperatorError(MadtpError):
    """The trace has an operator that may do multiply-adds and is not counted."""


def count_with_fvcore(model: nn.Module, inputs: Mapping[str, Tensor]) -> int:
    """Return the multiply-adds of one forward pass, counted by fvcore on a trace.

    Args:
        model: A model of this package.
        inputs: Arguments of its forward, one sample.

    Raises:
        UncountedOperatorError: An operator may do multiply-adds and is not counted.
    """
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        # The token counts become constants of the trace; this is intended, as they are what is counted.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit")
        analysis = FlopCountAnalysis(_ByPosition(model, list(inputs)), tuple(inputs.values()))
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_flops)
        analysis.set_op_handle("aten::_convolution_mode", _convolution_flops)
        analysis.uncalled_modules_warnings(False)
        counted = int(analysis.total())
        uncounted = sorted(set(analysis.unsupported_ops()) - _UNCOUNTED_IS_FREE)
    if uncounted:
        raise UncountedOperatorError(
            f"fvcore cannot count this model: {', '.join(uncounted)} may do multiply-adds.\n"
            "Add a handle for them, or add them to _FREE, in madtp_cli/flops/fvcore_check.py."
        )
    return counted


class _ByPosition(nn.Module):
    """Gives a model its keyword arguments by position, as tracing requires; every tensor of the output is traced."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        model: Any = self.model
        backend, model.backend = model.backend, "loop"  # padding is not part of a sample's cost
        try:
            output = model(**dict(zip(self.names, values, strict=True)))
            return tuple(answer for answer in vars(output).values() if isinstance(answer, Tensor))
        finally:
            model.backend = backend
