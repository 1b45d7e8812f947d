"""Loads from a Hub that fails: every failure at every step, in one process; prints what came of each as JSON.

    python tests/pull_failures.py FOLDER

Two ways: the weights of a stock model (`HubertModel.from_pretrained`), and a checkpoint that is to be
converted (`hub:…`). After each failure the same is loaded once more from the same cache, without one.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hub_failures import Failure
from hub_server import HubServer
from push_failures import make_quick

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

KINDS = (
    *("503", "429", "401", "403", "slow"),
    *("cut request", "cut answer", "lost answer", "no JSON", "wrong bytes"),
)
REPOSITORY = "someone/model"
QUICK = 0.2  # seconds without an answer
CHECKPOINT = bytes(range(256)) * 1_000


def weights(cache: Path) -> str:
    """What the stock class loads, as a digest."""
    import hashlib

    from transformers import HubertModel

    model = HubertModel.from_pretrained(REPOSITORY, cache_dir=cache)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def checkpoint(cache: Path) -> str:
    """What the conversion would read."""
    from huggingface_hub import constants

    from conversion.sources import checkpoint_file
    from hf_distilhubert.folders import file_sha256

    constants.HF_HUB_CACHE = str(cache)
    return file_sha256(checkpoint_file(f"hub:{REPOSITORY}/student.ckpt"))


def attempt(load: Callable[[Path], str], cache: Path, right: str) -> str:
    """What came of it: `the same`, `other content`, or the error."""
    try:
        return "the same" if load(cache) == right else "other content"
    # Whatever the loader makes of it.
    except Exception as error:
        return type(error).__name__


def cases(hub: HubServer, folder: Path) -> Iterator[dict[str, Any]]:
    """Every failure at every request that matters, once and for ever."""
    # The configuration is asked for before the weights.
    for way, load, before in (("weights", weights, 1), ("checkpoint", checkpoint, 0)):
        right = load(folder / "cache" / way)
        for step in ("head", "resolve"):
            for kind in KINDS:
                for times in (1, None):
                    cache = folder / "cache" / "fresh"
                    shutil.rmtree(cache, ignore_errors=True)
                    failure = Failure(step, kind, times, wait=7 if kind == "429" else None, skip=before)
                    hub.trouble.failures = [failure]
                    first = attempt(load, cache, right)
                    hub.trouble.clear()
                    again = attempt(load, cache, right)
                    found = {"way": way, "step": step, "kind": kind, "for_ever": times is None}
                    yield found | {"met": failure.met, "first": first, "again": again}


def main(folder: Path) -> None:
    """Run all cases."""
    from conftest import save_teacher

    folder.mkdir(parents=True, exist_ok=True)
    hub_folder = folder / "hub"
    with HubServer(hub_folder) as hub:
        hub.trouble.patience = 0.5
        os.environ |= hub.environment(folder / "home") | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        save_teacher(hub_folder / REPOSITORY)
        (hub_folder / REPOSITORY / "student.ckpt").write_bytes(CHECKPOINT)
        from huggingface_hub import constants, hf_hub_download

        constants.HF_HUB_DOWNLOAD_TIMEOUT = QUICK
        inspect.unwrap(hf_hub_download).__kwdefaults__["etag_timeout"] = QUICK
        make_quick()
        from hf_distilhubert.loading import quiet_transformers

        with quiet_transformers():
            print(json.dumps(list(cases(hub, folder))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
