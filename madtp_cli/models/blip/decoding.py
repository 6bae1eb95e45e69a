"""BLIP's text decoder: teacher-forced on packed tokens, and generation by transformers.

The tokens that a decoder attends to are its memory: image tokens for captions, question tokens for answers.
transformers' decoder ignores the mask of the memory, so samples with different numbers of memory tokens would attend to
padding. Here the memory is packed and has no padding.
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
from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.block_trace import BlockTrace
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import OnTextRun, TextRun, ignore_text_run
from madtp_cli.models.blip.beam_search import OriginalBeamSearch
from madtp_cli.models.blip.towers import CrossAttention, MadtpBlipConfig, PrunableBlip
from madtp_cli.models.prunable import PrunedOutput

#: BLIP's label smoothing, in training and in ranking. Configurations of published checkpoints state transformers'
#: default, 0.
LABEL_SMOOTHING = 0.1
#: Label of a token that the loss ignores.
IGNORED = -100


@dataclass
class DecodedOutput(PrunedOutput):
    """Output of a model with a decoder.

    `logits` are [all tokens, vocabulary], sample after sample without padding. `memory` holds the tokens that the
    decoder attends to; `generate_from` and `rank` take it and do not run the encoders again.
    """

    memory: Packed | None = None


class Memory:
    """The tokens that a decoder attends to during generation, with the keys and values of each layer.

    Keys and values are computed once per sample. All beams of a sample share them, and they are not part of the cache
    that beam search reorders.

    Args:
        tokens: The tokens of each sample.
        backend: See `execution.attention.attend`.
        on_text_run: Called with each step of the decoder.
        blocks: Number of the decoder's blocks.
    """

    def __init__(
        self, tokens: Packed, backend: Backend, on_text_run: OnTextRun = ignore_text_run, blocks: int = 0
    ) -> None:
        self.tokens, self.backend, self.on_text_run, self.blocks = tokens, backend, on_text_run, blocks
        self._keys_and_values: dict[int, tuple[Tensor, Tensor]] = {}

    def report_step(self, texts: int, tokens: int, cached: int) -> None:
        """Report the start of a step to `on_text_run`. The step reads one logit per text from the decoder.

        Args:
            texts: Number of texts, all beams included.
            tokens: Number of new tokens of each text.
            cached: Number of tokens of each text that are in the cache.
        """
        samples, lengths = len(self.tokens.lengths), [tokens] * texts
        self.on_text_run(
            TextRun(
                range(samples),
                [texts // samples] * samples,
                [BlockTrace(lengths, lengths)] * self.blocks,
                read_out=texts,
                cached=cached,
                new_keys=not self._keys_and_values,
            )
        )

    def keys_and_values(self, attention: BlipTextSelfAttention) -> tuple[Tensor, Tensor]:
        """Return the keys and values of one layer, each [total, heads, head width]."""
        if attention.layer_idx not in self._keys_and_values:
            heads = (attention.num_attention_heads, attention.attention_head_size)
            key, value = (
                self.tokens.apply_rowwise(layer, self.tokens.data).unflatten(-1, heads)
                for layer in (attention.key, attention.value)
            )
            self._keys_and_values[attention.layer_idx] = key, value
        return self._keys_and_values[attention.layer_idx]


class MemoryAttention(BlipTextSelfAttention):
    """Cross-attention to a `Memory`, or to padded states, whose mask it applies."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | Memory | None = None,
        **settings: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attention output for texts [texts, tokens, width].

        Every sample has the same number of texts; the texts of the first sample come first. The other arguments are
        those of transformers' layer.
        """
        if not isinstance(encoder_hidden_states, Memory):
            # transformers' layer passes the memory's mask as `attention_mask` but applies `encoder_attention_mask`.
            masks = {"encoder_attention_mask": attention_mask, **settings}
            return super().forward(hidden_states, encoder_hidden_states=encoder_hidden_states, **masks)
        memory = encoder_hidden_states.tokens
        if self.layer_idx == 0:
            texts, tokens, _ = hidden_states.shape
            # It already has the tokens of this step. transformers before 5.24 calls it past_key_values.
            cache = settings.get("cache", settings.get("past_key_values"))
            cached = int(cache.get_seq_length()) - tokens if cache is not None else 0
            encoder_hidden_states.report_step(texts, tokens, cached)
        heads = (self.num_attention_heads, self.attention_head_size)
        query = self.query(hidden_states).flatten(0, 1).unflatten(-1, heads)
        samples = len(memory.lengths)
        attention = attend(
            query,
            *encoder_hidden_states.keys_and_values(self),
            [len(query) // samples] * samples,
            memory.lengths,
            backend=encoder_hidden_states.backend,
            sizes=memory.sizes,
        )
        return attention.output.flatten(1).view_as(hidden_states), None


def build_decoder(config: BlipTextConfig, memory_width: int) -> BlipTextLMHeadModel:
    """Build a decoder that attends to a memory of this width. It has transformers' state-dict keys.

    transformers gives every decoder the width of the image tower, also that of VQA, which attends to question tokens.
    """
    config = copy.deepcopy(config)
    config.encoder_hidden_size = memory_width
    decoder = OriginalBeamSearch(config)
    for number, layer in enumerate(decoder.bert.encoder.layer):
        layer.crossattention.self = MemoryAttention(config, is_cross_attention=True, layer_idx=number)
    return decoder


class DecodingBlip(PrunableBlip, GenerationMixin):
    """A BLIP with a text decoder. The decoder is never pruned; its memory is.

    Subclasses make `text_decoder` with `build_decoder`. The decoder's texts begin with [DEC].
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
        "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    }
    #: Generation settings of the original code. Lengths are in tokens and include the prompt.
    GENERATION_DEFAULTS: ClassVar[dict[str, int]] = {}

    text_decoder: BlipTextLMHeadModel

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.generation_config.update(**self.GENERATION_DEFAULTS)
        positions = config.text_config.max_position_embeddings
        self.generation_config.max_length = min(self.generation_config.max_length, positions)

    def decoder_pruner(self) -> BlockPruner:
        """Return an object that prunes nothing and records the token counts of one forward of the decoder."""
        return self.unpruned("decoder")

    def first_tokens(self, texts: Tensor) -> Tensor:
        """Return [DEC] for each of the texts [texts, tokens], as [texts, 1]."""
        return texts.new_full((len(texts), 1), self.config.text_config.bos_token_id)

    def decode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        memory: Packed,
        pruner: BlockPruner,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Return the logits of the token that follows each token of the texts.

        Args:
            input_ids: [texts, tokens]. Every sample has the same number of texts; those of the first sample come first.
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            memory: The tokens that the texts attend to, one segment per sample.
            pruner: From `decoder_pruner`.
            states: The states after each layer are appended to this list.
        """
        cross_attention = self._group_texts(self.cross_attention_to(memory), memory)
        bert = self.text_decoder.bert
        tokens = self.encode_text(bert, input_ids, attention_mask, pruner, cross_attention, states, causal=True)
        return tokens.replace(self.text_decoder.cls(tokens.data))

    def generate_from(
        self, memory: Packed, prompt: Tensor | None = None, *, on_text_run: OnTextRun = ignore_text_run, **settings: Any
    ) -> Tensor:
        """Generate a text for each sample of a memory.

        Args:
            memory: The tokens that the texts attend to, from the forward.
            prompt: First tokens of the texts, [1 or samples, tokens]; [DEC] if None.
            on_text_run: Called with each step.
            settings: Settings of transformers' `generate`. They override this model's `generation_config`.

        Returns:
            Tokens, [samples, tokens], padded; the prompt is included.
        """
        text_config = self.config.text_config
        if prompt is None:
            prompt = torch.full((1, 1), text_config.bos_token_id, device=memory.data.device)
        prompt = prompt.expand(len(memory.lengths), -1)
        generation = copy.deepcopy(settings.pop("generation_config", self.generation_config))
        if "max_new_tokens" in settings:
            generation.max_length = None
        ids = {"eos_token_id": text_config.sep_token_id, "pad_token_id": text_config.pad_token_id}
        # One logit per text and step, as `Memory.report_step` reports.
        others = generation.update(**(ids | {"logits_to_keep": 1} | settings))
        return self.text_decoder.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            encoder_hidden_states=Memory(memory, self.backend, on_text_run, text_config.num_hidden_layers),
            generation_config=generation,
            **others,
        )

    @staticmethod
    def _group_texts(cross_attention: CrossAttention, memory: Packed) -> CrossAttention:
        """Let the texts of one sample, which are neighbours, attend as one segment."""

        def cross_attend(layer: Any, tokens: Packed) -> Tensor:
            return cross_attention(layer, tokens.group_by_memory(memory))

        return cross_attend


def token_losses(logits: Packed, labels: Tensor, attention_mask: Tensor | None) -> Packed:
    """Return the label-smoothed cross entropy of the token after each token, 0 where its label is ignored.

    Args:
        logits: From `DecodingBlip.decode`.
        labels: [texts, tokens], the tokens themselves, or -100.
        attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
    """
    following = _packed(functional.pad(labels[:, 1:], (0, 1), value=IGNORED), attention_mask)
    losses = functional.cross_entropy(
        logits.data.float(), following, ignore_index=IGNORED, label_smoothing=LABEL_SMOOTHING, reduction="none"
    )
    return logits.replace(losses)


def sum_per_text(values: Packed) -> Tensor:
    """Return the sum of each segment of [total] numbers."""
    return torch.stack([part.sum() for part in values.data.split(list(values.lengths))])


def next_token_logits(logits: Packed) -> Packed:
    """Return the logits without those of each text's last token, which no token follows."""
    last = torch.tensor(logits.lengths, device=logits.data.device).cumsum(0) - 1
    kept = torch.ones(len(logits.data), dtype=torch.bool, device=logits.data.device)
    kept[last] = False
    return Packed(logits.data[kept], [length - 1 for length in logits.lengths])


def _packed(padded: Tensor, mask: Tensor | None) -> Tensor:
    return padded.flatten() if mask is None else padded[mask.bool()]
