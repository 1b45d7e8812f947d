"""The input pipeline does not grow while a long list is read."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soundfile

from benchmarks.memory import in_its_own_process, write_manifest

ROWS, BATCHES = 60_000, 250


@pytest.mark.skipif(sys.platform != "linux", reason="memory of processes is read from /proc")
@pytest.mark.parametrize("name", ["list of clips", "streamed"])
def test_memory_stays_flat_while_a_long_list_is_read_by_workers(tmp_path, name):
    soundfile.write(tmp_path / "clip.wav", np.zeros(400) + 0.1, 16_000)
    manifest = write_manifest(tmp_path, [tmp_path / "clip.wav"], ROWS)
    # What other tests left in this process moves by more than is asked here.
    found = in_its_own_process(name, manifest, (40, BATCHES - 10), num_workers=2)
    assert found[1] - found[0] < 10  # MiB
