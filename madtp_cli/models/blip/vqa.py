"""BLIP for visual question answering, on packed tokens.

The state-dict keys are those of transformers' BlipForQuestionAnswering. That class lets its decoder attend to the
padding of questions, cannot rank answers, and expects the caller to begin a question with [ENC].
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import BlipTextModel, BlipVisionModel

from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import OnTextRun, TextRun, ignore_text_run
from madtp_cli.models.blip.decoding import (
    IGNORED,
    DecodedOutput,
    DecodingBlip,
    build_decoder,
    next_token_logits,
    sum_per_text,
    token_losses,
)
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.prunable import DistillationTargets, stack_states

#: Number of answers that the original code scores in full: those with the most likely first word.
RANKED = 128
#: Tokens of a one-word answer: [DEC], the word, [SEP].
SHORT_ANSWER = 3


class MadtpBlipForQuestionAnswering(DecodingBlip):
    """BLIP that answers questions about images.

    The question attends to the image. The answer attends only to the question.
    """

    TEXT_TOKENS = 14

    GENERATION_DEFAULTS: ClassVar[dict[str, int]] = {"num_beams": 3, "max_length": 10, "min_length": 1}

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_encoder = BlipTextModel(config.text_config, add_pooling_layer=False)
        self.text_decoder = build_decoder(config.text_config, config.text_config.hidden_size)
        self.prepare()
        self.post_init()

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Return one blank image, one question of this length, and an answer of one word."""
        answer = torch.ones(1, SHORT_ANSWER, dtype=torch.long)
        return {**super().dummy_inputs(text_tokens), "decoder_input_ids": answer, "decoder_attention_mask": answer}

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> DecodedOutput:
        """Predict the token that follows each token of each answer; logits are [all answer tokens, vocabulary].

        The loss of an answer is the sum over its tokens, that of a batch the mean over its answers.

        Args:
            pixel_values: [samples, 3, height, width].
            input_ids: Questions, [samples, tokens], the first token [ENC].
            attention_mask: [samples, tokens], 0 at padding; None where there is no padding.
            decoder_input_ids: Answers, [samples, tokens], the first token [DEC], the last [SEP]. None for [DEC] alone.
            decoder_attention_mask: Mask of the answers, [samples, tokens], 0 at padding.
            labels: [samples, tokens], the answers again, with -100 at padding.
            return_targets: Whether to return distillation targets outside training too.
        """
        vision, text, decoder = self.pruner("vision"), self.pruner("text"), self.decoder_pruner()
        states: list[Tensor] | None = [] if return_targets or self.training else None
        images = self.encode_images(pixel_values, vision)
        questions = self._encode_questions(images, input_ids, attention_mask, text, states)
        answers = self.first_tokens(input_ids) if decoder_input_ids is None else decoder_input_ids
        logits = self.decode(answers, decoder_attention_mask, questions, decoder)
        loss = None if labels is None else sum_per_text(token_losses(logits, labels, decoder_attention_mask)).mean()
        words = stack_states(states, questions, text.blocks)
        return DecodedOutput(
            loss=loss,
            logits=logits.data,
            alignment=self.alignment_loss(vision.pooled, text.pooled),
            targets=None if words is None else self._targets(logits, images, questions, words),
            trace={"vision": vision.blocks, "text": text.blocks, "decoder": decoder.blocks},
            memory=questions,
        )

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None, **settings: Any
    ) -> Tensor:
        """Generate an answer to each question, by default with three beams.

        Args:
            input_ids: Questions, as in `forward`. The first token is replaced by [ENC], the last word piece, since
                transformers' processor begins a text with [CLS].
            pixel_values: As in `forward`.
            attention_mask: As in `forward`.
            settings: Settings of transformers' `generate`.

        Returns:
            Tokens, [samples, tokens], the first token [DEC].
        """
        input_ids = torch.cat(
            [torch.full_like(input_ids[:, :1], self.config.text_config.vocab_size - 1), input_ids[:, 1:]], 1
        )
        images = self.encode_images(pixel_values, self.pruner("vision"))
        questions = self._encode_questions(images, input_ids, attention_mask, self.pruner("text"))
        return self.generate_from(questions, **settings)

    def rank(
        self,
        questions: Packed,
        answers: Tensor,
        attention_mask: Tensor | None = None,
        most: int = RANKED,
        on_text_run: OnTextRun = ignore_text_run,
    ) -> Tensor:
        """Choose the best answer of a list for each question.

        First the answers are ordered by the probability of their first word. Then the first `most` of them are scored
        in full. Of answers with equal scores the first is chosen.

        Args:
            questions: `memory` of the forward's output.
            answers: [answers, tokens], [DEC] first and [SEP] last.
            attention_mask: [answers, tokens], 0 at padding; None where there is no padding.
            most: Number of answers that are scored in full.
            on_text_run: Called with the run of the first words, and with one run per question.

        Returns:
            Numbers of the answers, [samples].
        """
        pruner, samples = self.decoder_pruner(), len(questions.lengths)
        first = self.decode(answers[:1, :1].expand(samples, 1), None, questions, pruner).data
        on_text_run(TextRun(range(samples), [1] * samples, pruner.blocks, read_out=samples))
        ordered = first[:, answers[:, 1]].argsort(dim=1, descending=True, stable=True)[:, :most]
        best = []
        for sample, candidates in enumerate(ordered):
            mask = None if attention_mask is None else attention_mask[candidates]
            pruner = self.decoder_pruner()
            scores = self.scores(questions.part(slice(sample, sample + 1)), answers[candidates], mask, pruner)
            on_text_run(TextRun([sample], [len(candidates)], pruner.blocks, read_out=sum(pruner.blocks[-1].left)))
            best.append(candidates[scores.argmax()])
        return torch.stack(best)

    def scores(
        self,
        question: Packed,
        answers: Tensor,
        attention_mask: Tensor | None = None,
        pruner: BlockPruner | None = None,
    ) -> Tensor:
        """Return the log-likelihood score of each answer to one question, [answers]: its negative loss."""
        logits = self.decode(answers, attention_mask, question, pruner or self.decoder_pruner())
        labels = answers if attention_mask is None else answers.masked_fill(attention_mask == 0, IGNORED)
        return -sum_per_text(token_losses(logits, labels, attention_mask))

    def _encode_questions(
        self,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        text: BlockPruner,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Run the text encoder on the questions, with cross-attention to their images."""
        cross_attention = self.cross_attention_to(images)
        return self.encode_text(self.text_encoder, input_ids, attention_mask, text, cross_attention, states)

    @staticmethod
    def _targets(logits: Packed, images: Packed, questions: Packed, words: Packed) -> DistillationTargets:
        return {
            "logits": next_token_logits(logits),
            "state.image": images.first(),
            "state.question": questions.first(),
            "tokens.vision": images,
            "words.text": words,
        }


MODEL = MadtpBlipForQuestionAnswering
