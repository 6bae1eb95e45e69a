"""The parts of the report on an exported file."""

from __future__ import annotations

from madtp_cli.reporting.parts import Part


class CountRange(Part):
    """The smallest and the largest of several counts."""

    least: int
    """The smallest number."""
    most: int
    """The largest number."""


class ExportCheck(Part):
    """How the outputs of an exported file compare with those of the model, on random samples."""

    samples: int
    """Number of random samples."""
    batch_sizes: tuple[int, ...]
    """Sizes of the batches, in number of samples."""
    text_tokens: CountRange | None
    """Tokens of a text; null if the model reads no text."""
    kept_image_tokens: CountRange | None
    """Tokens of an image after pruning; null if nothing is pruned."""
    max_difference: float
    """Largest absolute difference of any output, in the unit of the output."""
    tolerance: float
    """Largest difference that is allowed, in the unit of the output."""
