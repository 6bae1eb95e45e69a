"""The model card: the README.md of a saved folder, with the front matter that model hubs read."""

from __future__ import annotations

import json
from pathlib import Path

from madtp_cli.reporting.schema import CompressReport

_FRONT_MATTER = """---
library_name: madtp
pipeline_tag: {tag}
tags: [token-pruning, vision-language, madtp]
model-index:
- name: {name}
  results:
  - task: {{type: {tag}, name: {title}}}
    dataset: {{type: {task}, name: {data}, split: {split}}}
    metrics:
    - {{type: {metric}, value: {value:.2f}}}
---
"""

_RESULT = """
# {name}

This is `{checkpoint}` after token pruning with madtp {version} (`--method {method}`). Its budget is {share:.1%} of
the GFLOPs of the dense model. Task: {title}.

| {samples:,} {split} samples of {data} | dense | pruned | change |
|---|---|---|---|
| GFLOPs per sample | {gflops_dense:.4g} | {gflops_pruned:.4g} | {gflops_share:.3f}x |
| {metric} | {dense:.2f} | {pruned:.2f} | {change:+.2f} {unit} (95 % interval {low:+.2f} to {high:+.2f}) |
| ms per sample, batch size {batch}, {device}, {dtype} | {dense_ms:.2f} | {pruned_ms:.2f} | speed-up {speedup:.2f}x |

GFLOPs are {convention}.
The requested budget was {requested}: the pruned model uses {achieved:.4g} of {budget:.4g} GFLOPs per sample on
{budget_samples:,} validation samples.{unused}
Token pruning saves compute, not bytes: the folder holds all weights, {megabytes:,.2f} MB in {saved_in}.
"""

#: Validation samples decide the threshold scale and the best step, train samples the weights.
_UNUSED = " The test samples were used for this table only."

_USAGE = """
## How to use it

    import madtp_cli
    model, processor = madtp_cli.load({output})

transformers can also load the folder. If madtp is installed, `import madtp_cli.models` first; otherwise transformers
needs the code in this folder:

    from transformers import AutoModel, AutoProcessor
    model = AutoModel.from_pretrained({output}, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained({output}, trust_remote_code=True)
"""

_METHOD = """
## How it was made

The method is MADTP (Cao et al., CVPR 2024, arXiv:2403.02991) with these differences:

* One threshold scale is calibrated so that the validation samples meet the budget.
* Each sample keeps its own number of tokens.
* Unless the method is madtp-paper, a token counts less if a more important token is similar to it, and a pruned token
  is merged into the most similar kept token. The attention to a merged token is proportional to the number of tokens
  in it (ToMe, arXiv:2210.09461).
* The fine-tuning (none with `--steps 0`) distils from the dense model. The paper does not do this.
"""


def model_card(report: CompressReport, pipeline_tag: str, title: str) -> str:
    """Write the README.md of a compressed checkpoint.

    Args:
        report: The result of the compression.
        pipeline_tag: The category under which model hubs list models of this task.
        title: The task in words.

    Returns:
        The model card: YAML front matter, then Markdown.
    """
    sections = [_front_matter(report, pipeline_tag, title), _result(report, title)]
    sections.append(_USAGE.format(output=json.dumps(_name(report))))
    sections.append(_METHOD)
    if report.notes:
        sections.append("\n## Notes\n\n" + "".join(f"* {note}\n" for note in report.notes))
    return "".join(sections)


def _name(report: CompressReport) -> str:
    return Path(report.output).resolve().name


def _without_folders(source: str) -> str:
    """Return the name alone of a path on this machine; names of a hub and other texts stay.

    >>> _without_folders("/data/blip.pth"), _without_folders("Salesforce/blip-vqa-base")
    ('blip.pth', 'Salesforce/blip-vqa-base')
    """
    path = Path(source)
    return path.name if path.is_absolute() or source.startswith((".", "~")) or path.exists() else source


def _front_matter(report: CompressReport, pipeline_tag: str, title: str) -> str:
    """Write the front matter. Texts are quoted as in JSON, which is valid YAML."""
    return _FRONT_MATTER.format(
        tag=pipeline_tag,
        name=json.dumps(_name(report)),
        title=json.dumps(title),
        task=report.task,
        data=json.dumps(_without_folders(report.data)),
        split=report.quality.split,
        metric=json.dumps(report.quality.metric),
        value=report.quality.pruned,
    )


def _result(report: CompressReport, title: str) -> str:
    quality, gflops, latency, budget = report.quality, report.gflops, report.latency, report.budget
    return _RESULT.format(
        name=_name(report),
        title=title,
        checkpoint=_without_folders(report.checkpoint),
        version=report.environment.madtp,
        method=report.method,
        share=budget.share,
        data=_without_folders(report.data),
        **quality.model_dump(exclude={"interval95", "parts"}),
        low=quality.interval95.low,
        high=quality.interval95.high,
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
        requested=budget.requested,
        achieved=budget.achieved_val,
        budget=budget.gflops,
        budget_samples=budget.samples,
        megabytes=report.weights.bytes / 1e6,
        saved_in=report.weights.dtype,
        unused=_UNUSED if quality.split == "test" else "",
    )
