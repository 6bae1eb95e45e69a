"""The base class of all models: the alignment dictionary, the pruning settings and the distillation targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from madtp_cli import methods
from madtp_cli.execution import image_resizing
from madtp_cli.execution.attention import Backend
from madtp_cli.execution.block_pruner import BlockPruner, PruningSettings
from madtp_cli.execution.block_trace import BlockTrace, TokenTrace, positions_after
from madtp_cli.execution.packed import Packed, pack
from madtp_cli.execution.padded import pad
from madtp_cli.execution.padded_pruner import PaddedPruner
from madtp_cli.execution.statistics import ReadOut
from madtp_cli.execution.token_record import TokenRecorder
from madtp_cli.pruning import mag, segments
from madtp_cli.pruning.mag import AlignmentDictionary

#: Distillation targets by name. The part of a name before the dot selects the loss (see `compression.distillation`).
#: The rows of a tensor are samples. The segments of packed tokens are samples too; where a sample has two inputs, all
#: first inputs come before all second inputs.
DistillationTargets = dict[str, "Tensor | Packed"]


@dataclass
class PrunedOutput(ModelOutput):
    """Output of the forward pass of every model.

    Attributes:
        loss: Loss of the task, a mean; None without labels.
        loss_items: Number of items that the loss is the mean of; None for the samples of the batch.
        logits: See the forward of each model.
        alignment: Alignment loss of the dictionary (MAG), only in training and if pruning is on.
        targets: Distillation targets, only in training or with `return_targets=True`.
        trace: Token counts of every block of every tower, unpruned blocks included.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    alignment: Tensor | None = None
    targets: DistillationTargets | None = None
    trace: TokenTrace | None = None
    loss_items: int | None = None


@dataclass
class EmbeddingOutput(PrunedOutput):
    """Output of a model that embeds images and texts, each None if it was not asked for.

    Attributes:
        image_embedding: [images, width], or [images, embeddings, width] for several per image, see `best_similarities`.
        text_embedding: [texts, width].
        memory: The image tokens that the model kept.
    """

    image_embedding: Tensor | None = None
    text_embedding: Tensor | None = None
    memory: Packed | None = None

    @property
    def image_embeds(self) -> Tensor | None:
        """transformers' name of `image_embedding`."""
        return self.image_embedding

    @property
    def text_embeds(self) -> Tensor | None:
        """transformers' name of `text_embedding`."""
        return self.text_embedding


