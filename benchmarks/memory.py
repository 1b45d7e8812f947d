"""Memory of the input pipeline over time, over a list as long as 1,000 hours of speech.

The list is simulated: 290,000 names (clips of 12.4 s) that lead to a few real files, the shortest of a data
set. What counts is the memory of the trainer and its workers together, pages that they share counted once
(PSS; Linux only). Beside the two pipelines runs one with a plain list of objects, which comes to be copied.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command

EXAMPLES = """\
  python -m benchmarks.memory --data ../shared/speech/keywords
  python -m benchmarks.memory --data recordings --batches 12000 --num_workers 4"""
BATCH_SIZE, MAX_SAMPLES = 24, 16_000


def main() -> None:
    """Print the memory of each pipeline, from its first batches on."""
    parser = argument_parser("python -m benchmarks.memory", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("--data", required=True, help="folder, manifest or hub:NAME[:CONFIG][:SPLIT]")
    parser.add_argument("--rows", type=int, default=290_000, help="names in the list")
    parser.add_argument("--batches", type=int, default=2_000, help="how many batches are read")
    parser.add_argument("--num_workers", type=int, default=2, help="processes that read audio")
    arguments = parser.parse_args()

    from hf_distilhubert.speech_data import load_clips

    clips = sorted(load_clips(arguments.data).clips, key=lambda clip: clip.num_samples)
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_manifest(
            Path(folder), [Path(str(clip.audio)) for clip in clips[:20]], arguments.rows
        )
        names = ("plain list", "list of clips", "streamed")
        points = [10, *(arguments.batches * quarter // 4 for quarter in range(1, 5))]
        print(f"{'MiB after batches':<20}" + "".join(f"{point:>9,}" for point in points))
        for name in names:
            memory = in_its_own_process(name, manifest, points, arguments.num_workers)
            print(f"{name:<20}" + "".join(f"{value:>9.0f}" for value in memory), flush=True)


def write_manifest(folder: Path, files: Sequence[Path], rows: int) -> Path:
    """A manifest of `rows` names: links to a folder of links to a few files."""
    side = int(rows**0.5) + 1
    (folder / "clips").mkdir()
    for number in range(side):
        (folder / "clips" / f"{number:05}").symlink_to(files[number % len(files)].resolve())
        (folder / f"{number:05}").symlink_to("clips")
    with (folder / "list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name"])
        table.writerows([f"{row // side:05}/{row % side:05}"] for row in range(rows))
    return folder / "list.csv"


def in_its_own_process(name: str, manifest: Path, points: Sequence[int], num_workers: int) -> list[float]:
    """What `memory_over_time` finds, undisturbed by what ran before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(memory_over_time, name, manifest, points, num_workers).result()


def memory_over_time(name: str, manifest: Path, points: Sequence[int], num_workers: int) -> list[float]:
    """MiB once so many batches of a pipeline were read."""
    # A spawned process would spawn its workers, too; those of a training are forks.
    multiprocessing.set_start_method("fork", force=True)
    source = iter(pipeline(name, manifest, points[-1], num_workers))
    found = []
    for before, point in pairwise((0, *points)):
        for _batch in islice(source, point - before):
            pass
        found.append(memory())
    return found


def pipeline(name: str, manifest: Path, batches: int, num_workers: int) -> Iterable[Any]:
    """Batches as distillation reads them."""
    from accelerate import Accelerator
    from transformers import HubertConfig

    from hf_distilhubert import distillation_data
    from hf_distilhubert.audio import audio_info
    from hf_distilhubert.batches import ByCount
    from hf_distilhubert.clip_lists import PackedClips
    from hf_distilhubert.manifests import manifest_rows
    from hf_distilhubert.settings import DistillConfig
    from hf_distilhubert.speech_data import Clip
    from hf_distilhubert.streamed_data import open_speech

    shape, cut = HubertConfig(), ByCount(BATCH_SIZE)
    collator = distillation_data.Collator(shape.conv_kernel, shape.conv_stride, pad_multiple=3_200)
    if name == "streamed":
        accelerator = Accelerator(cpu=True)
        config = DistillConfig(max_samples=MAX_SAMPLES, num_workers=num_workers)
        return open_speech(accelerator, str(manifest), "all", seed=0).batches(
            accelerator, cut, collator, config, batches
        )
    # Reading every header takes minutes and changes nothing: the files behind the names are few.
    length = audio_info(next((manifest.parent / "clips").iterdir())).num_samples
    clips = [Clip(row.clip_id, row.audio, length) for row in manifest_rows(manifest)]
    way = _PlainList if name == "plain list" else PackedClips
    with patch.object(distillation_data, "PackedClips", way):
        return distillation_data.training_batches(
            clips,
            collator,
            cut=cut,
            num_batches=batches,
            parts=1,
            max_samples=MAX_SAMPLES,
            seed=0,
            num_workers=num_workers,
        )


class _PlainList(list[Any]):
    """A list of clips as it is, in place of `PackedClips`."""

    @property
    def lengths(self) -> list[int]:
        return [clip.num_samples for clip in self]


def memory() -> float:
    """MiB of this process and its children, shared pages counted once."""
    processes = [os.getpid(), *(process.pid for process in multiprocessing.active_children())]
    return sum(_proportional(process) for process in processes if process) / 1024


def _proportional(process: int) -> int:
    text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    return int(re.findall(r"^Pss: +(\d+) kB", text, flags=re.MULTILINE)[0])


if __name__ == "__main__":
    run_command(main)
