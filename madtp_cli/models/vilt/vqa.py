"""ViLT for visual question answering: it chooses from a fixed list of answers.

The state-dict keys are those of transformers' ViltForQuestionAnswering.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.models.prunable import DistillationTargets, PrunedOutput
from madtp_cli.models.vilt.towers import MadtpViltConfig, PrunableVilt, classifier


class MadtpViltForQuestionAnswering(PrunableVilt):
    """ViLT that answers a question about an image."""

    def __init__(self, config: MadtpViltConfig) -> None:
        super().__init__(config)
        width = config.vision_config.hidden_size
        self.classifier = classifier(width, 2 * width, len(config.answers or []))
        self.prepare()
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> PrunedOutput:
        """Score the answers; logits are [questions, answers], in the order of the configuration's `answers`.

        Args:
            pixel_values: [questions, 3, height, width].
            input_ids: [questions, tokens].
            attention_mask: [questions, tokens], 0 at padding; None where there is no padding.
            pixel_mask: [questions, height, width], 0 at padding; None where there is no padding.
            labels: [questions, answers], the score of each answer, 0 to 1.
            token_type_ids: Not used; BERT's tokenizer returns zeros.
            return_targets: Whether to return distillation targets outside training too.
        """
        pruner, kinds = self.pruner("vision"), torch.ones_like(input_ids[:, 0])
        tokens, words = self.encode((pixel_values, pixel_mask), (input_ids, attention_mask), pruner, kinds)
        pooled = self.vilt.pooler.activation(self.vilt.pooler.dense(tokens.first()))
        logits, loss = self.classifier(pooled), None
        if labels is not None:
            loss = functional.binary_cross_entropy_with_logits(logits.float(), labels.float()) * labels.shape[1]
        targets: DistillationTargets | None = None
        if return_targets or self.training:
            targets = {"logits": logits, "state.text": pooled, "tokens.vision": tokens}
        return PrunedOutput(
            loss=loss,
            logits=logits,
            alignment=self.alignment(pruner, words),
            targets=targets,
            trace={"vision": pruner.blocks, "text": self.word_trace(input_ids, attention_mask)},
        )


MODEL = MadtpViltForQuestionAnswering
