"""Targets on disk: what they are worth, how a cache is filled, what is refused."""

from __future__ import annotations

import os
import shutil
import types
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from crashes import Crash
from filelock import FileLock

from hf_distilhubert import UserError, target_building
from hf_distilhubert.cached_clips import TargetReader
from hf_distilhubert.distillation_data import Collator
from hf_distilhubert.speech_data import load_clips
from hf_distilhubert.target_building import fill
from hf_distilhubert.target_cache import TargetCache, describe
from hf_distilhubert.teachers import Teacher, load_teacher


@pytest.fixture
def teacher(tiny_teacher) -> Teacher:
    AcceleratorState._reset_state()
    return load_teacher(tiny_teacher, [2, 4], 2)


@pytest.fixture
def clips(spoken):
    return load_clips(spoken, "all").clips


@pytest.fixture
def cache(teacher, tmp_path):
    """A cache of the teacher, by the name of its folder; `changes` are those of its header."""

    def opened(name: str = "targets", **changes) -> TargetCache:
        header = describe(teacher, mask_group_norm=True, precision="no", dtype="float16")
        return TargetCache(tmp_path / name, header | changes)

    return opened


def fill_in(cache: TargetCache, teacher: Teacher, clips) -> TargetCache:
    fill(Accelerator(cpu=True), teacher, cache, clips)
    return cache


def heard(teacher: Teacher, clip) -> torch.Tensor:
    values = torch.from_numpy(clip.read())[None]
    return teacher(values, torch.ones_like(values, dtype=torch.long))[0]


def everything(cache: TargetCache, clips) -> list[torch.Tensor]:
    return [cache.read(clip, 0, (len(clip.read()) - 80) // 320) for clip in clips]


def reader(cache: TargetCache, max_samples: int = 3_000) -> TargetReader:
    kernels, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    return TargetReader(cache, Collator(kernels, strides, pad_multiple=1_000), max_samples)


# What is in it


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("int8", 0.5 / 127)])
def test_a_crop_gets_the_frames_of_the_whole_clip(teacher, clips, cache, dtype, error):
    source = reader(fill_in(cache(dtype=dtype), teacher, clips))
    frames, starts = 9, set()  # of 3,000 samples
    for position, clip in enumerate(clips):
        whole = clip.read()
        waveform, targets = source.excerpt(clip, np.random.default_rng(position))
        places = [
            start for start in range(len(whole)) if np.array_equal(whole[start : start + 3_000], waveform)
        ]
        first = places[0] // 320
        assert (places[0] % 320, targets.shape) == (0, (2, frames, 32))
        expected = heard(teacher, clip)[:, first : first + frames]
        bound = error * expected.abs().amax(dim=-1, keepdim=True) + 1e-5
        assert ((targets.float() - expected).abs() <= bound).all()
        starts.add(first)
    assert len(starts) > 5


def test_batches_are_padded_with_their_targets(teacher, clips, cache):
    source = reader(fill_in(cache(), teacher, clips), max_samples=16_000)
    excerpts = [source.excerpt(clip) for clip in clips[:3]]
    batch = source.collate(excerpts)
    assert (batch["targets"].dtype, batch["targets"].shape[2]) == (
        torch.float16,
        batch["frame_mask"].shape[1],
    )
    for row, mask, excerpt in zip(batch["targets"], batch["frame_mask"], excerpts, strict=True):
        assert torch.equal(row[:, mask], excerpt.targets)
        assert not row[:, ~mask].any()


def test_what_is_too_large_for_float16_is_refused_and_int8_takes_it(tiny_teacher, spoken, tmp_path, cache):
    loud = load_teacher(tiny_teacher, [2, 4], 2)
    loud.model.encoder.layers[3].final_layer_norm.weight.data *= 1e6
    clips = load_clips(spoken, "test").clips
    with pytest.raises(UserError, match="not finite, or too large for float16; give another --cache_dtype"):
        fill_in(cache("loud"), loud, clips)
    whole = fill_in(cache("loud8", dtype="int8"), loud, clips)
    expected = heard(loud, clips[0])
    bound = expected.abs().amax(dim=-1, keepdim=True) * 0.51 / 127
    assert ((everything(whole, clips)[0] - expected).abs() <= bound).all()


# Filling


@pytest.mark.parametrize("writes", [1, 2, 5, 6])
def test_a_build_killed_anywhere_goes_on_and_gives_the_same_numbers(
    teacher, clips, cache, monkeypatch, writes
):
    monkeypatch.setattr(target_building, "BATCH_SECONDS", 3)
    expected = everything(fill_in(cache("alone"), teacher, clips), clips)
    to_disk, done = target_building._to_disk, iter(range(writes - 1))

    def torn(file) -> None:
        if next(done, None) is None:
            file.flush()
            os.truncate(file.fileno(), file.tell() - 9)
            raise Crash
        to_disk(file)

    monkeypatch.setattr(target_building, "_to_disk", torn)
    with pytest.raises(Crash):
        fill_in(cache(), teacher, clips)
    monkeypatch.setattr(target_building, "_to_disk", to_disk)
    left = len(cache().look_up(clips))
    assert 0 < left < len(clips) or writes <= 2
    assert all(map(torch.equal, everything(fill_in(cache(), teacher, clips), clips), expected))
    assert cache().look_up(clips) == []


