"""A microphone writes down what it hears; the sound system is a fake that plays a real clip."""

from __future__ import annotations

import builtins
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import LARGE, save_recogniser
from transformers import Wav2Vec2Processor

from hf_distilhubert import Transcriber, microphone
from hf_distilhubert.audio import read_audio, resample
from hf_distilhubert.beam_decoder import beam_decoder
from hf_distilhubert.errors import UserError
from hf_distilhubert.live import Partial
from hf_distilhubert.microphone import CLEAR, Microphone, write_down
from hf_distilhubert.transcribe import main

RATE = 44_100


class PortAudioError(Exception):
    """As sounddevice has it."""


class FakeInput:
    """Plays its sound into the callback, a block at a time, and then does what `at_end` says.

    Sounddevice uses one array for all blocks, and so does this.
    """

    def __init__(self, sound: np.ndarray, at_end=None, overflows=(), *, at_once: bool = False) -> None:
        self.sound, self.at_end, self.overflows = sound, at_end or (lambda: None), set(overflows)
        self.at_once = at_once  # all of it before anybody listens
        self.goes_on = threading.Event()  # after the first block
        self.goes_on.set()
        self.asked: dict = {}
        self.closed = False

    def __call__(self, **asked) -> FakeInput:
        self.asked = asked
        return self

    def start(self) -> None:
        self.player = threading.Thread(target=self._play, daemon=True)
        self.player.start()
        if self.at_once:
            self.player.join()

    def close(self) -> None:
        self.closed = True

    def _play(self) -> None:
        size = self.asked["blocksize"]
        block = np.zeros((size, 1), np.float32)
        for number, start in enumerate(range(0, len(self.sound), size)):
            part = self.sound[start : start + size]
            block[: len(part), 0] = part
            status = SimpleNamespace(input_overflow=number in self.overflows)
            self.asked["callback"](block[: len(part)], len(part), None, status)
            self.goes_on.wait()
        block[:] = np.nan
        self.at_end()


