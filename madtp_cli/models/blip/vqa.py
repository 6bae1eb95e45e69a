"""BLIP for visual question answering, run on packed tokens.

The keys are those of transformers' BlipForQuestionAnswering, which lets its decoder see a question's padding,
knows no ranking, and leaves to its caller to begin a question with [ENC].
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
    decoder,
    next_token_logits,
    sums,
    token_losses,
)
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.prunable import DistillationTargets, layered

#: Answers that the original scores in full, those with the likeliest first word.
RANKED = 128
#: Tokens of a one-word answer: [DEC], the word, [SEP].
SHORT_ANSWER = 3


class MadtpBlipForQuestionAnswering(DecodingBlip):
    """BLIP that answers a question about an image; prunes where its config has `madtp`.

    The question looks at the image, the answer at the question alone.
    """

    TEXT_TOKENS = 14

    WRITING: ClassVar[dict[str, int]] = {"num_beams": 3, "max_length": 10, "min_length": 1}

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_encoder = BlipTextModel(config.text_config, add_pooling_layer=False)
        self.text_decoder = decoder(config.text_config, config.text_config.hidden_size)
        self.prepare()
        self.post_init()

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """One image, one question, and an answer of one word."""
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
        """What follows each token of each answer; logits are [all answer tokens, vocabulary].

        The loss is that of each answer, summed over its tokens, mean over the answers.

        Args:
            pixel_values: [samples, 3, height, width].
            input_ids: Questions [samples, tokens], the first token [ENC].
            attention_mask: [samples, tokens], 0 at padding; None where there is none.
            decoder_input_ids: Answers [samples, tokens], the first token [DEC], the last [SEP];
                [DEC] alone if None.
            decoder_attention_mask: [samples, tokens], as the questions' mask.
            labels: [samples, tokens], the answers again, -100 where nothing is to be predicted.
            teach: Also give the lesson, as in training.
        """
        vision, text, record = self.pruner("vision"), self.pruner("text"), self.unpruned()
        states: list[Tensor] | None = [] if return_targets or self.training else None
        images = self.encode_images(pixel_values, vision)
        questions = self._read(images, input_ids, attention_mask, text, states)
        if decoder_input_ids is None:
            decoder_input_ids = input_ids.new_full((input_ids.shape[0], 1), self.config.text_config.bos_token_id)
        logits = self.decode(decoder_input_ids, decoder_attention_mask, questions, record)
        loss = None
        if labels is not None:
            loss = sums(token_losses(logits, labels, decoder_attention_mask)).mean()
        return DecodedOutput(
            loss=loss,
            logits=logits.data,
            alignment=self.aligned(vision.pooled, text.pooled),
            targets=self._lesson(logits, images, questions, states) if states is not None else None,
            trace={"vision": vision.blocks, "text": text.blocks, "decoder": record.blocks},
            memory=questions,
        )

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None, **settings: Any
    ) -> Tensor:
        """Write an answer to each question, by three beams unless told; [samples, tokens], the first [DEC].

        Args:
            input_ids: Questions, as in `forward`; whatever begins them is replaced by [ENC], the last word piece,
                which transformers' processor does not put there.
            pixel_values: As in `forward`.
            attention_mask: As in `forward`.
            settings: Of transformers' `generate`.
        """
        input_ids = torch.cat(
            [torch.full_like(input_ids[:, :1], self.config.text_config.vocab_size - 1), input_ids[:, 1:]], 1
        )
        images = self.encode_images(pixel_values, self.pruner("vision"))
        questions = self._read(images, input_ids, attention_mask, self.pruner("text"))
        return self.write(questions, **settings)

    def rank(
        self,
        questions: Packed,
        answers: Tensor,
        attention_mask: Tensor | None = None,
        most: int = RANKED,
        on_text_run: OnTextRun = ignore_text_run,
    ) -> Tensor:
        """The best of a list of answers for each question, its number, [samples].

        The `most` answers whose first word is likeliest are scored in full; of equal ones the first counts.

        Args:
            questions: `memory` of the forward's output.
            answers: [answers, tokens], [DEC] first and [SEP] last.
            attention_mask: [answers, tokens], 0 at padding; None where there is none.
            most: How many are scored in full.
            heard: Told of the first words' run, and of one for each question.
        """
        record, samples = self.unpruned(), len(questions.lengths)
        first = self.decode(answers[:1, :1].expand(samples, 1), None, questions, record).data
        on_text_run(TextRun(range(samples), [1] * samples, record.blocks, read_out=samples))
        likeliest = first[:, answers[:, 1]].argsort(dim=1, descending=True, stable=True)[:, :most]
        best = []
        for sample, own in enumerate(likeliest):
            mask = None if attention_mask is None else attention_mask[own]
            record = self.unpruned()
            scores = self.scores(questions.part(slice(sample, sample + 1)), answers[own], mask, record)
            on_text_run(TextRun([sample], [len(own)], record.blocks, read_out=sum(record.blocks[-1].left)))
            best.append(own[scores.argmax()])
        return torch.stack(best)

    def scores(
        self,
        question: Packed,
        answers: Tensor,
        attention_mask: Tensor | None = None,
        record: BlockPruner | None = None,
    ) -> Tensor:
        """How likely each of some answers is to one question, [answers]: the loss of each, negated."""
        logits = self.decode(answers, attention_mask, question, record or self.unpruned())
        labels = answers if attention_mask is None else answers.masked_fill(attention_mask == 0, IGNORED)
        return -sums(token_losses(logits, labels, attention_mask))

    def _read(
        self,
        images: Packed,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        text: BlockPruner,
        states: list[Tensor] | None = None,
    ) -> Packed:
        """Question tokens after looking at their images."""
        return self.encode_text(self.text_encoder, input_ids, attention_mask, text, self.looking_at(images), states)

    @staticmethod
    def _lesson(logits: Packed, images: Packed, questions: Packed, states: list[Tensor]) -> DistillationTargets:
        targets: DistillationTargets = {
            "logits": next_token_logits(logits),
            "state.image": images.first(),
            "state.question": questions.first(),
            "tokens.vision": images,
        }
        words = layered(states, questions)
        return targets if words is None else {**targets, "words.text": words}


MODEL = MadtpBlipForQuestionAnswering
