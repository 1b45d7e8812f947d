"""The demo's own recordings: digits and short number phrases, spoken by machines.

Voices of the validation and test splits are never heard in training, neither here nor by the shipped teacher.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo.synthesis import espeak, hibari
from hf_distilhubert.audio import SAMPLING_RATE, Waveform
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command
from hf_distilhubert.folders import new_folder

EXAMPLES = """\
  python -m demo.speech runs/speech
  python -m demo.speech runs/teacher/speech --teacher"""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029", "en-gb-x-gbcwmd")
# fmt: off
TRAIN_VARIANTS = (
    "m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f3", "f5", "Andy", "Annie", "Alex", "Alicia",
    "Andrea", "adam", "anika", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed",
    "edward", "gustave", "ian", "iven", "iven3", "john", "klatt", "klatt2", "klatt4", "linda", "max",
    "michel", "Mike", "Michael", "norbert", "paul", "pedro", "quincy", "Reed", "rob", "robert",
    "sandro", "shelby", "steph2", "travis", "victor", "zac", "grandpa", "Gene", "Lee", "Marco", "Storm",
)
# fmt: on
VALIDATION_VOICES = ("en-us+m8", "en-gb-x-rp+steph")
TEST_VOICES = ("en-us+m5", "en+f4", "en-gb-x-rp+klatt3", "en-gb-scotland+Denis", "hibari")


@dataclass(frozen=True)
class SpeechSet:
    """How much is spoken.

    Attributes:
        voices: number of training voices.
        train: number of training clips.
        held_out: number of clips per voice of the validation and test splits.
        seed: draws texts, voices, speeds and pitches.
    """

    voices: int = 24
    train: int = 960
    held_out: int = 24
    seed: int = 0


TEACHER_SET = SpeechSet(voices=160, train=16_000, held_out=24, seed=1)


def number_phrase(generator: np.random.Generator) -> str:
    """A digit, a string of digits, or a number up to 999, in words."""
    kind = generator.random()
    if kind < 0.3:
        return str(generator.choice(DIGITS))
    if kind < 0.7:
        return " ".join(generator.choice(DIGITS, generator.integers(2, 5)))
    return in_words(int(generator.integers(10, 1000)))


def in_words(number: int) -> str:
    """A number from 0 to 999 as it is spoken, e.g. `four hundred and six`."""
    if number < 10:
        return DIGITS[number]
    if number < 20:
        return TEENS[number - 10]
    if number < 100:
        return TENS[number // 10 - 2] + (f" {DIGITS[number % 10]}" if number % 10 else "")
    rest = f" and {in_words(number % 100)}" if number % 100 else ""
    return f"{DIGITS[number // 100]} hundred{rest}"


def speak(text: str, voice: str, generator: np.random.Generator) -> Waveform:
    """Say `text` with a voice at a random speed, pitch and level: `(time,)`, 16 kHz."""
    if voice == "hibari":
        speed, seed = generator.uniform(0.85, 1.15), int(generator.integers(1 << 31))
        waveform = hibari(text, speed=speed, seed=seed)
    else:
        waveform = espeak()(
            text,
            voice,
            words_per_minute=int(generator.integers(120, 210)),
            pitch=int(generator.integers(25, 75)),
            pitch_range=int(generator.integers(20, 80)),
        )
    level = 10 ** generator.uniform(-1.3, -0.2)
    return np.asarray(waveform * (level / max(float(np.abs(waveform).max()), 1e-4)), dtype=np.float32)


def training_voices(count: int, generator: np.random.Generator) -> list[str]:
    """Draw accents and variants; none of them is a voice that is kept aside."""
    every = [f"{accent}+{variant}" for accent in ACCENTS for variant in TRAIN_VARIANTS]
    return [str(voice) for voice in generator.choice(every, count, replace=False)]


def make_speech(
    output_dir: str | Path, speech_set: SpeechSet | None = None, *, overwrite: bool = False
) -> Path:
    """Write FLAC files and `metadata.csv` (file_name, transcription, speaker, split) into a new folder."""
    import soundfile
    from tqdm import tqdm

    speech_set = speech_set or SpeechSet()
    generator = np.random.default_rng(speech_set.seed)
    voices = training_voices(speech_set.voices, generator)
    plan = [(voices[i % len(voices)], "train") for i in range(speech_set.train)]
    for split, held_out in (("validation", VALIDATION_VOICES), ("test", TEST_VOICES)):
        plan += [(voice, split) for voice in held_out for _ in range(speech_set.held_out)]
    with new_folder(output_dir, overwrite=overwrite) as folder:
        rows = []
        for number, (voice, split) in enumerate(tqdm(plan, desc="speaking", unit="clip")):
            text = number_phrase(generator)
            name = f"{split}/{number:05d}.flac"
            (folder / split).mkdir(exist_ok=True)
            soundfile.write(folder / name, speak(text, voice, generator), SAMPLING_RATE, subtype="PCM_16")
            rows.append((name, text, voice, split))
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file_name", "transcription", "speaker", "split"), *rows])
    return Path(output_dir)


def main() -> None:
    """Speak a set from the command line."""
    parser = argument_parser("python -m demo.speech", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("output_dir", help="new folder for the clips and metadata.csv")
    parser.add_argument("--teacher", action="store_true", help="the larger set of the shipped teacher")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    arguments = parser.parse_args()
    make_speech(
        arguments.output_dir,
        TEACHER_SET if arguments.teacher else SpeechSet(),
        overwrite=arguments.overwrite,
    )


if __name__ == "__main__":
    run_command(main)
