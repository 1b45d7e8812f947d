"""A recogniser as one object: sound in, transcripts out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_distilhubert.audio import (
    SAMPLING_RATE,
    AudioError,
    Source,
    Waveform,
    audio_info,
    read_audio,
    read_blocks,
)
from hf_distilhubert.live import Partial, listen
from hf_distilhubert.transcripts import Character, Transcript, Word, group_words, join_word

if TYPE_CHECKING:
    import torch

    from hf_distilhubert.ctc_decoding import Decoder, LogProbabilities, Span

# What is read before it is transcribed, so that batches are of similar length and memory stays flat.
CLIPS_AT_ONCE, SECONDS_AT_ONCE = 64, 240.0

Progress = Callable[[float], object]


class Transcriber:
    """A CTC model and its processor, from a folder or the Hub.

    Args:
        model: a folder or repository that holds a CTC model of the HuBERT family and its processor.
        device: where to run; None lets Accelerate choose.
        decoder: makes a decoder out of the tokenizer; None is `ctc_decoding.GreedyDecoder`.
        chunk_seconds: what is longer is heard in overlapping windows of this length, see `long_audio`.

    Raises:
        UserError: there is no such model, or it has no tokenizer.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | torch.device | None = None,
        decoder: Callable[[Any], Decoder] | None = None,
        chunk_seconds: float = 40.0,
    ) -> None:
        from hf_distilhubert.acoustic import AcousticModel
        from hf_distilhubert.ctc_decoding import GreedyDecoder

        self.source = model
        self.acoustic = AcousticModel(model, device=device, chunk_seconds=chunk_seconds)
        self.model, self.processor = self.acoustic.model, self.acoustic.processor
        self.decode = (decoder or GreedyDecoder)(self.processor.tokenizer)

    def transcribe(self, audio: Source, progress: Progress | None = None) -> Transcript:
        """Transcribe one file of any length, format, rate and channel count that soundfile reads.

        Args:
            audio: a path, or the bytes of a file.
            progress: is told of seconds of audio as they are done.

        Raises:
            AudioError: the file gives no usable sound.
        """
        blocks, seconds = self._listen(audio)
        return self._transcript(audio, self._report(blocks, progress), seconds)

    def transcribe_files(
        self, files: Iterable[Source], batch_size: int = 8, progress: Progress | None = None
    ) -> Iterator[Transcript | AudioError]:
        """Transcribe many files, short ones in batches; a bad one gives its error, and the others go on.

        Args:
            files: paths, or bytes of files.
            batch_size: clips at once, of similar length; the result does not depend on it.
            progress: is told of seconds of audio as they are done.

        Yields:
            A transcript or an error for each file, in their order.
        """
        for pool in self._pools(files):
            short = [number for number, (_, found) in enumerate(pool) if isinstance(found, np.ndarray)]
            results: dict[int, Transcript] = {}
            waveforms: list[Any] = [pool[number][1] for number in short]
            for index, blocks in self.acoustic.clips(waveforms, batch_size):
                seconds = len(waveforms[index]) / SAMPLING_RATE
                file = pool[short[index]][0]
                results[short[index]] = self._transcript(file, self._report(blocks, progress), seconds)
            for number, (file, found) in enumerate(pool):
                if found is None:
                    yield self._long(file, progress)
                else:
                    yield found if isinstance(found, AudioError) else results[number]

    def _pools(self, files: Iterable[Source]) -> Iterator[list[tuple[Source, Waveform | AudioError | None]]]:
        """Read files until they suffice for some batches; None stands for a long one, which ends a pool."""
        pool: list[tuple[Source, Waveform | AudioError | None]] = []
        seconds = 0.0
        for file in files:
            try:
                found = None if self._is_long(file) else read_audio(file)
            except AudioError as error:
                pool.append((file, error))
            else:
                pool.append((file, found))
                seconds += SECONDS_AT_ONCE if found is None else len(found) / SAMPLING_RATE
            if len(pool) == CLIPS_AT_ONCE or seconds >= SECONDS_AT_ONCE:
                yield pool
                pool, seconds = [], 0.0
        yield pool

    def _long(self, file: Source, progress: Progress | None) -> Transcript | AudioError:
        try:
            return self.transcribe(file, progress)
        except AudioError as error:
            return error

    def transcribe_waveforms(self, waveforms: Sequence[Waveform], batch_size: int = 8) -> list[str]:
        """Transcribe `(time,)` waveforms at 16 kHz, in batches of similar length.

        A clip gives the same text in any batch.

        Raises:
            AudioError: a waveform is shorter than one frame.
        """
        texts = [""] * len(waveforms)
        for index, blocks in self.acoustic.clips(waveforms, batch_size):
            texts[index] = self.decode(blocks).text
        return texts

    def align(self, audio: Source | Waveform, text: str) -> Transcript:
        """When each word of a known text is said.

        Words keep their spelling; their characters are what the model's text rules make of them.

        Args:
            audio: a path, the bytes of a file, or `(time,)` at 16 kHz.
            text: all that is said in it.

        Raises:
            AudioError: the audio gives no usable sound.
            UserError: the text cannot be spelled, or is too long for the audio.
        """
        from hf_distilhubert.forced_alignment import align_labels, spell
        from hf_distilhubert.text_rules import read_text_rules

        tokenizer = self.processor.tokenizer
        # Nobody says a dash that stands alone.
        said = [word for word in text.split() if any(map(str.isalnum, word))]
        spelled = spell(" ".join(said), tokenizer, read_text_rules(self.source, tokenizer))
        space = tokenizer.word_delimiter_token_id
        blocks, seconds = self._listen(audio)
        labels = [label for ids in spelled for label in (space, *ids)][1:]
        spans = align_labels(np.concatenate(list(blocks)), labels, self.model.config.pad_token_id)
        words: list[Word] = []
        for word, ids in zip(said, spelled, strict=True):
            tokens = tokenizer.convert_ids_to_tokens(ids)
            characters = [self._character(*pair) for pair in zip(spans, tokens, strict=False)]
            words.append(join_word(characters, word))
            spans = spans[len(ids) + 1 :]
        return Transcript(_name(audio), text, seconds, tuple(words))

    def stream(
        self,
        blocks: Iterable[Waveform],
        sampling_rate: int = SAMPLING_RATE,
        *,
        step: float = 1.0,
        margin: float = 1.5,
        context: float = 5.0,
    ) -> Iterator[Partial]:
        """Transcribe live input, as it comes.

        Latency: a word is in `text` `step` seconds after it was said at the latest, and does not change any
        more `step + margin` seconds after it; computing comes on top (each time for `step + margin + context`
        seconds of audio). Each look normalises what it hears by itself.

        Args:
            blocks: `(time,)` mono of any lengths, for example from a microphone.
            sampling_rate: of the blocks, in Hz.
            step: seconds between two looks.
            margin: seconds after a frame that are heard before it is settled; the positional convolution of
                a base model reaches 1.28.
            context: seconds before a frame that are heard with it.

        Yields:
            What has been said since the last pause; the texts that are `final` follow each other without
            gaps.
        """
        return listen(self, blocks, sampling_rate, step=step, margin=margin, context=context)

    def _is_long(self, audio: Source) -> bool:
        return audio_info(audio).num_samples > self.acoustic.window

    def _listen(self, audio: Source | Waveform) -> tuple[Iterable[LogProbabilities], float]:
        """Log-probabilities of one clip, and its length in seconds."""
        if not isinstance(audio, np.ndarray) and self._is_long(audio):
            seconds = audio_info(audio).num_samples / SAMPLING_RATE
            return self.acoustic.recording(partial(read_blocks, audio)), seconds
        waveform = audio if isinstance(audio, np.ndarray) else read_audio(audio)
        [(_, blocks)] = self.acoustic.clips([waveform], 1)
        return blocks, len(waveform) / SAMPLING_RATE

    def _report(
        self, blocks: Iterable[LogProbabilities], progress: Progress | None
    ) -> Iterator[LogProbabilities]:
        for block in blocks:
            yield block
            if progress:
                progress(len(block) * self.acoustic.frame_seconds)

    def _transcript(self, audio: Source, blocks: Iterable[LogProbabilities], seconds: float) -> Transcript:
        decoded = self.decode(blocks)
        words = group_words(self._character(span, span.text) for span in decoded.spans)
        return Transcript(_name(audio), decoded.text, seconds, tuple(words))

    def _character(self, span: Span, text: str) -> Character:
        step = self.acoustic.frame_seconds
        return Character(text, span.start * step, span.end * step, span.confidence)


def _name(audio: Source | Waveform) -> str:
    return "-" if isinstance(audio, bytes | np.ndarray) else str(audio)