class Prunable(PreTrainedModel if TYPE_CHECKING else object):  # type: ignore[misc]
    """Adds token pruning to a transformers model, whose class is the second base class.

    The model's `config` has a field `madtp` (the pruning settings, None for a dense model) and one field
    `<tower>_config` per tower.
    """

    #: Towers that can be pruned.
    TOWERS: ClassVar[tuple[str, ...]] = ("vision", "text")
    #: Number of text tokens for which the literature states the GFLOPs of the task.
    TEXT_TOKENS: ClassVar[int] = 36
    #: Number of inputs per sample, for towers where it is not 1.
    INPUTS_PER_SAMPLE: ClassVar[dict[str, int]] = {}
    #: Token that a tower's result is read from, for towers where it is not the first one. None for a tower that is
    #: read by attention pooling; the model then supplies `Attention.read_out`.
    READ_OUT: ClassVar[dict[str, ReadOut | None]] = {}
    #: Number of protected tokens of a tower's inputs, for towers where it is not one. The tower's forward marks them.
    PROTECTED: ClassVar[dict[str, int]] = {}
    #: Further runs of a tower: their names in the trace, and the tower, whose pruning settings they share.
    SHARED_TOWERS: ClassVar[dict[str, str]] = {}
    #: Whether the forward compares every image with every text. Their numbers may differ then.
    ALL_PAIRS: ClassVar[bool] = False

    madtp: AlignmentDictionary | None
    backend: Backend
    #: Whether the forward runs on padded tokens instead of packed tokens. Exporters need padded tokens.
    padded: bool
    #: Whether the trace records where the tokens go, for pictures of the pruning.
    records_tokens: bool

    def prepare(self) -> None:
        """Set up pruning from the configuration. Constructors call this at their end."""
        self.madtp, self.backend, self.padded, self.records_tokens = None, "auto", False, False
        if self.config.madtp is not None:
            self.attach(PruningSettings(**self.config.madtp))

    @property
    def pruning(self) -> PruningSettings | None:
        """The pruning settings; None for a dense model."""
        return PruningSettings(**self.config.madtp) if self.config.madtp is not None else None

    @property
    def widths(self) -> dict[str, int]:
        """Width of each tower's tokens."""
        return {tower: self._tower(tower).hidden_size for tower in self.TOWERS}

    @property
    def blocks(self) -> dict[str, int]:
        """Number of blocks of each tower."""
        return {tower: self._tower(tower).num_hidden_layers for tower in self.TOWERS}

    def attach(self, settings: PruningSettings) -> None:
        """Set the pruning settings. Add a dictionary if the method needs one and the model has none."""
        if methods.DICTIONARY not in settings.needs:
            self.madtp = None
        elif self.madtp is None:
            own = next(self.parameters())
            size, width = settings.dictionary_size, settings.dictionary_width
            blocks = self.blocks if settings.block_projections else None
            dictionary = AlignmentDictionary(self.widths, size, width, blocks)
            self.madtp = dictionary.to(own.device, own.dtype)
        self.config.madtp = asdict(settings)

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Return the arguments of the forward for one sample with a blank image and a text of this length."""
        raise NotImplementedError

    def _tower(self, tower: str) -> Any:
        return getattr(self.config, f"{tower}_config")

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the dictionary if the checkpoint has none; from_pretrained leaves new parameters unset."""
        super()._init_weights(module)
        if isinstance(module, AlignmentDictionary):
            init.normal_(module.dictionary)

    def unpruned(self, name: str) -> BlockPruner:
        """Return a pruner that prunes nothing and records the token counts of a run with this name."""
        return BlockPruner(name, PruningSettings(), None, pooling=False, backend=self.backend)

    def pruner(self, tower: str) -> BlockPruner:
        """Return the object that prunes one tower in one forward and records the token counts.

        Without a dictionary it only records.
        """
        settings = self.pruning or PruningSettings()
        kind = PaddedPruner if self.padded else BlockPruner
        pruner = kind(
            tower,
            settings,
            self.madtp,
            pooling=self.training,
            backend=self.backend,
            read_out=self.READ_OUT.get(tower, "first"),
            sample_inputs=self.INPUTS_PER_SAMPLE.get(tower, 1),
        )
        pruner.recorder = TokenRecorder() if self.records_tokens else None
        return pruner

    def protected_tokens(self, tower: str, inputs: Mapping[str, Any]) -> Any:
        """Return the protected tokens of a tower's inputs, one number or one per sample and input.

        Args:
            tower: Name of the tower.
            inputs: By tower, the tokens before the first block, [samples, inputs].
        """
        return self.PROTECTED.get(tower, 1)

    def to_tokens(self, block: Tensor, mask: Tensor | None = None, protected: Tensor | None = None) -> Packed:
        """Return packed tokens, or padded tokens in padded mode.

        Args:
            block: [batch, tokens, width].
            mask: [batch, tokens], 0 at padding; None where there is no padding.
            protected: Which tokens are never pruned, bool [batch, tokens]; None if the caller says it later.
        """
        # Padded tokens have all methods of packed tokens that a forward calls.
        if self.padded:
            return cast(Packed, pad(block, mask, protected=protected))
        return pack(block, mask, exact=self.backend == "loop", protected=protected)

    def tokens_of_images(self, embeddings: Callable[..., Tensor], pixel_values: Tensor, pruner: BlockPruner) -> Packed:
        """Return the tokens that enter the first block of the image tower.

        Args:
            embeddings: The tower's embedding layer; its argument `interpolate_pos_encoding` allows smaller images.
            pixel_values: [images, 3, side, side].
            pruner: The pruner of the tower; its method may ask for smaller images.
        """
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        grids = pruner.image_grids(side)
        if grids is None:
            return self.to_tokens(embeddings(pixel_values))
        block, mask, positions = image_resizing.embed(embeddings, pixel_values, grids, side, padded=self.padded)
        if not self.padded:
            pruner.start(positions)
        return self.to_tokens(block, mask)

    def alignment_loss(self, image: Tensor | None, text: Tensor | None) -> Tensor | None:
        """Return the alignment loss (MAG) between the pooled tokens of images and of texts.

        Args:
            image: [samples, atoms, width of the image tower]; None if the tower was not pooled.
            text: [samples, atoms, width of the text tower]; None if the tower was not pooled.
        """
        if self.madtp is None or image is None or text is None:
            return None
        return mag.alignment_loss(self.madtp.project("vision", image), self.madtp.project("text", text))


def best_similarities(images: Tensor, texts: Tensor) -> Tensor:
    """Return the similarities of embeddings, [images, texts].

    Args:
        images: [images, width], or [images, embeddings, width] if an image has several; the most similar one counts.
        texts: [texts, width].
    """
    if images.dim() == 2:
        return images @ texts.T
    return (images.flatten(0, 1) @ texts.T).unflatten(0, images.shape[:2]).amax(1)


def require_image_size(pixel_values: Tensor, side: int) -> None:
    """Raise ValueError unless pixel values are [images, 3, side, side].

    transformers' BLIP would compute wrong numbers for smaller images, without an error.
    """
    if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != (3, side, side):
        raise ValueError(
            f"The images have the shape {list(pixel_values.shape)}, but this model needs [images, 3, {side}, {side}]. "
            "Prepare them with the processor of the checkpoint."
        )


def stack_states(states: list[Tensor] | None, tokens: Packed, trace: Sequence[BlockTrace]) -> Packed | None:
    """Return the states of a text's tokens after each layer as packed tokens, [total, layers, width].

    Of a text that was pruned, these are the tokens that every layer kept.

    Args:
        states: States after each layer, each [tokens, width]; None if they were not recorded.
        tokens: Tokens after the last layer.
        trace: What the layers pruned.

    Returns:
        None without states.
    """
    if not states:
        return None
    if not any(block.scored for block in trace):
        return Packed(torch.stack(states, 1), tokens.lengths)
    device = tokens.data.device
    starts = torch.tensor(segments.offsets(trace[0].entered)[:-1], device=device)
    after = [
        torch.where(positions >= 0, starts[segments.segment_ids(block.left, device)] + positions, -1)
        for block, positions in zip(trace, positions_after(trace, device), strict=True)
    ]
    named = after[-1] >= 0
    kept = after[-1][named]
    lengths = segments.segment_ids(tokens.lengths, device)[named].bincount(minlength=len(tokens.lengths)).tolist()
    rows = [state[torch.isin(before, kept)] for state, before in zip(states, after, strict=True)]
    return Packed(torch.stack(rows, 1), lengths)
