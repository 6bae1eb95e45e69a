"""Sum the gradients of all processes that train one model.

torch's DistributedDataParallel does the same while the backward pass runs. It finds the parameters of a pass in its
output and does not look into packed tokens, so this is done after the pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, distributed, nn

from madtp_cli.execution import gathering

#: Bytes that are exchanged at once: few exchanges, and little memory for their copies.
BUCKET_BYTES = 2**25


def sum_over_processes(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradient of each parameter by the sum over all processes.

    A parameter has a gradient afterwards if it has one in any process.
    """
    if gathering.alone():
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    used = torch.tensor([float(parameter.grad is not None) for parameter in trained], device=trained[0].device)
    distributed.all_reduce(used)
    for parameter, times in zip(trained, used.tolist(), strict=True):
        if times and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([parameter.grad for parameter in trained if parameter.grad is not None]):
        joined = torch.cat([gradient.flatten() for gradient in bucket])
        distributed.all_reduce(joined)
        parts = joined.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield lists of tensors of one number format, each list below the limit if it has several."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        size = sum(other.nbytes for other in bucket) + gradient.nbytes
        if bucket and (size > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
