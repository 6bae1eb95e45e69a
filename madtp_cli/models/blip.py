"""BLIP for natural-language visual reasoning, run on packed tokens.

The modules are transformers' own, hence so are the state-dict keys; NLVR's twin
cross-attention, which transformers lacks, keeps the original's keys.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipConfig, BlipPreTrainedModel, BlipTextConfig, BlipTextModel, BlipVisionModel
from transformers import initialization as init
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention
from transformers.utils import ModelOutput

from madtp_cli.models.attention import Attention, Backend, Statistics, attend
from madtp_cli.models.encoder import BlockPruner, PruningSettings, TokenTrace
from madtp_cli.models.packed import Packed, pack
from madtp_cli.pruning import mag
from madtp_cli.pruning.mag import AlignmentDictionary


class MadtpBlipConfig(BlipConfig):
    """BLIP's configuration, the task, and how to prune.

    `merge_from` is the first text layer with a merge layer; `madtp` holds `PruningSettings`, or
    None for a dense model; `trained_on` names the data set, where the checkpoint says so.
    """

    model_type = "madtp_blip"
    task: str = "nlvr2"
    merge_from: int = 6
    madtp: dict[str, Any] | None = None
    trained_on: str | None = None


class TwinCrossAttention(nn.Module):
    """Cross-attention to two images at once (BLIP's nlvr encoder, keys as there)."""

    def __init__(self, config: BlipTextConfig, *, merge: bool) -> None:
        super().__init__()
        self.self0 = BlipTextSelfAttention(config, is_cross_attention=True)
        self.self1 = BlipTextSelfAttention(config, is_cross_attention=True)
        self.output = TwinOutput(config, merge=merge)

    def forward(self, tokens: Packed, memory: tuple[Packed, Packed], backend: Backend) -> Packed:
        """Text tokens after looking at both images; each image has its own number of tokens."""
        left, right = (
            _attend_text(side, tokens, image, backend).output.flatten(1)
            for side, image in zip((self.self0, self.self1), memory, strict=True)
        )
        return tokens.replace(self.output(left, right, tokens.data))


class TwinOutput(nn.Module):
    """Joins what was seen in the two images: by their mean, or by a learned merge layer."""

    def __init__(self, config: BlipTextConfig, *, merge: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        if merge:
            self.merge_layer = nn.Linear(2 * width, width)
        self.merge = merge

    def forward(self, left: Tensor, right: Tensor, residual: Tensor) -> Tensor:
        left, right = self.dense0(left), self.dense1(right)
        joined = self.merge_layer(torch.cat([left, right], -1)) if self.merge else (left + right) / 2
        return self.LayerNorm(self.dropout(joined) + residual)


def _attend_text(
    module: BlipTextSelfAttention,
    tokens: Packed,
    memory: Packed,
    backend: Backend,
    statistics: Statistics | None = None,
) -> Attention:
    """BERT-style attention from tokens to memory."""
    heads = (module.num_attention_heads, module.attention_head_size)
    query = module.query(tokens.data).unflatten(-1, heads)
    key, value = (layer(memory.data).unflatten(-1, heads) for layer in (module.key, module.value))
    return attend(query, key, value, tokens.lengths, memory.lengths, statistics, backend, memory.sizes)


def _runs(lengths: list[int], size: int) -> list[list[int]]:
    return [lengths[start : start + size] for start in range(0, len(lengths), size)]


@dataclass
class NlvrOutput(ModelOutput):
    """`logits` [sentences, 2] (false, true) and `loss` where labels were given.

    `trace` says which tokens went through each block. `image_state` [pairs, 2, vision width] and
    `text_state` [sentences, text width] are the pooled features that a student is distilled on;
    `image_tokens` are the tower's last (all left images first), `words` [total, layers, text width] the
    text's after each layer, only for teaching and learning and where none was pruned. `alignment` is
    MAG's loss, only in training and where pruning is on.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    alignment: Tensor | None = None
    image_state: Tensor | None = None
    text_state: Tensor | None = None
    image_tokens: Packed | None = None
    words: Packed | None = None
    trace: TokenTrace | None = None


class MadtpBlipForNLVR2(BlipPreTrainedModel):
    """BLIP that judges a sentence about two images; prunes where its config has `madtp`."""

    config: MadtpBlipConfig
    config_class = MadtpBlipConfig  # transformers cannot read the postponed annotation

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_encoder = BlipTextModel(config.text_config, add_pooling_layer=False)
        for number, layer in enumerate(self.text_encoder.encoder.layer):
            layer.crossattention = TwinCrossAttention(config.text_config, merge=number >= config.merge_from)
        width = config.text_config.hidden_size
        self.cls_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
        self.madtp: AlignmentDictionary | None = None
        self.backend: Backend = "auto"
        if config.madtp is not None:
            self.attach(PruningSettings(**config.madtp))
        self.post_init()

    @property
    def pruning(self) -> PruningSettings | None:
        """How this model prunes; None for a dense one."""
        return PruningSettings(**self.config.madtp) if self.config.madtp is not None else None

    @property
    def widths(self) -> dict[str, int]:
        """Width of each tower's tokens."""
        return {"vision": self.config.vision_config.hidden_size, "text": self.config.text_config.hidden_size}

    @property
    def blocks(self) -> dict[str, int]:
        """Blocks of each tower."""
        return {
            "vision": self.config.vision_config.num_hidden_layers,
            "text": self.config.text_config.num_hidden_layers,
        }

    def attach(self, settings: PruningSettings) -> None:
        """Add the dictionary, or change how an attached model prunes (the dictionary stays)."""
        if self.madtp is None:
            own = next(self.parameters())
            dictionary = AlignmentDictionary(self.widths, settings.dictionary_size, settings.dictionary_width)
            self.madtp = dictionary.to(own.device, own.dtype)
        self.config.madtp = asdict(settings)

    def _init_weights(self, module: nn.Module) -> None:
        """Give parameters that a checkpoint lacks their first values; from_pretrained leaves them unset."""
        super()._init_weights(module)
        if isinstance(module, AlignmentDictionary):
            init.normal_(module.dictionary)

    def _pruner(self, tower: str) -> BlockPruner | None:
        if self.madtp is None or self.pruning is None:
            return None
        return BlockPruner(tower, self.pruning, self.madtp, pooling=self.training, backend=self.backend)

    def encode_images(self, pixel_values: Tensor, pruner: BlockPruner | None = None) -> Packed:
        """Image tokens of [images, 3, height, width]; each image keeps its own number."""
        tokens = pack(self.vision_model.embeddings(pixel_values))
        for layer in self.vision_model.encoder.layers:
            normed = layer.layer_norm1(tokens.data)
            qkv = layer.self_attn.qkv(normed).unflatten(-1, (3, layer.self_attn.num_heads, -1))
            statistics = pruner.statistics() if pruner else None
            query, key, value = qkv.unbind(1)
            seen = attend(query, key, value, tokens.lengths, tokens.lengths, statistics, self.backend, tokens.sizes)
            tokens = tokens.replace(tokens.data + layer.self_attn.projection(seen.output.flatten(1)))
            if pruner:
                tokens = pruner.prune(tokens, normed, seen)
            tokens = tokens.replace(tokens.data + layer.mlp(layer.layer_norm2(tokens.data)))
        return tokens.replace(self.vision_model.post_layernorm(tokens.data))

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        memory: tuple[Packed, Packed],
        pruner: BlockPruner | None = None,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Text tokens that have looked at both images.

        `states` collects the tokens after each layer.
        """
        tokens = pack(self.text_encoder.embeddings(input_ids), attention_mask)
        shared = len(tokens.lengths) // len(memory[0].lengths)  # sentences about one pair follow each other
        for layer in self.text_encoder.encoder.layer:
            statistics = pruner.statistics() if pruner else None
            seen = _attend_text(layer.attention.self, tokens, tokens, self.backend, statistics)
            attended = tokens.replace(layer.attention.output(seen.output.flatten(1), tokens.data))
            tokens = pruner.prune(attended, tokens.data, seen) if pruner else attended
            looking = Packed(tokens.data, [sum(run) for run in _runs(tokens.lengths, shared)])
            tokens = tokens.replace(layer.crossattention(looking, memory, self.backend).data)
            tokens = tokens.replace(layer.feed_forward_chunk(tokens.data))
            if states is not None:
                states.append(tokens.data)
        return tokens

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        teach: bool = False,
    ) -> NlvrOutput:
        """Judge each sentence.

        Args:
            pixel_values: [pairs, 2, 3, height, width], left image first.
            input_ids: [sentences, tokens], the first token [ENC]; as many sentences for each
                pair, those of the first pair first.
            attention_mask: [sentences, tokens], 0 at padding; None where there is none.
            labels: [sentences], 1 where the sentence is true.
            teach: Also give `words`, as in training.
        """
        pairs = len(pixel_values)
        vision, text = self._pruner("vision"), self._pruner("text")
        images = self.encode_images(pixel_values.transpose(0, 1).flatten(0, 1), vision)
        memory = images.part(slice(0, pairs)), images.part(slice(pairs, None))
        states: list[Tensor] | None = [] if teach or self.training else None
        tokens = self.encode_text(input_ids, attention_mask, memory, text, states)
        logits = self.cls_head(tokens.first())
        return NlvrOutput(
            loss=functional.cross_entropy(logits.float(), labels) if labels is not None else None,
            logits=logits,
            alignment=self._alignment(vision, text, pairs),
            image_state=images.first().unflatten(0, (2, pairs)).transpose(0, 1),
            text_state=tokens.first(),
            image_tokens=images,
            words=Packed(torch.stack(states, 1), tokens.lengths)
            if states and len(set(map(len, states))) == 1
            else None,
            trace={"vision": vision.blocks, "text": text.blocks} if vision and text else None,
        )

    def _alignment(self, vision: BlockPruner | None, text: BlockPruner | None, pairs: int) -> Tensor | None:
        """MAG's loss between a pair's images (their mean, as in the original) and its sentence."""
        if self.madtp is None or vision is None or text is None or vision.pooled is None or text.pooled is None:
            return None
        seen = self.madtp.project("vision", vision.pooled.unflatten(0, (2, pairs)).mean(0))
        said = self.madtp.project("text", text.pooled)
        return mag.alignment_loss(seen.repeat_interleave(len(said) // pairs, 0), said)
