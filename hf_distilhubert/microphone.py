"""A microphone as blocks of sound, and its text as it is said: `distilhubert transcribe --microphone`."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_distilhubert.audio import SAMPLING_RATE, Waveform
from hf_distilhubert.errors import UserError, one_line

if TYPE_CHECKING:
    from hf_distilhubert.live import Partial
    from hf_distilhubert.transcriber import Transcriber

BLOCK = 0.1  # seconds of sound that come at once
PATIENCE = 3.0  # seconds without any: the microphone is gone
# Back to the beginning of the line, and take away what stands there.
CLEAR = "\r\x1b[K"


class Microphone:
    """The input that this machine uses by default, at its own rate.

    Attributes:
        name: as the system calls it.
        sampling_rate: in Hz.
        overflowed: whether sound was lost because it was not taken in time.
        gone: whether it stopped by itself.

    Raises:
        UserError: sounddevice, its library or a microphone is missing.
    """

    def __init__(self) -> None:
        self._sounddevice = _import_sounddevice()
        try:
            about = self._sounddevice.query_devices(kind="input")
        except (self._sounddevice.PortAudioError, ValueError) as error:
            raise UserError(
                f"there is no microphone ({one_line(error, 200)}); connect one, and make it the input of "
                "this machine in its sound settings"
            ) from error
        self.name, self.sampling_rate = str(about["name"]), int(about["default_samplerate"])
        self.overflowed = self.gone = False
        self._heard: SimpleQueue[Waveform | None] = SimpleQueue()

    def blocks(self) -> Iterator[Waveform]:
        """All that was heard since the block before, `(time,)`, until `stop`.

        Who takes them slowly gets longer ones, and is not left behind.

        Raises:
            UserError: the microphone cannot be opened.
        """
        with self._open():
            while True:
                try:
                    found = [self._heard.get(timeout=PATIENCE)]
                except Empty:
                    self.gone = True
                    return
                while not self._heard.empty():
                    found.append(self._heard.get())
                sound = [block for block in found if block is not None]
                if sound:
                    yield np.concatenate(sound)
                if len(sound) < len(found):
                    return

    def stop(self) -> None:
        """End the blocks after what has been heard by now; also from a signal or another thread."""
        self._heard.put(None)

    @contextmanager
    def _open(self) -> Iterator[None]:
        try:
            stream = self._sounddevice.InputStream(
                samplerate=self.sampling_rate,
                blocksize=round(BLOCK * self.sampling_rate),
                channels=1,
                dtype="float32",
                callback=self._take,
            )
            stream.start()
        except self._sounddevice.PortAudioError as error:
            raise UserError(
                f"cannot open the microphone {self.name} ({one_line(error, 200)}); close other programs that "
                "use it, and allow this one to"
            ) from error
        try:
            yield
        finally:
            stream.close()

    def _take(self, sound: np.ndarray, _frames: int, _time: Any, status: Any) -> None:
        """Called by the sound system with `(time, channel)`, which it fills anew afterwards."""
        self.overflowed |= bool(status.input_overflow)
        self._heard.put(sound[:, 0].copy())


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise UserError(
            "--microphone needs the package sounddevice; pip install 'hf-distilhubert[microphone]'"
        ) from error
    except OSError as error:  # on Linux its wheel comes without the library
        raise UserError(
            f"--microphone needs the library PortAudio ({one_line(error, 200)}); install it, on Debian and "
            "Ubuntu: apt install libportaudio2"
        ) from error
    return sounddevice


def write_down(transcriber: Transcriber, microphone: Microphone, write: Callable[[str], object]) -> None:
    """Write what is said, until Ctrl-C: a line for each utterance, on a terminal also while it is said.

    Args:
        transcriber: the recogniser.
        microphone: where the sound comes from.
        write: takes text for standard output.

    Raises:
        UserError: the microphone cannot be opened, or is gone; what was said until then is written.
    """
    # The first clip of a model is slow.
    transcriber.transcribe_waveforms([np.zeros(SAMPLING_RATE, np.float32)])
    live = sys.stdout.isatty()
    _say(f"listening to {microphone.name} at {microphone.sampling_rate} Hz; Ctrl-C ends it")
    warned = False
    with _interrupted_by(microphone.stop):
        for partial in transcriber.stream(microphone.blocks(), microphone.sampling_rate):
            if microphone.overflowed and not warned:
                warned = True
                write(CLEAR * live)
                _say("warning: sound was lost, since this machine did not take it in time")
            write(_line(partial, live=live))
    if microphone.gone:
        raise UserError(f"the microphone {microphone.name} gives no sound any more; connect it again")


def _line(partial: Partial, *, live: bool) -> str:
    """What an utterance adds to the output: on a terminal its line is drawn anew each time."""
    end = "\n" if partial.final and partial.text else ""
    if not live:
        return partial.text + end if end else ""
    text = one_line(partial.text, limit=len(partial.text) + 1)
    room = shutil.get_terminal_size().columns - 1
    return CLEAR + (text if end else text[-room:]) + end


@contextmanager
def _interrupted_by(stop: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C calls `stop` in place of an exception; a second one is as ever."""

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
