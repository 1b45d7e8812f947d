"""Check a model folder and send it to the Hub in one commit: everything or nothing.

    python -m model_card.push runs/recogniser someone/recogniser --dry_run
    python -m model_card.push runs/recogniser someone/recogniser --private
    python -m model_card.push runs/recogniser someone/recogniser --pull_request

Nothing is sent from a folder that does not load, or tells of the machine it was made on; pickles, hidden
files, checkpoints and tables of transcripts stay here. The card is sent with code that loads from the Hub. A
repository or branch that a failing push has made is taken away again.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hf_distilhubert.errors import UserError, run_command
from model_card.checks import NotReadyError, check
from model_card.hub_calls import SILENCE, in_one_line, retried, time_limit
from model_card.public import for_the_hub
from model_card.repository import Repository
from model_card.selection import File, LeftOut, Selection


@dataclass(frozen=True)
class Pushed:
    """What was sent, or would be.

    Attributes:
        repo_id: the repository.
        files: what it holds of the folder now.
        left_out: what stayed here, and why.
        commit: page of the commit; None where there was nothing to change, and after a dry run.
        pull_request: page of the pull request, if one was asked for.
    """

    repo_id: str
    files: list[File]
    left_out: list[LeftOut]
    commit: str | None = None
    pull_request: str | None = None


def push(
    model_dir: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    pull_request: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Send a model folder to the Hub.

    Args:
        model_dir: a folder with a model and its card.
        repo_id: `OWNER/NAME`, or `NAME` in the user's own space; made where it is missing.
        private: make it a private one; one that is there must be private already.
        revision: the branch, made from the main one where it is missing.
        pull_request: leave the branch alone, and open a pull request.
        dry_run: check, but send nothing; needs no network.

    Raises:
        NotReadyError: the folder has things to mend; nothing was sent.
        UserError: the Hub did not take it; the repository is as it was.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} cannot be a repository: {error}") from error
    with tempfile.TemporaryDirectory() as aside:
        prepare = partial(for_the_hub, model_dir, aside=Path(aside))
        selection = prepare(repo_id)
        check(model_dir, selection)
        if dry_run:
            return Pushed(repo_id, selection.files, selection.left_out)
        with time_limit(SILENCE):
            return _send(prepare, repo_id, private, revision, pull_request)


def _send(
    prepare: Callable[[str], Selection], repo_id: str, private: bool, revision: str | None, pull_request: bool
) -> Pushed:
    from huggingface_hub import HfApi

    api = HfApi()
    with in_one_line("asking whose token it is"):
        user = retried(api.whoami)["name"]
    repo_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
    repository, selection = Repository(api, repo_id, revision, user), prepare(repo_id)
    message = f"Upload {repo_id.split('/')[1]}"
    with repository.prepared(private=private) as head:
        arrived = repository.send(selection.files, head, message, pull_request=pull_request)
    return Pushed(repo_id, selection.files, selection.left_out, arrived.commit, arrived.pull_request)


def _show(model_dir: str, repo_id: str) -> None:
    """List what is sent and what is not."""
    with tempfile.TemporaryDirectory() as aside:
        selection = for_the_hub(model_dir, repo_id, Path(aside))
    for file in selection.files:
        print(f"{file.size:>15,}  {file.name}" + f" ({file.note})" * bool(file.note))
    print(f"{sum(file.size for file in selection.files):>15,}  bytes in {len(selection.files)} files")
    for left in selection.left_out:
        print(f"{'left out':>15}  {left.name} ({left.reason})")


def main() -> None:
    """Read the command line, list the files, push, and say where they are."""
    from hf_distilhubert.config import argument_parser

    summary, examples = (__doc__ or "").split("\n\n")[:2]
    parser = argument_parser("python -m model_card.push", summary, examples)
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="a folder with a model and its card")
    parser.add_argument("repo_id", metavar="REPO_ID", help="OWNER/NAME on the Hub, made where it is missing")
    parser.add_argument("--private", action="store_true", help="make it a private repository")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch, made where it is missing")
    parser.add_argument("--pull_request", action="store_true", help="open a pull request for the change")
    parser.add_argument("--dry_run", action="store_true", help="check and list the files, send nothing")
    arguments = vars(parser.parse_args())
    _show(arguments["model_dir"], arguments["repo_id"])
    try:
        pushed = push(**arguments)
    except NotReadyError as error:
        for finding in error.findings:
            print(finding, file=sys.stderr)
        raise
    if arguments["dry_run"]:
        print("nothing was sent: this was a dry run, and the folder is ready")
    else:
        print(pushed.pull_request or pushed.commit or f"{pushed.repo_id} holds these files already")


if __name__ == "__main__":
    run_command(main)
