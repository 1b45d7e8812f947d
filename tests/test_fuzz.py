"""Damaged and hostile checkpoints: clean refusals or equal weights, and nothing else."""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import random
import resource
import shutil
import struct
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GOLDEN

from conversion.checkpoint import read_checkpoint, write_checkpoint
from conversion.configuration import from_distiller
from conversion.from_s3prl import convert
from conversion.inspect import inspect
from conversion.mapping import table, to_hugging_face
from hf_distilhubert.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
CASES = int(os.environ.get("FUZZ_CASES", "2000"))
# What a reader has no business with; Python tells of each before it happens.
FORBIDDEN = ("subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "socket.")
FORBIDDEN += ("os.remove", "os.rename", "os.mkdir", "os.chmod", "shutil.", "ctypes.", "pickle.")


class Watch:
    """Names every forbidden thing that happens, and every file opened for writing, while it is on."""

    def __init__(self) -> None:
        self.on, self.seen = False, []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        # Python's own modules are run when they are first imported; a text that becomes code has no file.
        code = event == "exec" and not Path(arguments[0].co_filename).is_file()
        if writes or code or event.startswith(FORBIDDEN):
            self.seen.append((event, arguments))


WATCH = Watch()


def flip_bits(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] if draw.random() < 0.7 else data[:start] + data[start + draw.randrange(1, 2000) :]


def change_pickle(data: bytes, draw: random.Random) -> bytes:
    """The same archive with another pickle: bytes or whole instructions changed, doubled, swapped or gone."""
    if data[:2] != b"PK":
        # The older format begins with its pickles.
        head = len(data) // 8
        return mutate_pickle(data[:head], draw) + data[head:]
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as out:
        for name in source.namelist():
            part = source.read(name)
            out.writestr(name, mutate_pickle(part, draw) if name.endswith("data.pkl") else part)
    return target.getvalue()


def mutate_pickle(code: bytes, draw: random.Random) -> bytes:
    try:
        ends = [position for _, _, position in pickletools.genops(code) if position]
    except ValueError:
        return flip_bits(code, draw)
    first, second = sorted(draw.sample(ends, 2))
    kind = draw.randrange(5)
    if kind == 0:
        return code[:first] + code[second:]
    if kind == 1:
        return code[:first] + code[first:second] * 2 + code[second:]
    if kind == 2:
        return code[:first] + draw.choice(SNIPPETS) + code[first:]
    if kind == 3:
        return code[:first] + draw.choice(SNIPPETS) + code[second:]
    return flip_bits(code, draw)


class Payload:
    """A pickle of it asks for a call."""

    def __reduce__(self) -> Any:
        return os.system, ("touch checkpoint_payload_ran",)


# What a hostile hand would put in.
SNIPPETS = [
    pickle.dumps(Payload(), protocol=0)[:-1],
    pickle.dumps(Payload(), protocol=4)[11:-1],
    b"r\xff\xff\xff\x7f",  # LONG_BINPUT far outside the memo
    b"\x8b\xff\xff\xff\x7f",  # LONG4 of two billion bytes
    b"X\xff\xff\xff\x7f",  # text of two billion bytes
    b"\x85" * 3000,  # tuples in tuples
    b"]q\x00h\x00a",  # a list in itself
    b"h\x00h\x01h\x02",
    b"(((((((",
    b"u",
    b"b",
    b"R",
    b"cbuiltins\neval\n",
    b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R",
    b"\x82\x01",  # EXT1
    b"0" * 50,
]


def read(path: Path) -> dict[str, torch.Tensor]:
    """All that stands between a file and a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint = read_checkpoint(path)
    return to_hugging_face(checkpoint.weights, *from_distiller(checkpoint.distiller))


def attempt(path: Path) -> dict[str, torch.Tensor] | str:
    """The weights, or the refusal; everything else that happens meanwhile is on the watch's list."""
    WATCH.on = True
    try:
        return read(path)
    except UserError as error:
        return str(error)
    finally:
        WATCH.on = False


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in right)


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_mutated_files_are_refused_or_load_to_equal_weights(tmp_path: Path, golden_dir: Path) -> None:
    """Bit flips, cuts and changed pickles of every good file.

    Only the old format has no checksum over its numbers: there a flipped bit can be another number.
    """
    files = sorted(GOLDEN.glob("*.ckpt")) + sorted(GOLDEN.glob("bad/LOADS-*.ckpt"))
    good = {path: (path.read_bytes(), read(path)) for path in files}
    largest, before = max(len(data) for data, _ in good.values()), peak_memory()
    draw, refused, equal = random.Random(0), 0, 0
    target = tmp_path / "mutated.ckpt"
    for case in range(CASES):
        path = files[case % len(files)]
        data, weights = good[path]
        mutation = draw.choice([flip_bits, flip_bits, cut, change_pickle, change_pickle, change_pickle])
        target.write_bytes(mutation(data, draw))
        outcome = attempt(target)
        if isinstance(outcome, str):
            refused += 1
            assert outcome.startswith((str(target), "tensor", "unknown tensor", "the checkpoint's config"))
            assert "\n" not in outcome
        else:
            equal += 1
            assert "tar-format" in path.name or same(outcome, weights), (case, mutation.__name__)
        assert WATCH.seen == []
        assert list(tmp_path.iterdir()) == [target]
    assert peak_memory() - before < 64 * largest
    assert min(refused, equal) > CASES // 20, f"{refused} refused, {equal} equal"
    print(f"{refused} refused, {equal} with equal weights")