def test_damage_is_noticed_and_one_shard_made_anew(teacher, clips, cache, monkeypatch):
    monkeypatch.setattr(target_building, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(target_building, "BATCH_SECONDS", 2)
    whole = fill_in(cache(), teacher, clips)
    expected = everything(whole, clips)
    shards = sorted(whole.folder.glob("*.bin"))
    assert len(shards) > 2
    content = bytearray(shards[-1].read_bytes())
    content[len(content) // 2] ^= 1
    shards[-1].write_bytes(content)
    again = cache()
    again.look_up(clips)
    with pytest.raises(
        UserError, match=rf"are damaged; delete .*{shards[-1].name} and give the same command"
    ):
        everything(again, clips)
    shards[-1].unlink()
    os.truncate(shards[0], shards[0].stat().st_size - 1)
    assert 2 <= len(again.look_up(clips)) < len(clips)
    assert all(map(torch.equal, everything(fill_in(again, teacher, clips), clips), expected))
    assert not shards[-1].exists()  # nothing is written under a number that an index still names


def test_more_clips_are_added_and_other_sound_of_the_same_name_and_length_is_heard(
    teacher, clips, cache, tmp_path
):
    few = fill_in(cache(), teacher, clips[:5])
    assert few.look_up(clips) == list(range(5, len(clips)))
    sound = clips[0].read()
    clip = replace(clips[0], audio=tmp_path / "other.wav")
    heard_as = []
    for change in (sound, -sound):
        soundfile.write(clip.audio, change, 16_000)
        heard_as += everything(fill_in(cache(), teacher, [clip, *clips[1:]]), [clip])
    assert not torch.equal(*heard_as)
    assert cache().look_up(clips[1:]) == []


def test_a_second_run_waits_for_the_first_and_would_do_no_harm(teacher, clips, cache, tmp_path, monkeypatch):
    fill_in(cache(), teacher, clips[:2])
    with FileLock(tmp_path / "targets" / ".lock"), pytest.raises(UserError, match="another run is filling"):
        fill_in(cache(), teacher, clips)
    monkeypatch.setattr(target_building, "SHARD", "unseen-")  # as when both look at the same moment
    two = [target_building.Shards(tmp_path / "targets") for _ in range(2)]
    for clip in clips:
        for shards in two:
            shards.add("float16", [(clip, heard(teacher, clip))])
    assert len(list((tmp_path / "targets").glob("*.bin"))) == 3
    twice = cache()
    assert twice.look_up(clips) == []
    for clip, targets in zip(clips, everything(twice, clips), strict=True):
        assert torch.equal(targets, heard(teacher, clip).half())


def test_size_is_announced_and_a_full_disk_refused(teacher, clips, cache, monkeypatch, capsys, tmp_path):
    room = types.SimpleNamespace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(UserError, match=r"take \S+e-05 GB, and .*targets has 1e-05 GB left; .*int8"):
        fill_in(cache(), teacher, clips)
    assert not list((tmp_path / "targets").glob("*.bin"))
    monkeypatch.undo()
    fill_in(cache(), teacher, clips)
    size = sum(path.stat().st_size for path in (tmp_path / "targets").glob("*.bin"))
    assert f"targets of {len(clips)} clips" in (said := capsys.readouterr().out)
    assert f"take {size / 1e9:.3g} GB" in said
    long = replace(clips[0], clip_id="long", num_samples=16_000 * 301)
    with pytest.raises(UserError, match="long lasts 301 s, and targets are those of whole clips"):
        fill_in(cache(), teacher, [long])


@pytest.mark.parametrize("name", ["layers", "do_normalize", "mask_group_norm", "precision", "dtype"])
def test_targets_of_another_teacher_are_refused_by_name(tiny_teacher, teacher, clips, cache, tmp_path, name):
    fill_in(cache(), teacher, clips[:1])
    with pytest.raises(UserError, match=f"holds targets of another {name} "):
        cache(**{name: "int8" if name == "dtype" else [1]})
    other = load_teacher(tiny_teacher, [2, 4], 2)
    next(other.parameters()).data[0] += 1
    header = describe(other, mask_group_norm=True, precision="no", dtype="float16")
    with pytest.raises(UserError, match="holds targets of another teacher "):
        TargetCache(tmp_path / "targets", header)
    with pytest.raises(UserError, match="holds other things than targets"):
        cache("spoken")
