"""BLIP's text decoder: teacher-forced on packed tokens, and writing by transformers' generation.

transformers' decoder drops the mask of what it looks at, so samples with unlike numbers of image or question
tokens would see each other's padding. Here what is looked at is packed and has none.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import BlipTextConfig, BlipTextLMHeadModel, GenerationMixin
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from madtp_cli.execution.attention import Backend, attend
from madtp_cli.execution.block_pruner import BlockPruner, PruningSettings
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import OnTextRun, TextRun, ignore_text_run
from madtp_cli.models.blip.towers import Look, MadtpBlipConfig, PrunableBlip
from madtp_cli.models.prunable import PrunedOutput, untouched

#: BLIP's, in training and in ranking; configs of published checkpoints say 0, transformers' default.
LABEL_SMOOTHING = 0.1
#: Label of a token that is not to be predicted.
IGNORED = -100


@dataclass
class DecodedOutput(PrunedOutput):
    """`logits` are [all tokens, vocabulary], sample after sample without padding.

    `memory` is what the decoder looked at: `write` and `rank` go on from it without the encoders.
    """

    memory: Packed | None = None


class Memory:
    """Tokens that a decoder looks at while it writes; each layer computes their keys and values once per sample.

    All beams of a sample share them, and they are no part of the cache that beam search reorders.
    `heard` is told of each step of a decoder with so many `blocks`.
    """

    def __init__(
        self, tokens: Packed, backend: Backend, on_text_run: OnTextRun = ignore_text_run, blocks: int = 0
    ) -> None:
        self.tokens, self.backend, self.on_text_run, self.blocks = tokens, backend, on_text_run, blocks
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def step(self, texts: int, tokens: int, before: int) -> None:
        """A step begins, in which each of so many texts goes on by some tokens and gets a logit for each next word."""
        samples = len(self.tokens.lengths)
        self.on_text_run(
            TextRun(
                range(samples),
                [texts // samples] * samples,
                untouched([tokens] * texts, self.blocks),
                read_out=texts,
                before=before,
                keyed=not self._kept,
            )
        )

    def keys_and_values(self, attention: BlipTextSelfAttention) -> tuple[Tensor, Tensor]:
        """Of one layer, each [total, heads, head width]."""
        if attention.layer_idx not in self._kept:
            heads = (attention.num_attention_heads, attention.attention_head_size)
            key, value = (
                self.tokens.apply_rowwise(layer, self.tokens.data).unflatten(-1, heads)
                for layer in (attention.key, attention.value)
            )
            self._kept[attention.layer_idx] = key, value
        return self._kept[attention.layer_idx]


class MemoryAttention(BlipTextSelfAttention):
    """Cross-attention that takes a `Memory`, or padded states of which it heeds the mask."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | Memory | None = None,
        **settings: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """What the texts [texts, tokens, width] see; those of the first sample come first, as many for each."""
        if not isinstance(encoder_hidden_states, Memory):
            # Stock layers give the memory's mask under this name and look for it under another.
            given = {"encoder_attention_mask": attention_mask, **settings}
            return super().forward(hidden_states, encoder_hidden_states=encoder_hidden_states, **given)
        memory = encoder_hidden_states.tokens
        if self.layer_idx == 0:
            texts, tokens, _ = hidden_states.shape
            cache = settings.get("past_key_values")  # which has this step's tokens already
            encoder_hidden_states.step(texts, tokens, int(cache.get_seq_length()) - tokens if cache is not None else 0)
        heads = (self.num_attention_heads, self.attention_head_size)
        query = self.query(hidden_states).flatten(0, 1).unflatten(-1, heads)
        samples = len(memory.lengths)
        seen = attend(
            query,
            *encoder_hidden_states.keys_and_values(self),
            [len(query) // samples] * samples,
            memory.lengths,
            backend=encoder_hidden_states.backend,
            sizes=memory.sizes,
        )
        return seen.output.flatten(1).view_as(hidden_states), None


def decoder(config: BlipTextConfig, memory_width: int) -> BlipTextLMHeadModel:
    """A decoder that looks at memory of this width, with the keys of transformers' own.

    transformers gives every decoder the image's width, also VQA's, which looks at question states.
    """
    config = copy.deepcopy(config)
    config.encoder_hidden_size = memory_width
    made = BlipTextLMHeadModel(config)
    for number, layer in enumerate(made.bert.encoder.layer):
        layer.crossattention.self = MemoryAttention(config, is_cross_attention=True, layer_idx=number)
    return made


class DecodingBlip(PrunableBlip, GenerationMixin):
    """A BLIP with a text decoder, which is never pruned; what it looks at is.

    Make `text_decoder` with `decoder`, and begin a text with [DEC].
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
        "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    }
    #: How the original writes; lengths are in tokens, the prompt's among them.
    WRITING: ClassVar[dict[str, int]] = {}

    text_decoder: BlipTextLMHeadModel

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.generation_config.update(**self.WRITING)

    def unpruned(self) -> BlockPruner:
        """For one forward of the decoder: it prunes nothing and keeps the record."""
        return BlockPruner("decoder", PruningSettings(), None, pooling=False, backend=self.backend)

    def decode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        memory: Packed,
        record: BlockPruner,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Logits of what follows each token of [texts, tokens], as many texts for each sample of the memory."""
        look = self._sharing(self.looking_at(memory), memory)
        words = self.encode_text(self.text_decoder.bert, input_ids, attention_mask, record, look, states, causal=True)
        return words.replace(self.text_decoder.cls(words.data))

    def write(
        self, memory: Packed, prompt: Tensor | None = None, *, on_text_run: OnTextRun = ignore_text_run, **settings: Any
    ) -> Tensor:
        """Go on from a prompt [1 or samples, tokens], [DEC] if None; [samples, tokens], padded, the prompt's too.

        Args:
            memory: What each sample's text is about.
            prompt: Its first tokens.
            heard: Told of each step.
            settings: Of transformers' `generate`, beside this model's `generation_config`.
        """
        words = self.config.text_config
        if prompt is None:
            prompt = torch.full((1, 1), words.bos_token_id, device=memory.data.device)
        prompt = prompt.expand(len(memory.lengths), -1)
        writing = copy.deepcopy(settings.pop("generation_config", self.generation_config))
        if "max_new_tokens" in settings:
            writing.max_length = None
        # One logit a text and step, as `Memory.step` says.
        told = {"eos_token_id": words.sep_token_id, "pad_token_id": words.pad_token_id, "logits_to_keep": 1} | settings
        others = writing.update(**told)
        return self.text_decoder.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            encoder_hidden_states=Memory(memory, self.backend, on_text_run, words.num_hidden_layers),
            generation_config=writing,
            **others,
        )

    @staticmethod
    def _sharing(look: Look, memory: Packed) -> Look:
        """Texts about one sample lie together, and so ask as one."""

        def shared(layer: Any, tokens: Packed) -> Tensor:
            return look(layer, tokens.group_by_memory(memory))

        return shared


