"""What was recognised against what was said: figures of a whole split, a speaker, an utterance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from finetune.metrics import CER, WER, count_errors
from finetune.vocabulary import unknown_characters
from hf_distilhubert.audio import SAMPLING_RATE

if TYPE_CHECKING:
    from hf_distilhubert.speech_data import Clip, SpeechData
    from hf_distilhubert.transcribe import Transcriber


@dataclass(frozen=True)
class Utterance:
    """One clip: what was said and what was recognised.

    Attributes:
        clip: its name within the data set.
        speaker: who says it; empty if unknown.
        seconds: duration.
        reference: the transcript in normal form.
        hypothesis: what the recogniser wrote.
        errors: words to change.
        words: words of the reference.
    """

    clip: str
    speaker: str
    seconds: float
    reference: str
    hypothesis: str
    errors: int
    words: int


@dataclass(frozen=True)
class Score:
    """Figures of a model on a split; rates are shares (0.25 = 25 %).

    Attributes:
        folder: where `results.json` and `utterances.csv` lie.
        wer: word error rate.
        cer: character error rate.
        substitutions: wrong words.
        deletions: missing words.
        insertions: surplus words.
        words: words of the references.
        audio_seconds: duration of what was recognised.
        seconds: time for features, model and decoding; reading the files is not in it.
        real_time_factor: `seconds / audio_seconds`.
        num_parameters: of the model.
        device: where the model computed, e.g. `cpu` or `cuda:0`.
        threads: that torch computed with on CPUs.
        skipped: clips left out.
        unknown_characters: characters of the references that the vocabulary lacks, with counts.
        per_speaker: `utterances`, `wer` and `cer` of each named speaker.
        utterances: every clip.
    """

    folder: Path
    wer: float
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    words: int
    audio_seconds: float
    seconds: float
    real_time_factor: float
    num_parameters: int
    device: str
    threads: int
    skipped: int
    unknown_characters: dict[str, int]
    per_speaker: dict[str, dict[str, float]]
    utterances: tuple[Utterance, ...]


def compare(
    folder: Path, transcriber: Transcriber, data: SpeechData, texts: Mapping[str, str], seconds: float
) -> Score:
    """Set what was recognised against the transcripts.

    Args:
        folder: where the result goes.
        transcriber: the recogniser.
        data: clips with normalised transcripts.
        texts: what was recognised, by clip.
        seconds: how long that took.
    """
    utterances = tuple(_utterance(clip, texts[clip.clip_id]) for clip in data.clips)
    references = [utterance.reference for utterance in utterances]
    hypotheses = [utterance.hypothesis for utterance in utterances]
    words = WER().compute(predictions=hypotheses, references=references)
    audio_seconds = sum(utterance.seconds for utterance in utterances)
    return Score(
        folder=folder,
        wer=words["wer"],
        cer=CER().compute(predictions=hypotheses, references=references)["cer"],
        substitutions=words["substitutions"],
        deletions=words["deletions"],
        insertions=words["insertions"],
        words=words["total"],
        audio_seconds=audio_seconds,
        seconds=seconds,
        real_time_factor=seconds / audio_seconds,
        num_parameters=transcriber.model.num_parameters(),
        device=str(transcriber.model.device),
        threads=torch.get_num_threads(),
        skipped=len(data.skipped),
        unknown_characters=unknown_characters(references, transcriber.processor.tokenizer),
        per_speaker=_per_speaker(utterances),
        utterances=utterances,
    )


def _utterance(clip: Clip, hypothesis: str) -> Utterance:
    reference = str(clip.text)
    counts = count_errors([reference], [hypothesis])
    return Utterance(
        clip=clip.clip_id,
        speaker=clip.speaker or "",
        seconds=clip.num_samples / SAMPLING_RATE,
        reference=reference,
        hypothesis=hypothesis,
        errors=counts.errors,
        words=counts.total,
    )


def _per_speaker(utterances: Sequence[Utterance]) -> dict[str, dict[str, float]]:
    groups: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        if utterance.speaker:
            groups[utterance.speaker].append(utterance)
    table: dict[str, dict[str, float]] = {}
    for speaker, group in sorted(groups.items()):
        references, hypotheses = [u.reference for u in group], [u.hypothesis for u in group]
        table[speaker] = {
            "utterances": len(group),
            "wer": count_errors(references, hypotheses).rate,
            "cer": count_errors(references, hypotheses, characters=True).rate,
        }
    return table