def test_a_mutated_file_leaves_nothing_behind_whatever_the_command_meets(
    tmp_path: Path, golden_dir: Path
) -> None:
    path, draw = GOLDEN / "paper.ckpt", random.Random(1)
    target, student = tmp_path / "mutated.ckpt", tmp_path / "student"
    for _ in range(40):
        target.write_bytes(draw.choice([flip_bits, cut, change_pickle])(path.read_bytes(), draw))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                convert(target, student, keep_heads=True)
            except UserError:
                assert list(tmp_path.iterdir()) == [target]
            else:
                shutil.rmtree(student)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def shared_lists(depth: int = 12) -> bytes:
    """A list in a list, ten times each: 10**12 values."""
    return b"]q\x00(" + b"K\x00" * 10 + b"e" + (b"q\x000](" + b"h\x00" * 10 + b"e") * depth


STORAGE = b"\x80\x02(" + text("storage") + b"ctorch\nFloatStorage\n"
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n(("
    + STORAGE[3:]
    + text("0")
    + text("cpu")
    + b"K\x01tQK\x00))\x89}tR"
)
LONG_NAMES = b"".join(b"h\x00" + text(f"{i:06}") + b"\x930" for i in range(2_000))
# What a checkpoint of some hundred bytes could ask for: memory, time, or the end of the process.
BOMBS = {
    "type of shared lists": b"\x80\x02cnumpy\ndtype\n" + shared_lists() + b"\x85R.",
    "key of shared lists": STORAGE + shared_lists() + text("cpu") + b"K\x01tQ.",
    "long names": b"\x80\x04" + text("m" * 2**20) + b"q\x00" + LONG_NAMES + b"N.",
    "places that collide": b"\x80\x02N"
    + b"".join(b"p%d\n" % (1 + i * (2**61 - 1)) for i in range(40_000))
    + b".",
    "key twice": b"\x80\x02}(" + (text("a") + b"N") * 2 + b"u.",
    "memo": b"\x80\x02]r\xff\xff\xff\x7f.",
    "nested tuples": b"\x80\x02)" + b"\x85" * 900_000 + b"}q\x00h\x00.",
    "tuple as a key": b"\x80\x02})" + b"\x85" * 500_000 + b"K\x01s.",
    "many instructions": b"\x80\x02" + b"]0" * 3_000_000 + b".",
    "huge number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_quickly_and_takes_no_memory(name: str, tmp_path: Path) -> None:
    code = BOMBS[name]
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", code)
    before, started = peak_memory(), time.process_time()
    assert isinstance(attempt(path), str)
    assert peak_memory() - before < 300e6
    assert time.process_time() - started < 20


def legacy(*parts: Any) -> bytes:
    return b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, *parts))


