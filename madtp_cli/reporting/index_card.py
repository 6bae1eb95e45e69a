"""The section of a model card about the index compatibility of an image encoder."""

from __future__ import annotations

from madtp_cli.reporting.index_parts import IndexPart, OverlapPart

_SECTION = """
## Does a search index stay as it is?

The embeddings of {images:,} images have a mean cosine of {cosine:.5f} to the dense ones (95 % interval {low:.5f} to
{high:.5f}; 5th percentile {p5:.5f}). Each image was a query, and the index held the other images. The table has the
share of results that a dense query finds in the dense index too, in percent with 95 % intervals.

| queries and index | best result | best {results} results |
|---|---|---|
| pruned queries, dense index: nothing is embedded again | {pruned_in_dense} |
| dense queries, pruned index | {dense_in_pruned} |
| pruned queries, pruned index: all images are embedded again | {pruned_in_pruned} |
"""


def section(part: IndexPart | None) -> str:
    """Return the section; an empty text for other models."""
    if part is None:
        return ""
    return _SECTION.format(
        images=part.images,
        cosine=part.cosine,
        low=part.cosine_interval95.low,
        high=part.cosine_interval95.high,
        p5=part.cosine_p5,
        results=part.results,
        pruned_in_dense=_cells(part.pruned_in_dense),
        dense_in_pruned=_cells(part.dense_in_pruned),
        pruned_in_pruned=_cells(part.pruned_in_pruned),
    )


def _cells(part: OverlapPart) -> str:
    figures = ((part.top1, part.top1_interval95), (part.top10, part.top10_interval95))
    return " | ".join(f"{value:.1f} ({interval.low:.1f} to {interval.high:.1f})" for value, interval in figures)
