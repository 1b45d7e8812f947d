"""The input pipeline does not grow while a long list is read."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soundfile

from benchmarks.memory import memory, pipeline, write_manifest

ROWS, BATCHES = 60_000, 250


@pytest.mark.skipif(sys.platform != "linux", reason="memory of processes is read from /proc")
@pytest.mark.parametrize("name", ["list of clips", "streamed"])
def test_memory_stays_flat_while_a_long_list_is_read_by_workers(tmp_path, name):
    soundfile.write(tmp_path / "clip.wav", np.zeros(400) + 0.1, 16_000)
    manifest = write_manifest(tmp_path, [tmp_path / "clip.wav"], ROWS)
    source = iter(pipeline(name, manifest, BATCHES, num_workers=2))
    found = [memory() for number, _ in enumerate(source) if number in (40, BATCHES - 10)]
    assert found[1] - found[0] < 25  # MiB; the process of the tests itself moves by some
