"""Pushes to a Hub that fails: every failure at every step, in one process; prints what came of each as JSON.

    HF_HUB_OFFLINE=0 python tests/push_failures.py FOLDER

The checks of the model folder, which need no Hub, are left out; nobody waits between the tries, of which
there are three.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hub_failures import Failure
from hub_server import HubServer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

KINDS = (
    *("503", "429", "401", "403", "409", "412", "413"),
    *("slow", "cut request", "cut answer", "lost answer", "no JSON"),
)
MAIN_STEPS = ("whoami", "info", "create", "validate", "preupload", "batch", "put", "verify", "commit")
# Whether the repository is there before, how it is pushed to, and at which steps what goes wrong: everything
# where it is new, elsewhere what is other there, and one failure of each sort.
SCENARIOS: dict[str, tuple[bool, dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "new": (False, {}, MAIN_STEPS, KINDS),
    "old": (True, {}, MAIN_STEPS[:2] + MAIN_STEPS[3:], ("503", "401", "cut request", "lost answer")),
    "branch": (True, {"revision": "dev"}, ("branch", "commit"), KINDS),
    "request": (True, {"pull_request": True}, ("discussions", "commit"), KINDS),
}
OLD = {
    "README.md": b"---\nlicense: mit\n---\n# Old\n",
    "model.safetensors": b"old weights",
    "kept.txt": b"kept",
}
NEW = {"README.md": b"---\nlicense: mit\n---\n# New\n", "model.safetensors": b"new weights" * 100}
REPOSITORY = "someone/model"
QUICK, USUAL = 0.1, 20.0  # seconds without an answer

State = dict[str, bytes]


class Case:
    """A Hub, and one repository on it that is pushed to."""

    def __init__(self, hub: HubServer, model: Path, scenario: str) -> None:
        self.hub, self.model, self.scenario = hub, model, scenario
        self.there, self.options, *_ = SCENARIOS[scenario]
        hub.trouble.clear()
        hub.uploads.objects.clear()
        hub.uploads.requests.clear()
        hub.uploads.private.clear()
        shutil.rmtree(hub.root)
        hub.root.mkdir()
        for name, content in OLD.items() if self.there else ():
            path = hub.root / REPOSITORY / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.before = self.state()

    def state(self) -> State:
        """All files of all revisions, and the empty folders, by their names."""
        found = sorted(self.hub.root.rglob("*"))
        return {
            path.relative_to(self.hub.root).as_posix(): path.read_bytes() if path.is_file() else b""
            for path in found
            if path.is_file() or (path.is_dir() and len(path.relative_to(self.hub.root).parts) == 2)
        }

    def named_state(self) -> str:
        """What the repository is now."""
        if self.state() == self.before:
            return "as before"
        if self.whole():
            return "whole"
        old = {f"{REPOSITORY}@dev/{name}": content for name, content in OLD.items()}
        new = {"new": {REPOSITORY: b""}, "branch": {f"{REPOSITORY}@dev": b""} | old}.get(self.scenario, {})
        return "made, empty" if self.state() == self.before | new else "broken"

    def whole(self) -> bool:
        """Whether the files are where they should be, all else as it was."""
        place = {"branch": f"{REPOSITORY}@dev", "request": f"{REPOSITORY}@refs/pr/1"}.get(
            self.scenario, REPOSITORY
        )
        wanted = self.before | {f"{place}/{name}": content for name, content in NEW.items()}
        if self.there and place != REPOSITORY:
            wanted[f"{place}/kept.txt"] = OLD["kept.txt"]
        folders = {REPOSITORY: b"", place if place.count("/") == 1 else f"{REPOSITORY}@refs": b""}
        return self.state() == wanted | folders

    def push(self, limit: float) -> tuple[str | None, Any]:
        """The one line that a user reads where it fails, else what was pushed."""
        import model_card.push
        from hf_distilhubert.errors import UserError

        model_card.push.SILENCE = limit
        with warnings.catch_warnings(record=True):
            try:
                return None, model_card.push.push(self.model, REPOSITORY, **self.options)
            except UserError as error:
                return str(error).replace(self.hub.address, "https://hub"), None

    def run(self, *failures: Failure) -> dict[str, Any]:
        """Push into the failures, then once more without."""
        self.hub.trouble.failures = list(failures)
        slow = any(failure.kind == "slow" for failure in failures)
        commits = len(self.hub.uploads.summaries)
        message, _ = self.push(QUICK if slow else USUAL)
        state = self.named_state()
        met = sum(failure.met for failure in failures)
        self.hub.trouble.clear()
        stored, asked = bool(self.hub.uploads.objects), len(self.hub.requests)
        again, _ = self.push(USUAL)
        puts = sum(request.startswith("PUT") for request in self.hub.requests[asked:])
        return {
            "scenario": self.scenario,
            "met": met,
            "message": message,
            "state": state,
            "again": again,
            "whole": self.whole(),
            "sent_twice": stored and puts > 0,
            "commits": len(self.hub.uploads.summaries) - commits,
        }


def cases(hub: HubServer, model: Path) -> Iterator[dict[str, Any]]:
    """Every failure at every step, once and for ever; then a Hub that is gone after so many requests."""
    for scenario, (_, _, steps, kinds) in SCENARIOS.items():
        for step in steps:
            for kind in kinds:
                for times in (1, None) if scenario == "new" else (None,):
                    failure = Failure(step, kind, times, wait=7 if kind == "429" else None)
                    found = Case(hub, model, scenario).run(failure)
                    yield {"step": step, "kind": kind, "for_ever": times is None} | found
        for skip in range(20):
            found = Case(hub, model, scenario).run(Failure("every", "cut request", None, skip=skip))
            yield {"step": "every", "kind": f"gone after {skip} requests", "for_ever": True} | found
            if found["met"] == 0:
                break
        lost = [Failure("commit", "503", None), Failure("delete", "503", None)]
        yield {"step": "delete", "kind": "503", "for_ever": True} | Case(hub, model, scenario).run(*lost)


def make_quick() -> None:
    """No pauses, three tries, and certificates, which this Hub has not, read once for all clients."""
    from huggingface_hub.utils import _http

    import model_card.hub_calls

    sys.setswitchinterval(1e-4)  # the Hub and its client take turns here
    time.sleep = lambda _: None
    model_card.hub_calls.WAITS = model_card.hub_calls.WAITS[:2]
    _http.http_backoff.__kwdefaults__["max_retries"] = 2
    certificates = ssl.create_default_context()
    ssl.create_default_context = lambda *_, **__: certificates


def main(folder: Path) -> None:
    """Run all cases."""
    model = folder / "model"
    model.mkdir(parents=True)
    for name, content in NEW.items():
        (model / name).write_bytes(content)
    (folder / "hub").mkdir()
    with HubServer(folder / "hub") as hub:
        os.environ |= hub.environment(folder / "home")
        from huggingface_hub.utils import disable_progress_bars, logging

        import model_card.push

        disable_progress_bars()
        logging.set_verbosity_error()
        make_quick()
        model_card.push.check = lambda *_: None
        print(json.dumps(list(cases(hub, model))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
