"""docs/hub-failures.md, written from what the failures of the tests led to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

STEPS = {
    "whoami": "asks whose token it is",
    "info": "looks for the repository",
    "create": "makes the repository",
    "branch": "makes the branch (`--revision`)",
    "validate": "has the card's metadata checked",
    "preupload": "asks which files are large, and what has changed",
    "batch": "asks which large files are there",
    "put": "sends a large file",
    "verify": "has a large file confirmed",
    "discussions": "looks for a pull request that is open (`--pull_request`)",
    "commit": "makes the commit",
}
PULLS = """
## The other way: loading from a Hub that fails

The weights of a stock model by `HubertModel.from_pretrained`, and a checkpoint that is converted
(`hub:OWNER/NAME/FILE`), each with an empty cache; then once more with the cache that is there now, and a Hub
that works. A file whose download was cut off is never taken for whole: the client goes on with it, or begins
again. It compares sizes, though, not contents: where other bytes of the right number arrive, they stay in
the cache. The conversion compares the SHA-256 itself, says so and throws them away; what stock classes load
is checked with `hf cache verify OWNER/NAME`, and mended with `force_download=True`.
"""
KINDS = {
    **{status: f"answer {status}" for status in ("503", "429", "401", "403", "409", "412", "413")},
    "slow": "no answer",
    "cut request": "connection lost while sending",
    "cut answer": "connection lost in the middle of the answer",
    "lost answer": "done, but the answer is lost",
    "no JSON": "502 with a proxy's page",
}
HEAD = """\
# When the Hub fails

What `python -m model_card.push` does when the Hub does not do its part. All of this is done to it by
the tests (`tests/push_failures.py`), on a local Hub to which the real client pushes; they compare this page
with what came of it, and
`REWRITE_PAGES=1 python -m pytest tests/test_push_failures.py` writes it anew.

Three rules hold in all of them:

- **Everything or nothing.** All files arrive in one commit, which names the commit that it follows, so that
  a change by somebody else is a conflict and not a loss. A repository or branch that the push has made itself
  is taken away again when the push fails, as long as nothing has been committed to it; where the Hub does
  not allow even that, the message says that it stays, empty.
- **What passes is waited out.** No answer for 60 s, a lost connection and the answers 408, 429, 500, 502, 503
  and 504 are tried again up to five times, 1, 2, 4, 8 and 8 s later, or after as long as the Hub asks for
  (except for uploads, only if that is no more than 300 s). A commit of which only the answer
  was lost is recognised by its content, and not made again.
- **The next push goes on.** Large files that have arrived are not sent again, files that are there already
  are no part of the commit, and where all are there no commit is made.

Large files go as Git LFS here. The real Hub takes them by Xet from a client that has `hf_xet`, whose own
tries and waits are not tested; `HF_HUB_DISABLE_XET=1` brings the way that is.
"""


def page(pushes: list[dict[str, Any]], pulls: list[dict[str, Any]]) -> str:
    """The whole page.

    Args:
        pushes: what `push_failures` found.
        pulls: what `pull_failures` found.
    """
    cases = [case for case in pushes if case["step"] in STEPS]
    parts = (_steps(cases), _failures(cases), _repositories(cases), _gone(pushes), _pulls(pulls))
    return "\n".join([HEAD, *chain(*parts), ""])


def _steps(cases: list[dict[str, Any]]) -> Iterable[str]:
    yield "## What the message begins with\n"
    yield "| the push | begins with |\n|---|---|"
    for step, title in STEPS.items():
        begins = {_parts(case)[0] for case in cases if case["step"] == step and case["message"]}
        yield f"| {title} | {', '.join(sorted(begins))}: |"


def _failures(cases: list[dict[str, Any]]) -> Iterable[str]:
    yield "\n## How it goes on\n"
    yield "Numbers and words in brackets are the Hub's.\n"
    yield "| failure | where it passes | where it does not |\n|---|---|---|"
    for kind, title in KINDS.items():
        found = [case for case in cases if case["kind"] == kind]
        passes = {case["message"] is None for case in found if not case["for_ever"]}
        endings = sorted({_parts(case)[1].split("; what was made")[0] for case in found if case["message"]})
        yield f"| {title} | {_either(passes, 'waited out', 'not tried again')} | {'<br>'.join(endings)} |"


def _repositories(cases: list[dict[str, Any]]) -> Iterable[str]:
    yield "\n## The repository after a failure that does not pass\n"
    yield "Before, it was not there (for branch and pull request it was). (1): the message says that what was"
    yield "made for the push may still be there.\n"
    yield f"| the push | {' | '.join(KINDS.values())} |\n|---|{'---|' * len(KINDS)}"
    for step, title in STEPS.items():
        row = []
        for kind in KINDS:
            met = [
                case for case in cases if (case["step"], case["kind"]) == (step, kind) and case["for_ever"]
            ]
            row.append(" or ".join(sorted({_state(case) for case in met})))
        yield f"| {title} | {' | '.join(row)} |"


def _gone(pushes: list[dict[str, Any]]) -> Iterable[str]:
    """The Hub that goes away in the middle and does not come back, for a repository that is new."""
    yield "\n## The Hub goes away and does not come back\n"
    yield "A push to a repository that is not there yet, and then another that succeeds.\n"
    yield "| answers until then | the message | the repository |\n|---|---|---|"
    for case in pushes:
        if case["step"] == "every" and case["scenario"] == "new" and case["met"]:
            number = case["kind"].removeprefix("gone after ").removesuffix(" requests")
            yield f"| {number} | {case['message']} | {case['state']} |"


def _pulls(pulls: list[dict[str, Any]]) -> Iterable[str]:
    yield PULLS
    columns = "| ".join(
        f"{way}, where it passes | where it stays | then " for way in ("weights", "checkpoint")
    )
    yield f"| failure | request | {columns}|\n{'|---' * 8}|"
    for kind, title in (KINDS | {"wrong bytes": "other bytes of the same number"}).items():
        for step in ("head", "resolve"):
            cells = []
            for way in ("weights", "checkpoint"):
                found = [
                    case for case in pulls if (case["way"], case["step"], case["kind"]) == (way, step, kind)
                ]
                cells += [_outcome(found, "first", for_ever) for for_ever in (False, True)]
                cells.append(_outcome(found, "again", None))
            if any(cells):
                yield f"| {title} | {'HEAD' if step == 'head' else 'GET'} | {' | '.join(cells)} |"


def _outcome(found: list[dict[str, Any]], key: str, for_ever: bool | None) -> str:
    words = {"the same": "whole", "UserError": "one line"}
    outcomes = {case[key] for case in found if for_ever is None or case["for_ever"] == for_ever}
    return " or ".join(sorted(words.get(outcome, f"`{outcome}`") for outcome in outcomes))


def _parts(case: dict[str, Any]) -> tuple[str, str]:
    begin, _, rest = case["message"].partition(": ")
    return begin, rest


def _state(case: dict[str, Any]) -> str:
    return case["state"] + " (1)" * ("may still be" in (case["message"] or ""))


def _either(found: set[bool], yes: str, no: str) -> str:
    return " or ".join(word for value, word in ((True, yes), (False, no)) if value in found)
