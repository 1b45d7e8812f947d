"""S3PRL's checkpoint file: everything harmless is read, nothing in it is run."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import sys
import tarfile
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from conversion.checkpoint import read_checkpoint, write_checkpoint
from hf_distilhubert.errors import UserError

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).resolve().parents[2] / "shared" / "golden"))
PAYLOAD = Path(tempfile.gettempdir()) / "checkpoint_payload_ran"


def content(**changes: Any) -> dict[str, Any]:
    """The least that S3PRL writes."""
    return {"Distiller": {"a": torch.ones(2)}, "Config": {"distiller": {"n_tasks": 3}}, "Step": 7} | changes


def saved(path: Path, value: Any, **kwargs: Any) -> Path:
    torch.save(value, path, **kwargs)
    return path


class Payload:
    """Its pickle calls a function when it is read."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("conversion/bad/LOADS-*")), ids=lambda path: path.stem)
def test_old_and_unusual_files_load_to_the_same_weights(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = read_checkpoint(path)
    reference = read_checkpoint(GOLDEN / "conversion" / "paper.ckpt")
    assert loaded.distiller == reference.distiller
    assert loaded.weights.keys() == reference.weights.keys()
    for name, tensor in reference.weights.items():
        expected = tensor.half().float() if "half" in path.name else tensor
        assert loaded.weights[name].dtype == torch.float32
        assert torch.equal(loaded.weights[name], expected), name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["Args", "Optimizer", "Config", "Distiller", "Step"])
@pytest.mark.parametrize("function", ["os.system", "builtins.exec", "builtins.eval", "pathlib.Path.touch"])
def test_nothing_in_a_file_is_run(tmp_path: Path, legacy: bool, place: str, function: str) -> None:
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')"
    payload = {
        "os.system": Payload(os.system, f"touch {marker}"),
        "builtins.exec": Payload(exec, code),
        "builtins.eval": Payload(eval, code),
        "pathlib.Path.touch": Payload(Path.touch, marker),
    }[function]
    path = saved(
        tmp_path / "file.ckpt", content(**{place: payload}), _use_new_zipfile_serialization=not legacy
    )
    if place in ("Config", "Distiller"):
        with pytest.raises(UserError, match=r"an object of|cannot be read"):
            read_checkpoint(path)
    else:
        with pytest.warns(UserWarning, match="left out, not run"):
            assert read_checkpoint(path).weights["a"].tolist() == [1.0, 1.0]
    assert [file.name for file in tmp_path.iterdir()] == ["file.ckpt"]


@pytest.mark.parametrize(
    ("step", "read"), [(7, 7), (7.0, 7), (True, 0), (1.5, 0), ("7", 0), (None, 0), (-1, 0), (10**30, 0)]
)
def test_a_step_is_a_whole_number_or_not_said(tmp_path: Path, step: Any, read: int) -> None:
    assert read_checkpoint(saved(tmp_path / "file.ckpt", content(Step=step))).step == read