def token_losses(logits: Packed, labels: Tensor, attention_mask: Tensor | None) -> Packed:
    """Label-smoothed cross entropy of each token's successor, 0 where that is not to be predicted.

    Args:
        logits: From `DecodingBlip.decode`.
        labels: [texts, tokens], the tokens themselves, or -100.
        attention_mask: [texts, tokens], 0 at padding; None where there is none.
    """
    following = _packed(functional.pad(labels[:, 1:], (0, 1), value=IGNORED), attention_mask)
    losses = functional.cross_entropy(
        logits.data.float(), following, ignore_index=IGNORED, label_smoothing=LABEL_SMOOTHING, reduction="none"
    )
    return logits.replace(losses)


def sums(tokens: Packed) -> Tensor:
    """Of each segment of [total] numbers."""
    return torch.stack([part.sum() for part in tokens.data.split(list(tokens.lengths))])


def next_token_logits(logits: Packed) -> Packed:
    """Without each text's last token, which nothing follows: what there is to learn from."""
    last = torch.tensor(logits.lengths, device=logits.data.device).cumsum(0) - 1
    real = torch.ones(len(logits.data), dtype=torch.bool, device=logits.data.device)
    real[last] = False
    return Packed(logits.data[real], [length - 1 for length in logits.lengths])


def _packed(padded: Tensor, mask: Tensor | None) -> Tensor:
    return padded.flatten() if mask is None else padded[mask.bool()]
