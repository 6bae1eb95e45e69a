"""A checkpoint, its data and a place to compute, laid out for the commands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from madtp_cli import models, tasks
from madtp_cli.checkpoint import load as loading
from madtp_cli.compression import distillation
from madtp_cli.config import RunSettings
from madtp_cli.data import SPLITS, Dataset, Row
from madtp_cli.data import read as read_data
from madtp_cli.data.batches import batches
from madtp_cli.data.caption_sampling import Retold
from madtp_cli.errors import DataError, UsageError
from madtp_cli.evaluation import run, sample_costs, timing
from madtp_cli.evaluation.intervals import (
    interval95,
    mean_interval95,
    paired_interval95,
    paired_mean_interval95,
    relative_interval95,
)
from madtp_cli.evaluation.run import Batch, ComputeConfig, Measured
from madtp_cli.models.architectures import ARCHITECTURES
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import AGREEMENT, ChangePart, QualityPart
from madtp_cli.tasks import Task

#: What `examples/*.pt` say they were trained on; for them the scenes' labels mean something.
SCENES = "madtp scenes"
#: Samples whose cost stands for a split's while a budget is searched.
CALIBRATION_SAMPLES = 256
#: Prepared batches kept in memory rather than made anew for each pass, in bytes of all splits together.
KEPT_BATCHES = 2**30


@dataclass
class Session:
    """What a command works on; `labelled` says whether the rows' labels fit what the model was taught."""

    model: Prunable
    processor: Any
    task: Task
    data: Dataset
    compute: ComputeConfig
    settings: RunSettings
    progress: ProgressReporter
    labelled: bool
    _kept: dict[str, list[Batch]] = field(default_factory=dict)

    @classmethod
    def open(
        cls, source: Path, settings: RunSettings, progress: ProgressReporter, splits: Sequence[str] = SPLITS
    ) -> Session:
        """Load a checkpoint and find its data.

        Raises:
            CheckpointError, DataError, UsageError: Something given cannot be used.
        """
        compute = ComputeConfig.of(settings.device, settings.dtype)
        if settings.task is not None:
            tasks.get(settings.task)
        model, processor = load(source, settings, progress)
        if settings.task not in (None, model.config.task):
            raise UsageError(
                f"{source} was made for {model.config.task}, not for {settings.task}.\n"
                f"Leave --task out, or give a checkpoint for {settings.task}."
            )
        dataset = read_data(settings.data, model.config.task, splits, settings.image_root)
        for note in dataset.notes:
            progress.message(note)
        labelled = settings.data is not None or model.config.trained_on == SCENES
        return cls(
            model.to(compute.device),
            processor,
            tasks.prepared(model.config.task, processor, dataset, settings.k_test),
            dataset,
            compute,
            settings,
            progress,
            labelled,
        )

    def rows(self, split: str, limit: int | None = None) -> Sequence[Row]:
        """A split's rows, at most `limit` and at most the settings' own limit."""
        rows = self.data.split(split)
        limits = [number for number in (limit, self.settings.limit) if number is not None]
        return rows[: min(limits)] if limits else rows

    def batches(self, split: str, limit: int | None = None) -> Iterable[Batch]:
        """A split's batches in order; kept for the next pass where memory allows."""
        rows = self.rows(split, limit)
        if not len(rows):
            raise DataError(f"The {split} split of {self.data.source} is empty.\nGive data with samples in it.")
        key = f"{split}/{len(rows)}"
        return self._kept[key] if key in self._kept else self._keeping(key, len(rows), self._made(rows))

    def _keeping(self, key: str, samples: int, made: Iterator[Batch]) -> Iterator[Batch]:
        """The batches as they are made; if they are few enough, they stay for whoever asks next."""
        kept: list[Batch] | None = []
        room = KEPT_BATCHES - sum(_bytes(batch) for others in self._kept.values() for batch in others)
        for batch in made:
            if kept is not None and _bytes(batch) / len(batch["pixel_values"]) * samples > room:
                kept = None
            if kept is not None:
                kept.append(batch)
            yield batch
        if kept is not None:
            self._kept[key] = kept

    def _made(self, rows: Sequence[Row], seed: str | None = None) -> Iterator[Batch]:
        workers = self.settings.workers
        made = batches(rows, self.task, self.processor, batch_size=self.settings.batch_size, seed=seed, workers=workers)
        for batch in made:
            yield batch if self.labelled else {name: value for name, value in batch.items() if name != "labels"}

    def training_batches(self, samples: int | None = None) -> Iterator[Batch]:
        """Shuffled batches of train samples on the device, pass after pass, each with one of its captions.

        Of the first `samples` it is the same in each pass, so that the dense model is asked once; of all,
        where no number is given, another one.
        """
        rows, seed = self.rows("train", samples), self.settings.seed
        for epoch in itertools.count():
            told = Retold(rows, seed, epoch if samples is None else 0)
            for batch in self._made(told, f"{seed}/{epoch}"):
                yield self.compute.moved(batch)

    def measured(self, title: str, model: Prunable, split: str, limit: int | None = None) -> Measured:
        """One pass over a split, telling the listener."""
        self.progress.start(title, len(self.rows(split, limit)))
        result = self.run(model, split, limit, self.progress.advance)
        self.progress.finish()
        return result

    def run(
        self,
        model: Prunable,
        split: str,
        limit: int | None = None,
        tick: Callable[[int], None] = lambda samples: None,
    ) -> Measured:
        """One pass over a split; scored where the labels count."""
        rows = self.rows(split, limit) if self.labelled else ()
        return run.run(model, self.batches(split, limit), self.task, self.compute, rows, tick)

    def announce(self, student: Prunable, teacher: Prunable, steps: int) -> None:
        """Say how long a fine-tune will take and what it needs, after timing one batch."""
        batch = self.compute.moved(run.inputs_of(self.first_batch("val")))
        timed = timing.in_turns({"dense": teacher, "pruned": student}, [batch], self.compute, turns=1)
        # A step is one dense forward and a pruned forward and backward, which costs as two forwards more.
        step = (timed["dense"][0] + 3 * timed["pruned"][0]) / len(batch["pixel_values"])
        # What Muon does is the same at any batch; the dense forward tells how fast this place multiplies.
        rate = dense_gflops(self, "val", len(batch["pixel_values"])).sum() / timed["dense"][0]
        seconds = steps * (self.settings.batch_size * step + distillation.muon_gflops(student) / rate)
        weights = sum(parameter.nbytes for parameter in student.parameters())
        long = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} s"
        self.progress.message(
            f"Fine-tuning for {steps} x {self.settings.batch_size} samples takes about {long} and, "
            # Two models, gradients, momentum and the best state so far, all of the weights' size.
            f"besides activations, {5 * weights / 2**20:,.0f} MiB of memory."
        )

    def first_batch(self, split: str) -> Batch:
        """The first batch of a split."""
        return next(iter(self.batches(split)))

    def to_time(self, split: str, size: int) -> list[Batch]:
        """Batches of the first samples of a split, without labels: full ones, as many as timing takes or there are.

        Where there are fewer samples than `size`, they are the one batch.
        """
        rows = self.rows(split, size * timing.BATCHES)
        number = max(1, len(rows) // size)
        made = batches(rows, self.task, self.processor, batch_size=size, workers=0)
        return [run.inputs_of(batch) for batch in itertools.islice(made, number)]

    def single_samples(self, split: str, number: int) -> list[Batch]:
        """The first samples of a split, each a batch of its own, without labels."""
        made = batches(self.rows(split, number), self.task, self.processor, batch_size=1, workers=0)
        return [run.inputs_of(batch) for batch in made]

    def require_labels(self, measured: Measured, split: str) -> None:
        """Raise DataError unless every sample that was measured has a label."""
        if measured.result.unlabelled:
            labelled = measured.samples - measured.result.unlabelled
            raise DataError(
                f"Only {labelled} of {measured.samples} {split} samples of {self.data.source} "
                "have a label, so there is no quality to report.\nAdd the labels, or choose another --split."
            )

    def quality(self, measured: Measured) -> QualityPart:
        """Quality of one model, all of whose samples are labelled."""
        self.require_labels(measured, self.settings.split)
        mean = _of_recall if self.task.unit == "percent" else _hundredfold(mean_interval95)
        scores, interval = measured.scores, interval95 if self.task.shares else mean
        return QualityPart(
            metric=self.task.metric,
            split=self.settings.split,
            samples=measured.samples,
            value=self.task.quality(scores),
            unit=self.task.unit,
            interval95=interval(scores),
            parts=measured.result.parts,
        )

    def change(self, before: Measured, after: Measured) -> ChangePart:
        """Quality of the dense and the pruned model on the same samples."""
        if not self.labelled:
            same = agreement(before, after)
            dense, pruned = [1.0] * len(same), same
            return self._change(AGREEMENT, dense, pruned, before.samples, paired_interval95(dense, pruned))
        self.require_labels(before, self.settings.split)
        dense, pruned = before.scores, after.scores
        interval = paired_interval95 if self.task.shares else _hundredfold(paired_mean_interval95)
        told = self._change(self.task.metric, dense, pruned, before.samples, interval(dense, pruned))
        beside = after.result.parts
        parts = {name: (value, beside[name]) for name, value in before.result.parts.items() if name in beside}
        if not self.task.relative or not told.dense:
            return told.model_copy(update={"parts": parts})
        percent = 100 * told.change / told.dense
        relative = relative_interval95(dense, pruned)
        return told.model_copy(
            update={"change": percent, "interval95": relative, "unit": "percent of the dense score", "parts": parts}
        )

    def _change(
        self, metric: str, dense: Sequence[float], pruned: Sequence[float], samples: int, interval: tuple[float, float]
    ) -> ChangePart:
        """In points."""
        before, after = (100 * float(np.mean(scores)) for scores in (dense, pruned))
        return ChangePart(
            metric=metric,
            split=self.settings.split,
            samples=samples,
            dense=before,
            pruned=after,
            change=after - before,
            interval95=interval,
        )

    def notes(self) -> list[str]:
        """What belongs beside the figures."""
        notes = [*self.data.notes, *self.settings.notes]
        if not self.labelled:
            notes.append(
                "The checkpoint was not trained on the built-in scenes, so the quality is its agreement with the dense "
                "model, and on your own data the same knob can cost more or less. Give --data to calibrate on it."
            )
        return notes

    def text_lengths(self, split: str, limit: int | None = None) -> dict[str, list[int]]:
        """Tokens of each row's texts by tower, without looking at an image."""
        return self.task.text_lengths(self.rows(split, limit), self.processor)


def _bytes(batch: Batch) -> int:
    return sum(value.nbytes for value in batch.values())


def load(source: Path, settings: RunSettings, progress: ProgressReporter) -> tuple[Prunable, Any]:
    """The checkpoint, after telling what had to be assumed about it."""
    torch.manual_seed(settings.seed)
    told: dict[str, Any] = {"head_width": settings.head_width, "activation": settings.activation}
    for note in loading.inspect(source, **told).notes:
        progress.message(note)
    return loading.load(source, tokenizer=settings.tokenizer, **told)


def empty(arch: str) -> Prunable:
    """A published architecture whose weights are all zero: enough to count, and made at once.

    Raises:
        UsageError: There is none of that name.
    """
    if arch not in ARCHITECTURES:
        raise UsageError(f"There is no architecture {arch!r}.\nChoose one of: {', '.join(ARCHITECTURES)}.")
    with torch.device("meta"):
        config = ARCHITECTURES[arch]()
        model = models.get(models.kind_of(config))(config)
    model = model.to_empty(device="cpu").eval()
    model.tie_weights()
    with torch.no_grad():
        for value in itertools.chain(model.parameters(), model.buffers()):
            value.zero_()
    return model


def _hundredfold(interval: Callable[..., tuple[float, float]]) -> Callable[..., tuple[float, float]]:
    """The same interval in percent."""
    return lambda *scores: (100 * interval(*scores)[0], 100 * interval(*scores)[1])


def _of_recall(scores: Sequence[float]) -> tuple[float, float]:
    """The interval of a mean that lies in 0-100, though single scores may not."""
    low, high = _hundredfold(mean_interval95)(scores)
    return max(0.0, low), min(100.0, high)


def agreement(of: Measured, with_: run.Measured) -> list[float]:
    """1 where two models answer alike, per sample."""
    return [float(a == b) for a, b in zip(of.answers, with_.answers, strict=True)]


def dense_gflops(session: Session, split: str, limit: int | None = None) -> np.ndarray:
    """Cost of each sample in the dense model, by the formula, without a forward."""
    counts = sample_costs.dense_counts(session.model.config, session.text_lengths(split, limit))
    return sample_costs.per_sample(session.model.config, counts) / 1e9


def floor_gflops(session: Session, model: Prunable, split: str, limit: int | None = None) -> float:
    """Mean cost at a knob of infinity: the least this model can be brought to."""
    counts = sample_costs.least_counts(model, session.text_lengths(split, limit))
    return float(sample_costs.per_sample(model.config, counts).mean()) / 1e9
