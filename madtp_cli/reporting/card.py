"""The model card: README.md beside the weights, in the form that model hubs read."""

from __future__ import annotations

import json

from madtp_cli import tasks
from madtp_cli.reporting.schema import CompressReport

_TEMPLATE = """---
library_name: madtp
pipeline_tag: {tag}
tags: [token-pruning, vision-language, madtp]
model-index:
- name: {name}
  results:
  - task: {{type: {task}}}
    dataset: {{name: {data}, type: {task}, split: {split}}}
    metrics:
    - {{type: {metric}, value: {pruned:.2f}}}
---

# {name}

`{checkpoint}` with token pruning (`--method {method}`), brought to {share:.1%} of its GFLOPs by madtp {version}.

| {samples:,} {split} samples of {data} | dense | pruned | change |
|---|---|---|---|
| GFLOPs per sample | {gflops_dense:.4g} | {gflops_pruned:.4g} | {gflops_share:.3f}x |
| {metric} | {dense:.2f} | {pruned:.2f} | {change:+.2f} {unit} (95 % interval {low:+.2f} to {high:+.2f}) |
| ms per sample, batch {batch}, {device}, {dtype} | {dense_ms:.2f} | {pruned_ms:.2f} | speed {speedup:.2f}x |

GFLOPs are {convention}. The budget of {requested} was met with {achieved:.4g} of {budget:.4g} GFLOPs on
{budget_samples:,} validation samples; the table's samples were used for nothing but this table.
Token pruning saves compute, not bytes: the folder holds all weights, in float32.

    import madtp_cli
    model, processor = madtp_cli.load("{output}")

transformers reads it too, after `import madtp_cli.models`, or where madtp is not installed by the code in this folder:

    from transformers import AutoModel, AutoProcessor
    model = AutoModel.from_pretrained("{output}", trust_remote_code=True)
    processor = AutoProcessor.from_pretrained("{output}", trust_remote_code=True)

The pruning is MADTP's (Cao et al., CVPR 2024, arXiv:2403.02991) with a budget knob, counts of each sample's own and,
unless the method is madtp-paper, importance that counts as far as no more important token is alike, and pruned tokens
that join their like and are attended to as many (ToMe, arXiv:2210.09461); the distillation from the dense model is
not the paper's.{notes}
"""


def model_card(report: CompressReport) -> str:
    """README.md for a compressed checkpoint."""
    quality, gflops, latency = report.quality, report.gflops, report.latency
    name = report.output.rstrip("/").rsplit("/", 1)[-1]
    return _TEMPLATE.format(
        name=name,
        tag=tasks.get(report.task).pipeline_tag,
        checkpoint=report.checkpoint,
        output=report.output,
        task=report.task,
        data=json.dumps(report.data),
        split=quality.split,
        samples=quality.samples,
        metric=quality.metric,
        unit=quality.unit,
        dense=quality.dense,
        pruned=quality.pruned,
        change=quality.change,
        low=quality.interval95[0],
        high=quality.interval95[1],
        method=report.method,
        share=report.budget.share,
        version=report.environment.madtp,
        gflops_dense=gflops.dense,
        gflops_pruned=gflops.pruned,
        gflops_share=gflops.share,
        convention=gflops.convention,
        batch=latency.batch_size,
        device=latency.device,
        dtype=latency.dtype,
        dense_ms=latency.dense_ms,
        pruned_ms=latency.pruned_ms,
        speedup=latency.speedup,
        requested=report.budget.requested,
        achieved=report.budget.achieved_val,
        budget=report.budget.gflops,
        budget_samples=report.budget.samples,
        notes="".join(f"\n\n{note}" for note in report.notes),
    )
