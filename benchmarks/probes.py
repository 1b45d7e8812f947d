"""What a frozen model's features hold: SUPERB's kind of probe, on clips averaged over time.

SUPERB (arXiv 2105.01051) puts a linear classifier behind the mean over time of a softmax-weighted sum of all
hidden states. Sum and mean may change places, so the means are taken once, layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_distilhubert.audio import normalise
from hf_distilhubert.loading import load_model
from hf_distilhubert.speech_data import Clip
from hf_distilhubert.teachers import expects_normalised_input

# The same for every model and task: the clips that it could be chosen on are too few to choose well.
PENALTY = 1e-4
STEPS, LEARNING_RATE = 500, 1e-2


@dataclass(frozen=True)
class Split:
    """Numbers of the clips to learn from, and of those that count."""

    train: list[int]
    test: list[int]


@dataclass(frozen=True)
class ProbeResult:
    """What the probes of a task found.

    Attributes:
        accuracy: share of the test clips of all splits that were named right.
        test_clips: how many there are.
        layer_weights: of the hidden states, mean over the splits; they sum to 1.
    """

    accuracy: float
    test_clips: int
    layer_weights: list[float]


def clip_means(source: str | Path, clips: Sequence[Clip]) -> Tensor:
    """The hidden states of a model, 0 (the input of layer 1) to the last, as means over the frames of a clip.

    Every clip is computed by itself: what padding would do to it does not come into question.

    Args:
        source: folder of a teacher or a student.
        clips: what it listens to.

    Returns:
        `(clip, layer, hidden)`, float64.
    """
    from transformers import AutoModel

    model, do_normalize = load_model(AutoModel, source), expects_normalised_input(source)
    means = []
    with torch.inference_mode():
        for clip in clips:
            waveform = normalise(clip.read()) if do_normalize else clip.read()
            states = model(torch.from_numpy(waveform)[None], output_hidden_states=True).hidden_states
            means.append(torch.stack([state[0].double().mean(dim=0) for state in states]))
    # A clone made outside takes part in gradients, which what was made inside cannot.
    return torch.stack(means).clone()


def probe(features: Tensor, labels: Sequence[str], splits: Sequence[Split]) -> ProbeResult:
    """Train a probe for each split and count the test clips that it names right.

    It starts from zeros and every step sees all clips, in float64, so nothing about it is random.

    Args:
        features: `(clip, layer, hidden)`, see `clip_means`.
        labels: of the clips.
        splits: where to learn and where to count.
    """
    names = sorted(set(labels))
    classes = torch.tensor([names.index(label) for label in labels])
    right, weights = 0, []
    for split in splits:
        values = _standardised(features, split.train)
        mixture, weight, bias = _fit(values[split.train], classes[split.train], len(names))
        guesses = _logits(values[split.test], mixture, weight, bias).argmax(dim=-1)
        right += int((guesses == classes[split.test]).sum())
        weights.append(mixture.softmax(dim=0))
    total = sum(len(split.test) for split in splits)
    return ProbeResult(right / total, total, torch.stack(weights).mean(dim=0).tolist())


def _standardised(features: Tensor, train: list[int]) -> Tensor:
    """Zero mean and unit variance over the training clips, for every layer and channel."""
    known = features[train]
    return (features - known.mean(dim=0)) / known.std(dim=0, correction=0).clamp(min=1e-8)


def _fit(values: Tensor, classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the layers `(layer,)`, weights `(class, hidden)` and biases `(class,)` of a classifier."""
    _, layers, hidden = values.shape
    mixture, weight, bias = (
        values.new_zeros(shape, requires_grad=True)
        for shape in ((layers,), (num_classes, hidden), (num_classes,))
    )
    optimizer = torch.optim.Adam([mixture, weight, bias], lr=LEARNING_RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        error = F.cross_entropy(_logits(values, mixture, weight, bias), classes)
        (error + PENALTY * weight.square().sum()).backward()
        optimizer.step()
    return mixture.detach(), weight.detach(), bias.detach()


def _logits(values: Tensor, mixture: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(torch.einsum("l,clh->ch", mixture.softmax(dim=0), values), weight, bias)
