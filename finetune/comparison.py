"""What was recognised against what was said: figures of a whole split, of its parts, of an utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from finetune.against import Difference, OtherScore, difference
from finetune.alignments import Confusions, Step, align, error_counts, most_confused
from finetune.groups import Rates, grouped
from finetune.metrics import CER, WER
from finetune.vocabulary import unknown_characters
from hf_distilhubert.audio import SAMPLING_RATE

if TYPE_CHECKING:
    from hf_distilhubert.speech_data import SpeechData
    from hf_distilhubert.transcribe import Transcriber

MOST_CONFUSED = 20


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
        substitutions: wrong words.
        deletions: missing words.
        insertions: surplus words.
        character_errors: characters to change, spaces among them.
        characters: characters of the reference.
        columns: values of the columns that were asked for.
    """

    clip: str
    speaker: str
    seconds: float
    reference: str
    hypothesis: str
    errors: int
    words: int
    substitutions: int
    deletions: int
    insertions: int
    character_errors: int
    characters: int
    columns: Mapping[str, str]


@dataclass(frozen=True)
class Score:
    """Figures of a model on a split; rates are shares (0.25 = 25 %).

    Attributes:
        folder: where `results.json`, `utterances.csv` and `report.html` lie.
        wer: word error rate.
        wer_interval: both ends of its 95 % interval; None where no spread is seen.
        cer: character error rate.
        cer_interval: both ends of its 95 % interval.
        resampled: what the intervals draw, `speakers` or `utterances`.
        substitutions: wrong words.
        deletions: missing words.
        insertions: surplus words.
        words: words of the references.
        character_substitutions: wrong characters.
        character_deletions: missing characters.
        character_insertions: surplus characters.
        characters: characters of the references, spaces among them.
        audio_seconds: duration of what was recognised.
        seconds: time for features, model and decoding; reading the files is not in it.
        real_time_factor: `seconds / audio_seconds`.
        num_parameters: of the model.
        device: where the model computed, e.g. `cpu` or `cuda:0`.
        threads: that torch computed with on CPUs.
        skipped: clips left out.
        unknown_characters: characters of the references that the vocabulary lacks, with counts.
        groups: per column (`speaker` where one is named, `clip length`, those asked for), each value's rates.
        word_confusions: the most frequent errors in words.
        character_confusions: the most frequent errors in characters.
        against: the comparison with another model, where one was asked for.
        utterances: every clip.
    """

    folder: Path
    wer: float
    wer_interval: tuple[float, float] | None
    cer: float
    cer_interval: tuple[float, float] | None
    resampled: str
    substitutions: int
    deletions: int
    insertions: int
    words: int
    character_substitutions: int
    character_deletions: int
    character_insertions: int
    characters: int
    audio_seconds: float
    seconds: float
    real_time_factor: float
    num_parameters: int
    device: str
    threads: int
    skipped: int
    unknown_characters: dict[str, int]
    groups: dict[str, dict[str, Rates]]
    word_confusions: Confusions
    character_confusions: Confusions
    against: Difference | None
    utterances: tuple[Utterance, ...]


def compare(
    folder: Path,
    transcriber: Transcriber,
    data: SpeechData,
    texts: Mapping[str, str],
    seconds: float,
    *,
    by: Sequence[str] = (),
    other: OtherScore | None = None,
) -> Score:
    """Set what was recognised against the transcripts.

    Args:
        folder: where the result goes.
        transcriber: the recogniser.
        data: clips with normalised transcripts.
        texts: what was recognised, by clip.
        seconds: how long that took.
        by: names of the clips' `columns`.
        other: what another model made of the same clips.

    Raises:
        UserError: the other model heard none of these utterances.
    """
    references = [str(clip.text) for clip in data.clips]
    hypotheses = [texts[clip.clip_id] for clip in data.clips]
    words = WER().compute(predictions=hypotheses, references=references)
    characters = CER().compute(predictions=hypotheses, references=references)
    word_steps = align(references, hypotheses)
    character_steps = align(references, hypotheses, characters=True)
    utterances = _utterances(data, by, hypotheses, word_steps, character_steps)
    rates = Rates.of(utterances)
    audio_seconds = sum(utterance.seconds for utterance in utterances)
    return Score(
        folder=folder,
        wer=words["wer"],
        wer_interval=rates.wer_interval,
        cer=characters["cer"],
        cer_interval=rates.cer_interval,
        resampled=rates.resampled,
        substitutions=words["substitutions"],
        deletions=words["deletions"],
        insertions=words["insertions"],
        words=words["total"],
        character_substitutions=characters["substitutions"],
        character_deletions=characters["deletions"],
        character_insertions=characters["insertions"],
        characters=characters["total"],
        audio_seconds=audio_seconds,
        seconds=seconds,
        real_time_factor=seconds / audio_seconds,
        num_parameters=transcriber.model.num_parameters(),
        device=str(transcriber.model.device),
        threads=torch.get_num_threads(),
        skipped=len(data.skipped),
        unknown_characters=unknown_characters(references, transcriber.processor.tokenizer),
        groups=grouped(utterances),
        word_confusions=most_confused(word_steps, MOST_CONFUSED),
        character_confusions=most_confused(character_steps, MOST_CONFUSED),
        against=difference(utterances, other) if other else None,
        utterances=utterances,
    )


def _utterances(
    data: SpeechData,
    by: Sequence[str],
    hypotheses: Sequence[str],
    word_steps: Sequence[Sequence[Step]],
    character_steps: Sequence[Sequence[Step]],
) -> tuple[Utterance, ...]:
    found = []
    for clip, hypothesis, *steps in zip(data.clips, hypotheses, word_steps, character_steps, strict=True):
        words, characters = map(error_counts, steps)
        found.append(
            Utterance(
                clip=clip.clip_id,
                speaker=clip.speaker or "",
                seconds=clip.num_samples / SAMPLING_RATE,
                reference=str(clip.text),
                hypothesis=hypothesis,
                errors=words.errors,
                words=words.total,
                substitutions=words.substitutions,
                deletions=words.deletions,
                insertions=words.insertions,
                character_errors=characters.errors,
                characters=characters.total,
                columns=dict(zip(by, clip.columns, strict=True)),
            )
        )
    return tuple(found)
