"""What Trainer needs to evaluate a CTC model: predictions without padding, and error rates batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from finetune.vocabulary import decode_labels

if TYPE_CHECKING:
    import torch


def argmax_tokens(model: Any) -> Callable[[torch.Tensor, tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """A `preprocess_logits_for_metrics`: logits `(batch, frame, token)` to token ids, -100 on padding.

    It needs `label_names=["labels", "attention_mask"]`, as `CTCTrainingArguments` has it.
    """

    def tokens(logits: torch.Tensor, labels: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        import torch

        # Trainer fills the mask up with -100 where processes differ in length.
        samples = (labels[1] == 1).sum(dim=-1)
        frames = model._get_feat_extract_output_lengths(samples)
        positions = torch.arange(logits.shape[1], device=logits.device)
        return logits.argmax(dim=-1).masked_fill(positions >= frames[:, None], -100)

    return tokens


class ErrorRates:
    """A `compute_metrics` for `batch_eval_metrics=True`, over all batches so far.

    `wer` and `cer` are shares (0.25 = 25 %); `empty` is the share of clips of which nothing was written.
    """

    def __init__(self, tokenizer: Any) -> None:
        from finetune.metrics import CER, WER

        self.tokenizer = tokenizer
        self.metrics = {"wer": WER(), "cer": CER()}
        self._written: list[bool] = []

    def __call__(self, batch: Any, compute_result: bool) -> dict[str, float]:
        """Add a batch; after the last one (`compute_result`) return the rates and start again."""
        labels = batch.label_ids[0]
        predictions = [self._text(row) for row in batch.predictions.tolist()]
        references = [decode_labels(self.tokenizer, row) for row in labels.tolist()]
        self._written += [bool(prediction) for prediction in predictions]
        for metric in self.metrics.values():
            metric.add_batch(predictions=predictions, references=references)
        if not compute_result:
            return {}
        empty, self._written = 1 - sum(self._written) / len(self._written), []
        return {name: metric.compute()[name] for name, metric in self.metrics.items()} | {"empty": empty}

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode([token for token in tokens if token >= 0]))
