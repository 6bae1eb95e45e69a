"""The model card: the README.md of a saved folder, with the front matter that model hubs read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from madtp_cli.reporting import index_card
from madtp_cli.reporting.schema import CompressReport

_RESULT = """
# {name}

This is {checkpoint} after token pruning with madtp {version} (`--method {method}`). Its budget is {share:.1%} of
the GFLOPs of the dense model. Task: {title}.
{picture}
## Results

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

_PICTURE = """
![{text}]({file})

*A {split} sample: the image as the model sees it, then after each block that prunes. Pale patches are pruned, and have
the colour of the kept patch (with a thick outline) that they joined.*
"""

_TRADE_OFF = """
The calibration of the threshold scale tried these budgets on the validation samples. A larger scale prunes more;
`madtp compress --gflops-budget` finds the scale of any budget.

| threshold scale | GFLOPs per sample | share of the dense GFLOPs |
|---|---|---|
{rows}
"""

_OTHER_BUDGETS = """
The checkpoint was trained for a range of budgets. `madtp_cli.load(path, gflops_budget=0.5)` sets another one without
training:

| budget | GFLOPs per sample | {metric} | change in {unit} (95 % interval) |
|---|---|---|---|
{rows}
"""

_USAGE = """
## How to use it

With madtp:

    import madtp_cli
    model, processor = madtp_cli.load({output})

With transformers, where madtp is installed:

    import madtp_cli.models
    from transformers import AutoModel, AutoProcessor
    model, processor = AutoModel.from_pretrained({output}), AutoProcessor.from_pretrained({output})

With transformers alone, which then runs the code in this folder:

    from transformers import AutoModel, AutoProcessor
    model = AutoModel.from_pretrained({output}, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained({output}, trust_remote_code=True)
"""

_EXAMPLE = """
For example:

```python
from PIL import Image

{example}
```
"""

_COST = """
## What a GFLOPs figure counts

Figures are {convention}. One GFLOP is 10^9 multiply-adds. The scores that the pruning computes are included. Text that
is generated, ranked or matched again after the forward pass is not included.

## Limits

* The figures hold for the data above. Other data can cost more or less at the same threshold scale, and lose more.
* Each sample keeps its own number of tokens, so the cost of a single sample differs from the mean.
* Small objects in large uniform areas are most at risk. `madtp show` draws the pruned patches of your own samples.
* Token pruning saves compute, not bytes: the weights and their memory stay as they are.
* The limits and biases of the dense model remain.

## Licence

{licence}
"""

_METHOD = """
## How it was made

This command made it:

```sh
{command}
```

The method is MADTP (Cao et al., CVPR 2024, arXiv:2403.02991) with these differences:

* One threshold scale is calibrated so that the validation samples meet the budget.
* Each sample keeps its own number of tokens.
* Unless the method is madtp-paper, a token counts less if a more important token is similar to it, and a pruned token
  is merged into the most similar kept token. The attention to a merged token is proportional to the number of tokens
  in it (ToMe, arXiv:2210.09461).
* The fine-tuning (none with `--steps 0`) distils from the dense model. The paper does not do this.
"""


@dataclass(frozen=True)
class CardFacts:
    """What a card says in addition to the report.

    Attributes:
        pipeline_tag: The category under which model hubs list models of the task.
        title: The task in words.
        command: The command that made the folder.
        example: Code that uses `model` and `processor`; "" for none.
        base_model: Name of the source on the Hugging Face hub; None if it is a file.
        licence: Licence of the source, as its own card states it; None if that is not known.
        picture: Name of the file with the picture of the kept tokens; "" for none.
        picture_text: The picture in words.
    """

    pipeline_tag: str
    title: str
    command: str
    example: str = ""
    base_model: str | None = None
    licence: str | None = None
    picture: str = ""
    picture_text: str = ""


def model_card(report: CompressReport, facts: CardFacts) -> str:
    """Write the README.md of a compressed checkpoint: YAML front matter, then Markdown."""
    sections = [f"---\n{_front_matter(report, facts)}\n---\n", _result(report, facts), index_card.section(report.index)]
    if report.curve:
        rows = sorted((point.threshold_scale, point.share) for point in report.curve)
        lines = [f"| {scale:.4g} | {share * report.gflops.dense:.4g} | {share:.1%} |" for scale, share in rows]
        sections.append(_TRADE_OFF.format(rows="\n".join(lines)))
    if report.budgets:
        others = [
            f"| {point.requested:.3f} | {point.gflops:.4g} | {point.pruned:.2f} | {point.change:+.2f} "
            f"({point.interval95.low:+.2f} to {point.interval95.high:+.2f}) |"
            for point in report.budgets
        ]
        name, unit = report.quality.metric, report.quality.unit
        sections.append(_OTHER_BUDGETS.format(metric=name, unit=unit, rows="\n".join(others)))
    sections.append(_USAGE.format(output=json.dumps(_name(report))))
    if facts.example:
        sections.append(_EXAMPLE.format(example=facts.example))
    sections.append(_METHOD.format(command=facts.command))
    sections.append(_COST.format(convention=report.gflops.convention, licence=_licence(facts)))
    if report.notes:
        sections.append("\n## Notes\n\n" + "".join(f"* {note}\n" for note in report.notes))
    return "".join(sections)


def _licence(facts: CardFacts) -> str:
    if facts.licence is None:
        return "The licence of the dense checkpoint applies to these weights; the checkpoint does not state it."
    return f"`{facts.licence}`, as the dense checkpoint."


def _name(report: CompressReport) -> str:
    return Path(report.output).resolve().name


def _without_folders(source: str) -> str:
    """Return the name alone of a path on this machine; names of a hub and other texts stay.

    >>> _without_folders("/data/blip.pth"), _without_folders("Salesforce/blip-vqa-base")
    ('blip.pth', 'Salesforce/blip-vqa-base')
    """
    path = Path(source)
    return path.name if path.is_absolute() or source.startswith((".", "~")) or path.exists() else source


def _front_matter(report: CompressReport, facts: CardFacts) -> str:
    """Write the front matter with the classes of the Hugging Face hub."""
    from huggingface_hub import EvalResult, ModelCardData

    result = EvalResult(
        task_type=facts.pipeline_tag,
        task_name=facts.title,
        dataset_type=report.task,
        dataset_name=_without_folders(report.data),
        dataset_split=report.quality.split,
        metric_type=report.quality.metric,
        metric_value=round(report.quality.pruned, 2),
    )
    data = ModelCardData(
        base_model=facts.base_model,
        license=facts.licence,
        library_name="madtp",
        pipeline_tag=facts.pipeline_tag,
        tags=["token-pruning", "vision-language", "madtp"],
        model_name=_name(report),
        eval_results=[result],
    )
    return data.to_yaml().rstrip()


def _result(report: CompressReport, facts: CardFacts) -> str:
    quality, gflops, latency, budget = report.quality, report.gflops, report.latency, report.budget
    return _RESULT.format(
        name=_name(report),
        title=facts.title,
        picture=_PICTURE.format(text=facts.picture_text, file=facts.picture, split=quality.split)
        if facts.picture
        else "",
        checkpoint=f"[{facts.base_model}](https://huggingface.co/{facts.base_model})"
        if facts.base_model
        else f"`{_without_folders(report.checkpoint)}`",
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