LITTLE = {"little_endian": True}
ODD_FILES = {
    "no dictionary": legacy([1]),
    "big-endian": legacy({"little_endian": False}, {}, []),
    "keys of shared lists": legacy(LITTLE, {}) + b"\x80\x02(" + shared_lists() + b"l.",
    "more behind the end": legacy(LITTLE, {}, []) + b"\x00",
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_odd_file_of_the_old_format_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.ckpt"
    path.write_bytes(ODD_FILES[name])
    assert "cannot be read as a PyTorch checkpoint" in attempt(path)


def test_an_odd_archive_is_one_line(tmp_path: Path) -> None:
    torch.save({"Distiller": {"a": torch.ones(1)}, "Config": {"distiller": {}}}, tmp_path / "good.ckpt")
    with zipfile.ZipFile(tmp_path / "good.ckpt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(parts)).split("/")[0]
    changes = {
        "big-endian": {**parts, f"{folder}/byteorder": b"big"},
        "expected 4": {**parts, f"{folder}/data/0": bytes(8)},
        "not one of torch": {**parts, "other/data.pkl": b"N."},
    }
    for said, changed in changes.items():
        path = tmp_path / "odd.ckpt"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in changed.items():
                archive.writestr(name, data)
        assert said in attempt(path)
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "good.ckpt", "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(f"{folder}/data/0", bytes(4))
    assert "there twice" in attempt(tmp_path / "good.ckpt")


def test_looking_into_many_names_of_one_dictionary_stays_small(tmp_path: Path) -> None:
    names = [text(f"n{i}") for i in range(3_000)]
    inner = b"}(" + b"".join(name + b"h\x02" for name in names) + b"uq\x03"
    code = (
        b"\x80\x02"
        + TENSOR
        + b"q\x020"
        + inner
        + b"0}("
        + b"".join(name + b"h\x03" for name in names)
        + b"u."
    )
    with zipfile.ZipFile(tmp_path / "many.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/data/0", bytes(4))
    assert len(inspect(tmp_path / "many.ckpt").tensors) == 3_000


TINY = {
    "extractor_conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
    "conv_pos": 4,
    "conv_pos_groups": 1,
    "encoder_embed_dim": 4,
    "encoder_ffn_embed_dim": 4,
    "encoder_attention_heads": 1,
    "out_layer_type": "none",
    "task_emb_type": "none",
}
HUNGRY = {
    "encoder_embed_dim": 100,
    "encoder_attention_heads": 100,
    "extractor_conv_feature_layers": "[(8,1,1)]",
}


@pytest.mark.parametrize(
    ("changes", "fill", "said"),
    [
        (HUNGRY, torch.randn, "numbers at once"),
        ({"extractor_conv_feature_layers": "[(99999,1,1)] + [(8,1,1)]"}, torch.randn, "numbers at once"),
        ({}, torch.zeros, "not finite"),
        ({}, lambda shape: torch.full(shape, 1e37), "not finite"),
    ],
)
def test_a_whole_checkpoint_that_computes_nonsense_is_one_line(
    changes: dict, fill: Any, said: str, tmp_path: Path
) -> None:
    settings = TINY | changes
    rows = table(*from_distiller(settings))
    write_checkpoint(tmp_path / "odd.ckpt", {row.s3prl: fill(row.s3prl_shape) for row in rows}, settings)
    with pytest.raises(UserError, match=said):
        convert(tmp_path / "odd.ckpt", tmp_path / "student")
    assert list(tmp_path.iterdir()) == [tmp_path / "odd.ckpt"]


def test_tensors_that_share_their_numbers_are_parted(tmp_path: Path) -> None:
    numbers = torch.randn(1_000)
    rows = list(table(*from_distiller(TINY)))
    weights = {row.s3prl: numbers[: math.prod(row.s3prl_shape)].view(row.s3prl_shape) for row in rows}
    extra = torch.randn(10_000)  # else they would claim more than the file holds
    torch.save(
        {"Distiller": weights, "Config": {"distiller": TINY}, "extra": extra}, tmp_path / "shared.ckpt"
    )
    convert(tmp_path / "shared.ckpt", tmp_path / "student")


def test_a_compressed_archive_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"]" * 10**8)
    before = peak_memory()
    assert "compressed" in attempt(path)
    assert peak_memory() - before < 10e6


def config_file(path: Path, settings: Any) -> Path:
    torch.save({"Distiller": {"a": torch.ones(1)}, "Config": {"distiller": settings}}, path)
    return path


def test_settings_without_end_are_refused(tmp_path: Path) -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    wide: list[Any] = [0] * 10
    for _ in range(15):
        wide = [wide] * 10  # 10**16 values, in some hundred bytes
    for name, settings in {"circle": circle, "wide": {"n": wide}}.items():
        assert "has no end" in attempt(config_file(tmp_path / f"{name}.ckpt", settings))
    many = config_file(tmp_path / "many.ckpt", {"encoder_layers": 100_000})
    assert "encoder_layers = 100000" in attempt(many)
    text = config_file(tmp_path / "text.ckpt", {"activation_fn": "\ud800"})
    assert "holds a str" in attempt(text)
    digits = config_file(tmp_path / "digits.ckpt", {"n_tasks": 10**5000})
    assert "holds a int" in attempt(digits)
