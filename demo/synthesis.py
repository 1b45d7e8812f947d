"""Two speech synthesisers that come as wheels: espeak-ng (a hundred voices) and hibari (one neural voice)."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_distilhubert.audio import SAMPLING_RATE, Waveform, resample
from hf_distilhubert.errors import UserError

INSTALL = "install the demo's extra (`pip install -e '.[demo]'`), or give recordings with DATA=folder"
SYNCHRONOUS, UTF8, RATE, PITCH, RANGE = 2, 1, 1, 3, 4  # from espeak-ng's speak_lib.h
HIBARI_RATE = 24_000


class Espeak:
    """espeak-ng through ctypes; one per process, since the library keeps its voice in global state.

    What it says depends a little on what it said before; the same calls in a new process give the same sound.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise UserError(f"espeakng-loader is missing; {INSTALL}") from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._rate: int = self._library.espeak_Initialize(
            SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0
        )
        self._blocks: list[npt.NDArray[np.int16]] = []
        signature = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = signature(self._collect)  # kept alive: the library holds only a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, _event: Any) -> int:
        if samples and count:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def __call__(
        self, text: str, voice: str, *, words_per_minute: int = 175, pitch: int = 50, pitch_range: int = 50
    ) -> Waveform:
        """Speak `text`: `(time,)`, 16 kHz.

        Args:
            text: what to say.
            voice: an accent and a variant, e.g. `en-us+f3`.
            words_per_minute: 80 to 450.
            pitch: 0 to 100.
            pitch_range: 0 (flat) to 100.

        Raises:
            UserError: espeak-ng has no such voice (it would go on with the last one without a word).
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((RATE, words_per_minute), (PITCH, pitch), (RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        # Some voices breathe: their noise must not depend on what was said before.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._blocks.clear()
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        return resample(np.concatenate(self._blocks).astype(np.float32) / 32768, self._rate, SAMPLING_RATE)


@cache
def espeak() -> Espeak:
    """The process's espeak-ng."""
    return Espeak()


@cache
def _hibari() -> Any:
    try:
        from hibari import Hibari
    except ImportError as error:
        raise UserError(f"hibari-tts is missing; {INSTALL}") from error
    return Hibari()


def hibari(text: str, *, speed: float = 1.0, seed: int = 0) -> Waveform:
    """Speak `text` with hibari's American voice: `(time,)`, 16 kHz."""
    return resample(
        np.asarray(_hibari()(f"{text}.", speed=speed, seed=seed), dtype=np.float32),
        HIBARI_RATE,
        SAMPLING_RATE,
    )
