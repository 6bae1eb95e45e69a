"""How a model prunes, as saved in its config."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from madtp_cli import methods
from madtp_cli.methods import IMAGES


@dataclass(frozen=True)
class PruningSettings:
    """How a model prunes; saved as `madtp` in its config.

    Attributes:
        method: One of `methods.names()`.
        threshold_scale: Factor of each sample's threshold; 0 is the dense model.
        min_keep: Tokens that each sample keeps at least per tower, not counting protected ones.
        dictionary_size: Atoms of the dictionary.
        dictionary_width: Width of the dictionary's space.
        block_projections: Whether each block has its own projection into the dictionary's space, instead of one per
            tower.
        scales: Factor of the threshold scale per tower and block; a block with 0 is not pruned.
        curve: Calibrated points (threshold scale, share of the dense GFLOPs), the scale rising and the share falling.
        dense_gflops: Mean GFLOPs per sample of the dense model on the calibration samples; 0 without a curve.
        embedding_scale: Factor of the threshold scale for image patches before the first block; 0 to prune none there.
        parameters: The method's own parameters. A mapping, as in config.json, changes some of the method's defaults.
    """

    method: str = "madtp"
    threshold_scale: float = 0.0
    min_keep: int = 1
    dictionary_size: int = 100
    dictionary_width: int = 768
    block_projections: bool = False
    scales: dict[str, list[float]] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    dense_gflops: float = 0.0
    embedding_scale: float = 0.0
    parameters: Any = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.parameters, Mapping):
            parameters = methods.get(self.method).PARAMETERS(**self.parameters)
            object.__setattr__(self, "parameters", parameters)

    @classmethod
    def preset(
        cls,
        method: str,
        widths: Mapping[str, int],
        blocks: Mapping[str, int],
        causal: Collection[str] = (),
    ) -> PruningSettings:
        """Return the default settings of a method for a model.

        A model of the paper's full size gets the paper's 100 atoms of width 768. Narrow models get fewer atoms;
        otherwise the dictionary would cost more than pruning saves.

        Args:
            method: One of `methods.names()`.
            widths: Width of each tower.
            blocks: Number of blocks of each tower.
            causal: Towers that are read from their last token.
        """
        width = widths.get("text", widths["vision"])  # caption models have no text tower
        preset = methods.get(method).PRESET
        if not preset.causal:
            preset = replace(preset, unpruned=(*preset.unpruned, *causal))
        return cls(
            method,
            dictionary_size=min(100, width // 4),
            dictionary_width=width,
            scales={tower: preset.scales(tower, number) for tower, number in blocks.items()},
            embedding_scale=preset.embedding,
        )

    @property
    def needs(self) -> frozenset[str]:
        """What the method needs, see `methods.Method.NEEDS`."""
        return methods.get(self.method).NEEDS

    def rule(self, tower: str, block: int) -> methods.Rule | None:
        """Return the rule of one block, or None for a block that is not pruned and hence not scored."""
        scales = self.scales.get(tower, [])
        return self._scaled(scales[block] if block < len(scales) else 1.0, block, max(1, len(scales)))

    def embedding_rule(self, tower: str) -> methods.Rule | None:
        """Return the rule for the tokens of a tower before its first block, or None if none are pruned there."""
        if tower != IMAGES:
            return None
        return self._scaled(self.embedding_scale, 0, max(1, len(self.scales.get(tower, []))))

    def _scaled(self, scale: float, block: int, blocks: int) -> methods.Rule | None:
        threshold_scale = self.threshold_scale * scale if scale else 0.0  # infinity times 0 would be NaN
        if not threshold_scale > 0:
            return None
        return methods.Rule(threshold_scale, self.min_keep, self.parameters, block, blocks)
