"""What every model here can do: carry a dictionary, prune by a knob, and say what a student learns from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from madtp_cli import methods
from madtp_cli.execution.attention import Backend
from madtp_cli.execution.block_pruner import BlockPruner, BlockTrace, PruningSettings, TokenTrace
from madtp_cli.execution.packed import Packed, pack
from madtp_cli.execution.padded import pad
from madtp_cli.execution.padded_pruner import PaddedPruner
from madtp_cli.execution.statistics import ReadOut
from madtp_cli.pruning import mag
from madtp_cli.pruning.mag import AlignmentDictionary

#: What a student learns from, by name; the first part of a name says how (see `distill`). Of a tensor the rows are
#: samples, of packed tokens the segments are (all first inputs, then all second ones).
DistillationTargets = dict[str, "Tensor | Packed"]


@dataclass
class PrunedOutput(ModelOutput):
    """What every model's forward gives.

    `loss` is the task's, where labels were given. `trace` says which tokens went through each block of
    each tower, the unpruned ones too. `alignment` is MAG's loss, only in training and where pruning is on;
    `lesson` only in training and where asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    alignment: Tensor | None = None
    targets: DistillationTargets | None = None
    trace: TokenTrace | None = None


class Prunable(PreTrainedModel if TYPE_CHECKING else object):  # type: ignore[misc]
    """Beside a transformers model: its `config` has a field `madtp`, and a configuration `<tower>_config` per tower."""

    #: Towers that can be pruned.
    TOWERS: ClassVar[tuple[str, ...]] = ("vision", "text")
    #: Tokens of the text behind the literature's GFLOPs of the task.
    TEXT_TOKENS: ClassVar[int] = 36
    #: How many inputs of a tower belong to one sample, where not one.
    INPUTS_PER_SAMPLE: ClassVar[dict[str, int]] = {}
    #: Token that a tower's result is read from, for towers where it is not the first one.
    READ_OUT: ClassVar[dict[str, ReadOut]] = {}
    #: Number of protected tokens of a tower's inputs, for towers where it is not one. The tower's forward marks them.
    PROTECTED: ClassVar[dict[str, int]] = {}
    #: Names in the trace under which a tower runs once more, and that tower, whose pruning it shares.
    SHARED_TOWERS: ClassVar[dict[str, str]] = {}
    #: Whether every image meets every text, so that there may be more of one than of the other.
    ALL_PAIRS: ClassVar[bool] = False

    madtp: AlignmentDictionary | None
    backend: Backend
    #: Whether the forward runs on padded tokens, as exporters need it, instead of packed ones.
    padded: bool

    def prepare(self) -> None:
        """For the end of a constructor: a dictionary if the config asks for one."""
        self.madtp, self.backend, self.padded = None, "auto", False
        if self.config.madtp is not None:
            self.attach(PruningSettings(**self.config.madtp))

    @property
    def pruning(self) -> PruningSettings | None:
        """How this model prunes; None for a dense one."""
        return PruningSettings(**self.config.madtp) if self.config.madtp is not None else None

    @property
    def widths(self) -> dict[str, int]:
        """Width of each tower's tokens."""
        return {tower: self._tower(tower).hidden_size for tower in self.TOWERS}

    @property
    def blocks(self) -> dict[str, int]:
        """Blocks of each tower."""
        return {tower: self._tower(tower).num_hidden_layers for tower in self.TOWERS}

    def attach(self, settings: PruningSettings) -> None:
        """Change how the model prunes; add a dictionary if the method needs one and the model has none."""
        if methods.DICTIONARY not in settings.needs:
            self.madtp = None
        elif self.madtp is None:
            own = next(self.parameters())
            dictionary = AlignmentDictionary(self.widths, settings.dictionary_size, settings.dictionary_width)
            self.madtp = dictionary.to(own.device, own.dtype)
        self.config.madtp = asdict(settings)

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Arguments of the forward for one empty sample with a text of this length, for counting alone."""
        raise NotImplementedError

    def _tower(self, tower: str) -> Any:
        return getattr(self.config, f"{tower}_config")

    def _init_weights(self, module: nn.Module) -> None:
        """Give parameters that a checkpoint lacks their first values; from_pretrained leaves them unset."""
        super()._init_weights(module)
        if isinstance(module, AlignmentDictionary):
            init.normal_(module.dictionary)

    def pruner(self, tower: str) -> BlockPruner:
        """For one forward of one tower; it prunes nothing where there is no dictionary, and keeps the record."""
        settings = self.pruning or PruningSettings()
        kind = PaddedPruner if self.padded else BlockPruner
        return kind(
            tower,
            settings,
            self.madtp,
            pooling=self.training,
            backend=self.backend,
            read_out=self.READ_OUT.get(tower, "first"),
        )

    def to_tokens(self, block: Tensor, mask: Tensor | None = None) -> Packed:
        """Tokens of [batch, tokens, width], without those that `mask` [batch, tokens] leaves out."""
        # Padded tokens can whatever a forward asks of packed ones.
        return cast(Packed, pad(block, mask)) if self.padded else pack(block, mask, exact=self.backend == "loop")

    def aligned(self, seen: Tensor | None, said: Tensor | None) -> Tensor | None:
        """MAG's loss between what an image and its text pooled, each [samples, atoms, tower width]."""
        if self.madtp is None or seen is None or said is None:
            return None
        return mag.alignment_loss(self.madtp.project("vision", seen), self.madtp.project("text", said))


def untouched(lengths: list[int], blocks: int) -> list[BlockTrace]:
    """The trace of a tower that prunes nothing."""
    return [BlockTrace(lengths, lengths)] * blocks


def layered(states: list[Tensor], tokens: Packed) -> Packed | None:
    """A text after each layer, [total, layers, width]; None where a layer dropped tokens."""
    if not states or len({len(state) for state in states}) > 1:
        return None
    return Packed(torch.stack(states, 1), tokens.lengths)
