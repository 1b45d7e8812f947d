"""S3PRL's own classes load checkpoints and listen; `test_s3prl_judge.py` runs this in a process of its own.

    PYTHONPATH=S3PRL'S_SOURCE python tests/s3prl_judge.py FOLDER

FOLDER/jobs.json names the checkpoints (`{name: path}`), FOLDER/clips.safetensors holds the sound ("0", "1",
…, each `(time,)`). What S3PRL computes of each goes to FOLDER/NAME.safetensors, and what it refused, step by
step, to FOLDER/refused.json. S3PRL unpickles a file whole: only our own and the golden files come here.

Nothing had to be put in the place of anything: `distutils`, which Python 3.12 lacks, comes with setuptools,
which torch asks for. S3PRL is imported by name, because no import statement of ours may name it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Parts = dict[str, Tensor]


@torch.no_grad()
def load_strictly(path: str, clips: list[Tensor]) -> Parts:
    """`DistillerModel` with `strict=True`: every part of what it computes, numbered as its expert does."""
    model_module = import_module("s3prl.upstream.distiller.model")
    content = torch.load(path, map_location="cpu", weights_only=False)  # as S3PRL's builder does
    model = model_module.DistillerModel(model_module.DistillerConfig(content["Config"]["distiller"]))
    model.load_state_dict(content["Distiller"], strict=True)
    waves = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(clip) for clip in clips], batch_first=True)
    features, projected, predictions, frame_mask, layers = model.eval()(
        waves, mask, get_hidden=True, no_pred=model.task_emb_type == "none"
    )
    states = [projected, *layers, *(predictions.unbind(1) if predictions is not None else ())]
    return {"conv_features": features, "pad_mask": frame_mask} | numbered(states)


@torch.no_grad()
def load_locally(path: str, clips: list[Tensor]) -> Parts:
    """`distiller_local`, called as SUPERB calls it: with a list of waveforms and nothing else."""
    upstream = import_module("s3prl.upstream.distiller.hubconf").distiller_local(path).eval()
    states = upstream(clips)
    return numbered(states.pop("hidden_states")) | states


@torch.no_grad()
def feed_superb(path: str, clips: list[Tensor], selection: str = "hidden_states") -> Parts:
    """SUPERB's weighted sum of all hidden states, fresh and thus their mean, cut to each clip's length."""
    upstream = import_module("s3prl.upstream.distiller.hubconf").distiller_local(path)
    interfaces = import_module("s3prl.upstream.interfaces")
    featurizer = interfaces.Featurizer(upstream, selection, upstream_device="cpu")
    return {str(i): feature for i, feature in enumerate(featurizer(clips, upstream(clips)))}


def feed_superb_paper(path: str, clips: list[Tensor]) -> Parts:
    """The feature that SUPERB takes with `-s paper`."""
    return feed_superb(path, clips, "paper")


STEPS: tuple[Callable[[str, list[Tensor]], Parts], ...] = (
    load_strictly,
    load_locally,
    feed_superb,
    feed_superb_paper,
)


def numbered(states: list[Tensor]) -> Parts:
    return {f"hidden_states.{i}": state for i, state in enumerate(states)}


def judge(path: str, clips: list[Tensor]) -> tuple[Parts, dict[str, str]]:
    """What S3PRL computes of a checkpoint at each step, and the steps at which it raises."""
    parts: Parts = {}
    refused = {}
    for step in STEPS:
        try:
            found = step(path, clips)
        except Exception as error:  # whatever S3PRL raises is its verdict
            refused[step.__name__] = f"{type(error).__name__}: {error}"
        else:
            # Copies, because safetensors takes no tensors that share memory.
            parts |= {f"{step.__name__}.{name}": part.clone().contiguous() for name, part in found.items()}
    return parts, refused


def main(folder: Path) -> None:
    """Judge every checkpoint of `jobs.json`."""
    jobs = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
    sound = load_file(folder / "clips.safetensors")
    clips = [sound[str(i)] for i in range(len(sound))]
    refused = {}
    for name, path in jobs.items():
        parts, refused[name] = judge(path, clips)
        save_file(parts, folder / f"{name}.safetensors")
    (folder / "refused.json").write_text(json.dumps(refused), encoding="utf-8")


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # S3PRL prints as it builds
        main(Path(sys.argv[1]))
