"""Speech to text with a fine-tuned student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_distilhubert.audio import MIN_SAMPLES, SAMPLING_RATE, AudioError, Waveform, read_audio, too_short
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError

if TYPE_CHECKING:
    import torch

# Few different lengths are faster on CPUs, whose kernels are set up anew for each.
PAD_MULTIPLE = 3_200

EXAMPLES = """\
  distilhubert transcribe --model runs/digits speech.wav
  distilhubert transcribe --model runs/digits --output transcripts.tsv recordings/*.flac"""


@dataclass(frozen=True)
class Transcript:
    """What is said in one file."""

    audio: str
    text: str
    seconds: float


class Transcriber:
    """A CTC model and its processor, from a folder or the Hub.

    Args:
        model: a folder or repository that holds a CTC model of the HuBERT family and its processor.
        device: where to run; None lets Accelerate choose.

    Raises:
        UserError: there is no such model, or it has no tokenizer.
    """

    def __init__(self, model: str | Path, *, device: str | torch.device | None = None) -> None:
        from accelerate import PartialState
        from transformers import AutoConfig, AutoModelForCTC, AutoProcessor

        from hf_distilhubert.loading import load, load_model

        kind = (load(AutoConfig, model).architectures or [""])[0]
        if not kind.endswith("ForCTC"):
            raise UserError(
                f"{model} holds a {kind or 'model'}, no recogniser; fine-tune it first (finetune.train)"
            )
        self.processor = load(AutoProcessor, model)
        self.model = load_model(AutoModelForCTC, model).to(device or PartialState().device)
        if len(self.processor.tokenizer) < self.model.config.vocab_size:
            raise UserError(
                f"{model}: {len(self.processor.tokenizer)} tokens, {self.model.config.vocab_size} outputs; "
                "give a folder whose tokenizer belongs to its model"
            )

    @property
    def pads_exactly(self) -> bool:
        """Whether padding leaves a clip's result alone: a group norm over time would take it in."""
        return bool(self.model.config.feat_extract_norm != "group")

    def transcribe(self, audio: str | Path) -> Transcript:
        """Transcribe one file of any format, rate and channel count that soundfile reads.

        Raises:
            AudioError: the file gives no usable sound.
        """
        waveform = read_audio(audio)
        text = self.transcribe_waveforms([waveform])[0]
        return Transcript(str(audio), text, len(waveform) / SAMPLING_RATE)

    def transcribe_waveforms(self, waveforms: Sequence[Waveform], batch_size: int = 8) -> list[str]:
        """Transcribe `(time,)` waveforms at 16 kHz, in batches of similar length.

        A clip gives the same text in any batch: where padding would change it, batches are of one.

        Raises:
            AudioError: a waveform is shorter than one frame.
        """
        shortest = min((len(waveform) for waveform in waveforms), default=MIN_SAMPLES)
        if shortest < MIN_SAMPLES:
            raise AudioError(too_short(shortest))
        size = batch_size if self.pads_exactly else 1
        order = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
        texts = [""] * len(waveforms)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            for index, text in zip(chosen, self._batch([waveforms[i] for i in chosen]), strict=True):
                texts[index] = text
        return texts

    def _batch(self, waveforms: Sequence[Waveform]) -> Iterator[str]:
        import torch

        inputs = self.processor(
            list(waveforms),
            sampling_rate=SAMPLING_RATE,
            return_tensors="pt",
            padding=True,
            pad_to_multiple_of=PAD_MULTIPLE if self.pads_exactly else None,
            return_attention_mask=True,
        ).to(self.model.device)
        with torch.inference_mode():
            tokens = self.model(**inputs).logits.argmax(dim=-1)
        lengths = self.model._get_feat_extract_output_lengths(inputs["attention_mask"].sum(dim=-1))
        for row, length in zip(tokens, lengths, strict=True):
            # Frames of padding are cut off before decoding: they would decode into text.
            yield self.processor.decode(row[:length])


def main(argv: Sequence[str] | None = None, prog: str = "distilhubert transcribe") -> list[Transcript]:
    """Transcribe files from the command line; a file that cannot be read is named, and the others go on."""
    import sys

    from tqdm import tqdm

    parser = argument_parser(prog, "Transcribe audio files.", EXAMPLES)
    parser.add_argument("--model", required=True, help="folder or Hub repository of a fine-tuned CTC model")
    parser.add_argument("--output", help="also write a table of file and text here (tab-separated)")
    parser.add_argument("audio", nargs="+", help="WAV, FLAC, Ogg, Opus or MP3, any rate and channel count")
    arguments = parser.parse_args(argv)
    table = _new_table(arguments.output)
    transcriber = Transcriber(arguments.model)
    done: list[Transcript] = []
    failed = 0
    for audio in tqdm(arguments.audio, desc="transcribing", unit="file", disable=_bar(arguments.audio)):
        try:
            transcript = transcriber.transcribe(audio)
        except AudioError as error:
            failed += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            continue
        done.append(transcript)
        line = f"{audio}\t{transcript.text}"
        tqdm.write(transcript.text if len(arguments.audio) == 1 else line)
        if table:
            with table.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
    if failed:
        raise UserError(f"{failed} of {len(arguments.audio)} files could not be transcribed")
    return done


def _new_table(output: str | None) -> Path | None:
    """An empty file for the table; refused before any work is done."""
    if output is None:
        return None
    if Path(output).exists():
        raise UserError(f"{output} exists already; give the name of a new file")
    try:
        Path(output).touch()
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}; give another file") from error
    return Path(output)


def _bar(audio: Sequence[str]) -> bool | None:
    """tqdm's `disable`: no bar for one file, and none away from a terminal."""
    return True if len(audio) == 1 else None
