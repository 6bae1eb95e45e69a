"""The table of results.md about the index compatibility of image encoders."""

from __future__ import annotations

from madtp_cli.reporting.schema import CompressReport

#: Title and checkpoint of the image encoders whose index compatibility is measured, each with `DEFAULT_STEPS`.
ENCODERS = {
    "clip-images": ("CLIP, image tower alone, built-in scenes", "clip.pt"),
    "siglip-images": ("SigLIP, image tower alone, built-in scenes", "siglip"),
}
INTRODUCTION = """
## Index compatibility of image encoders

`--task embedding` with the default number of steps: the image tower alone, compressed with images alone. Each test
image is a query, and the index holds all other test images. A result is right if a dense query finds it in the dense
index. In brackets are the 5th percentile of the cosine and the 95 % intervals of the percentages.

* **pruned in dense**: pruned queries in the dense index, so nothing is embedded again.
* **dense in pruned**: dense queries in the pruned index.
* **pruned in pruned**: all images are embedded again.

| image encoder | budget | share on test | cosine | pruned in dense, top 1 | top 10 | dense in pruned, top 1 | top 10 \
| pruned in pruned, top 1 | top 10 | images |
|---|---|---|---|---|---|---|---|---|---|---|"""


def line(title: str, budget: str, report: CompressReport) -> str:
    """Return the line of the table for the report of an image encoder."""
    part = report.index
    if part is None:
        raise ValueError(f"{report.output} is no image encoder")
    cells = [title, budget, f"{report.gflops.share:.3f}", f"{part.cosine:.5f} ({part.cosine_p5:.5f})"]
    for overlap in (part.pruned_in_dense, part.dense_in_pruned, part.pruned_in_pruned):
        for value, interval in (
            (overlap.top1, overlap.top1_interval95),
            (overlap.top10, overlap.top10_interval95),
        ):
            cells.append(f"{value:.1f} ({interval.low:.1f} to {interval.high:.1f})")
    return f"| {' | '.join([*cells, f'{part.images:,}'])} |"