def test_numbers_of_numpy_and_unused_settings_are_no_trouble(tmp_path: Path) -> None:
    import numpy as np

    settings = {"n_tasks": np.int64(3), "dropout": np.float32(0.5), "layer_norm_first": np.bool_(True)}
    config = {"distiller": settings, "runner": {"path": Path("/x"), "most": float("inf")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint = read_checkpoint(saved(tmp_path / "file.ckpt", content(Config=config)))
    assert checkpoint.distiller == {"n_tasks": 3, "dropout": 0.5, "layer_norm_first": True}


def test_a_foreign_object_is_named_in_one_warning(golden_dir: Path) -> None:
    with pytest.warns(UserWarning, match=r"left out.*system") as caught:
        checkpoint = read_checkpoint(golden_dir / "conversion" / "bad" / "payload-in-args.ckpt")
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert checkpoint.foreign == (f"{os.system.__module__}.system",)
    assert not PAYLOAD.exists()


def test_a_pickle_cannot_change_the_functions_that_rebuild_tensors(tmp_path: Path) -> None:
    rebuilt = pickle.dumps(torch._utils._rebuild_tensor_v2, protocol=2)[2:-1]
    poison = b"\x80\x02" + rebuilt + b"N}(X\x04\x00\x00\x00evilK\x01u\x86b."  # BUILD with (None, {"evil": 1})
    head = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    path = tmp_path / "poison.ckpt"
    path.write_bytes(head + poison)
    with pytest.raises(UserError, match="cannot be read"):
        read_checkpoint(path)
    assert not hasattr(torch._utils._rebuild_tensor_v2, "evil")


def test_namespaces_dictionaries_and_parameters_are_plain_and_need_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EasyDict(dict[str, Any]):
        """Like the one of the package: its items are its attributes too."""

        def __init__(self, items: dict[str, Any]) -> None:
            super().__init__(items)
            self.__dict__.update(items)

    EasyDict.__module__, EasyDict.__qualname__ = "easydict", "EasyDict"
    module = types.ModuleType("easydict")
    module.EasyDict = EasyDict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "easydict", module)
    config = collections.defaultdict(list, distiller=EasyDict({"n_tasks": 3, "pred_layer_id": (4, 8)}))
    weights = torch.nn.Linear(2, 3).state_dict()
    weights["p"] = torch.nn.Parameter(torch.ones(2))
    state = content(Config=config, Distiller=weights, Args=argparse.Namespace(seed=1))
    path = saved(tmp_path / "file.ckpt", state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint = read_checkpoint(path)
    assert checkpoint.distiller == {"n_tasks": 3, "pred_layer_id": [4, 8]}
    assert list(checkpoint.weights) == ["weight", "bias", "p"]
    assert all(type(tensor) is torch.Tensor for tensor in checkpoint.weights.values())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2], "holds a list"),
        (content(Distiller=None), "'Distiller' is a NoneType"),
        (content(Config={}), "Config\\['distiller'\\]"),
        (content(Config={"distiller": {"dropout": float("nan")}}), r"\['dropout'\] holds a float"),
        (content(Config={"distiller": {"dropout": torch.ones(1)}}), r"\['dropout'\] holds a tensor of shape"),
        (content(Distiller={"a": torch.ones(2, dtype=torch.float64)}), "'a' is torch.float64"),
        (content(Distiller={"a": 3}), "'a' is a int"),
        (content(Distiller={"a": torch.ones(1), "module.a": torch.ones(1)}), "'a' is there twice"),
        (content(Distiller={"a": torch.ones(1).expand(10**6)}), "claim more than the file holds"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_told_what_it_lacks(tmp_path: Path, state: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_checkpoint(saved(tmp_path / "file.ckpt", state))


def test_archives_that_torch_would_run_or_unpack_are_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.ckpt"
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(script))
    with pytest.raises(UserError, match="TorchScript"):
        read_checkpoint(script)
    archive = tmp_path / "archive.ckpt"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(UserError, match="neither of torch's two formats"):
        read_checkpoint(archive)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    weights = {"h": torch.ones(2, dtype=torch.float16), "b": torch.ones(2, dtype=torch.bfloat16)}
    checkpoint = read_checkpoint(saved(tmp_path / "file.ckpt", content(Distiller=weights)))
    assert {tensor.dtype for tensor in checkpoint.weights.values()} == {torch.float32}
    assert checkpoint.step == 7


def test_a_written_checkpoint_is_what_s3prl_expects(tmp_path: Path) -> None:
    weights = {"a": torch.randn(2, 3), "b": torch.randn(4)[1:3]}
    path = write_checkpoint(tmp_path / "new" / "student.ckpt", weights, {"n_tasks": 1})
    state = torch.load(path, weights_only=False)
    assert state.keys() == {"Optimizer", "Step", "Args", "Config", "Distiller"}
    assert state["Args"].upstream == "distiller"
    assert state["Config"].keys() == {"distiller", "teacher", "task", "audio"}
    assert state["Config"]["distiller"] == {"n_tasks": 1}
    loaded = read_checkpoint(path).weights
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    # A slice is written alone, not with the tensor it was cut from.
    assert state["Distiller"]["b"].untyped_storage().nbytes() == 8


def test_writing_replaces_nothing_unasked_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_checkpoint(tmp_path / "student.ckpt", {"a": torch.zeros(1)}, {})
    with pytest.raises(UserError, match="--overwrite"):
        write_checkpoint(path, {"a": torch.ones(1)}, {})
    with pytest.raises(UserError, match="is a folder"):
        write_checkpoint(tmp_path, {}, {}, overwrite=True)

    # torch's zip writer says it in a class of its own, with an error of the system or without.
    for error in (OSError(28, "No space left on device"), RuntimeError("file write failed")):

        def full_disk(*_: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", full_disk)
            with pytest.raises(UserError, match="cannot write.*(No space left|write failed)"):
                write_checkpoint(path, {"a": torch.ones(1)}, {}, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["student.ckpt"]
    assert torch.load(path, weights_only=False)["Distiller"]["a"].item() == 0.0
    write_checkpoint(path, {"a": torch.ones(1)}, {}, overwrite=True)
    assert torch.load(path, weights_only=False)["Distiller"]["a"].item() == 1.0
    assert [file.name for file in tmp_path.iterdir()] == ["student.ckpt"]