def fake_sounddevice(monkeypatch, stream) -> None:
    def query_devices(kind):
        if stream is None:
            raise PortAudioError("Error querying device -1")
        return {"name": "a fake one", "default_samplerate": float(RATE)}

    fake = SimpleNamespace(PortAudioError=PortAudioError, query_devices=query_devices, InputStream=stream)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A recogniser that hears no further than a quarter of a second: looks say what the whole says."""
    folder = save_recogniser(tmp_path_factory.mktemp("model") / "recogniser", num_hidden_layers=0, **LARGE)
    processor = Wav2Vec2Processor.from_pretrained(folder)
    processor.feature_extractor.do_normalize = False
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def transcriber(folder) -> Transcriber:
    return Transcriber(folder)


@pytest.fixture(scope="module")
def sound(speech_dir) -> np.ndarray:
    """Three seconds of a real clip, at the rate of a sound card."""
    clip = min((speech_dir / "librispeech_mini" / "test").glob("*.flac"))
    return resample(read_audio(clip)[8_000:56_000], 16_000, RATE)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "flags", [[], ["--hot_words", "one", "two", "--beam_width", "8"]], ids=["greedy", "beam"]
)
def test_what_is_heard_until_ctrl_c_is_written_to_the_last_word(flags, folder, sound, monkeypatch, capsys):
    before, stream = signal.getsignal(signal.SIGINT), FakeInput(sound, interrupt)
    fake_sounddevice(monkeypatch, stream)
    assert main(["--model", str(folder), "--microphone", *flags]) == []
    decoder = beam_decoder(hot_words=["one", "two"], width=8) if flags else None
    [whole] = Transcriber(folder, decoder=decoder).transcribe_waveforms([resample(sound, RATE)])
    said = capsys.readouterr()
    assert whole
    assert said.out == f"{whole}\n"
    assert said.err == f"listening to a fake one at {RATE} Hz; Ctrl-C ends it\n"
    assert (stream.asked["samplerate"], stream.asked["channels"], stream.closed) == (RATE, 1, True)
    assert signal.getsignal(signal.SIGINT) is before


def test_who_takes_sound_slowly_gets_longer_blocks_and_all_of_it(sound, monkeypatch):
    stream = FakeInput(sound)
    stream.goes_on.clear()
    fake_sounddevice(monkeypatch, stream)
    microphone = Microphone()
    blocks = microphone.blocks()
    heard = [next(blocks)]
    stream.goes_on.set()
    stream.player.join()
    microphone.stop()
    heard += blocks
    assert [len(block) for block in heard] == [RATE // 10, len(sound) - RATE // 10]
    np.testing.assert_array_equal(np.concatenate(heard), sound)
    assert stream.closed


def test_a_microphone_that_is_gone_says_so_after_what_it_heard(transcriber, sound, monkeypatch, capsys):
    monkeypatch.setattr(microphone, "PATIENCE", 0.1)
    before = signal.getsignal(signal.SIGINT)
    stream = FakeInput(sound, overflows=[3, 7], at_once=True)
    fake_sounddevice(monkeypatch, stream)
    with pytest.raises(UserError, match="the microphone a fake one gives no sound any more"):
        write_down(transcriber, Microphone(), sys.stdout.write)
    said = capsys.readouterr()
    assert said.out == transcriber.transcribe_waveforms([resample(sound, RATE)])[0] + "\n"
    assert said.err.count("warning: sound was lost") == 1
    assert stream.closed
    assert signal.getsignal(signal.SIGINT) is before


# ----- what is shown --------------------------------------------------------------------------------------

PARTIALS = [
    Partial("one", "", 0.0, 1.0, False),
    Partial("one \x1b[31mtwo three four", "one", 0.0, 2.0, False),
    Partial("one two three four five", "one two three four five", 0.0, 3.0, True),
    Partial("six", "", 3.0, 4.0, False),
    Partial("", "", 3.0, 5.0, True),
]


def shown(monkeypatch, partials, *, terminal: bool) -> list[str]:
    """What is written for these, on a terminal of 12 columns or elsewhere."""
    speaks = SimpleNamespace(transcribe_waveforms=lambda _: None, stream=lambda *_: iter(partials))
    hears = SimpleNamespace(
        name="", sampling_rate=RATE, overflowed=True, gone=False, blocks=lambda: None, stop=lambda: None
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "12")
    written: list[str] = []
    write_down(speaks, hears, written.append)
    return written


def test_a_terminal_has_the_utterance_in_one_line_as_it_grows(monkeypatch):
    assert shown(monkeypatch, PARTIALS, terminal=True) == [
        CLEAR,  # before the warning
        f"{CLEAR}one",
        f"{CLEAR} three four",  # the end of it, in 11 columns
        f"{CLEAR}one two three four five\n",
        f"{CLEAR}six",
        CLEAR,
    ]
    # What a stranger's model writes does not steer the terminal.
    (_, line) = shown(monkeypatch, [Partial("a\x1b[2J\rb", "", 0.0, 1.0, True)], terminal=True)
    assert line == f"{CLEAR}a\N{REPLACEMENT CHARACTER}[2J b\n"


def test_elsewhere_only_whole_utterances_are_written(monkeypatch):
    written = shown(monkeypatch, PARTIALS, terminal=False)
    assert "".join(written) == "one two three four five\n"


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_does_not_wait_for_the_last_words(monkeypatch):
    def stuck():
        yield PARTIALS[0]
        interrupt()
        interrupt()
        pytest.fail("it goes on")

    with pytest.raises(KeyboardInterrupt):
        shown(monkeypatch, stuck(), terminal=False)


# ----- what is missing ------------------------------------------------------------------------------------


def missing(monkeypatch, error: Exception) -> None:
    importing = builtins.__import__

    def refuse(name, *arguments, **more):
        if name == "sounddevice":
            raise error
        return importing(name, *arguments, **more)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("sounddevice"), r"pip install 'hf-distilhubert\[microphone\]'"),
        (OSError("PortAudio library not found"), "apt install libportaudio2"),
    ],
    ids=["package", "library"],
)
def test_what_is_not_installed_is_named_before_the_model_is_loaded(error, message, monkeypatch):
    missing(monkeypatch, error)
    with pytest.raises(UserError, match=message):
        main(["--model", "absent", "--microphone"])


def test_a_machine_without_a_microphone_and_a_busy_one_are_told_apart(transcriber, monkeypatch):
    fake_sounddevice(monkeypatch, None)
    with pytest.raises(UserError, match=r"there is no microphone \(Error querying device -1\); connect one"):
        Microphone()

    def busy(**_):
        raise PortAudioError("Device unavailable")

    fake_sounddevice(monkeypatch, busy)
    with pytest.raises(UserError, match=r"cannot open the microphone a fake one \(Device unavailable\)"):
        write_down(transcriber, Microphone(), sys.stdout.write)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["speech.wav"], "not allowed with argument --microphone"),
        (["--format", "srt", "--output", "x.srt"], "leave out --format and --output"),
        (["--align", "said.txt"], "leave out --align"),
    ],
)
def test_what_only_files_have_is_refused_beside_a_microphone(flags, message):
    with pytest.raises(UserError, match=message):
        main(["--model", "absent", "--microphone", *flags])
    with pytest.raises(UserError, match="--microphone audio is required"):
        main(["--model", "absent"])
