"""A model repository on the Hub, as a push sees it: made where it is missing, changed in one commit."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from hf_distilhubert.errors import UserError
from hf_distilhubert.folders import file_sha256
from model_card.hub_calls import in_one_line, retried
from model_card.selection import File
from model_card.undo import Undo
from model_card.wording import counted

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

Result = TypeVar("Result")
MAIN = "main"
SHOWN = 5  # names in a message
NEW = {".gitattributes"}  # what the Hub itself puts into a new repository


@dataclass(frozen=True)
class Arrived:
    """What the repository holds now.

    Attributes:
        commit: page of the commit; None where nothing had to be changed.
        pull_request: page of the pull request that holds the files, if they went into one.
    """

    commit: str | None = None
    pull_request: str | None = None


class Repository:
    """A repository, and the branch of it that a push is for.

    Args:
        api: the Hub.
        repo_id: `OWNER/NAME`.
        revision: the branch; None for the main one.
        user: whose token it is.
    """

    def __init__(self, api: HfApi, repo_id: str, revision: str | None, user: str) -> None:
        self.api, self.repo_id, self.revision, self.user = api, repo_id, revision or MAIN, user
        self._names: set[str] = set()  # of the files on the branch

    @contextmanager
    def prepared(self, *, private: bool) -> Iterator[str]:
        """The commit that the branch stands at; repository and branch are made where they are missing.

        What was made goes again after an error, unless something has been committed to it.

        Raises:
            UserError: it cannot be made, or is not what it should be.
        """
        undo = Undo()
        try:
            if not self._there(private):
                self._make(private, undo)
            if (head := self._head()) is None:
                self._make_branch(undo)
                head = self._head()
            if head is None:
                raise UserError(f"{self.repo_id} has no branch {self.revision} still; push again later")
            yield head
        except BaseException as error:
            undo.run(error, self.repo_id)
            raise

    def send(self, files: Sequence[File], parent: str, message: str, *, pull_request: bool) -> Arrived:
        """Bring the files there in one commit.

        Args:
            files: all of them; what is there already is not sent.
            parent: the commit that the branch must still stand at.
            message: the first line of the commit's message.
            pull_request: leave the branch alone, and ask for the change in a pull request.

        Raises:
            UserError: it failed; the repository is as it was.
        """
        from huggingface_hub import CommitOperationAdd, ModelCard

        def commit() -> Arrived:
            if pull_request and (page := self._open_request(files)):
                return Arrived(pull_request=page)
            done = self.api.create_commit(
                self.repo_id,
                operations,
                commit_message=message,
                revision=self.revision,
                create_pr=pull_request,
                parent_commit=parent,
            )
            # Nothing to change: the client then tells of the newest commit.
            return Arrived(None if done.oid == parent else done.commit_url, done.pr_url)

        if others := sorted(self._names - {file.name for file in files} - NEW):
            warnings.warn(
                f"{self.repo_id} keeps {counted(len(others), 'file')} that the folder does not have "
                f"({', '.join(others[:SHOWN])}{', …' * (len(others) > SHOWN)}); delete on its page what an "
                "earlier push left there, or others may load it",
                stacklevel=3,
            )
        operations = [CommitOperationAdd(file.name, file.path) for file in files]
        with in_one_line("checking the card"):
            # The client does so too, but only when everything large has been sent.
            for file in files:
                if file.name == "README.md":
                    retried(ModelCard.load(file.path).validate)
        with in_one_line("uploading the files"):
            self.api.preupload_lfs_files(
                self.repo_id, operations, revision=self.revision, create_pr=pull_request, free_memory=False
            )
        with in_one_line("making the commit"):
            try:
                return retried(commit)
            except Exception:
                # Where only the answer was lost, a second try is refused, for the branch has moved on.
                if arrived := self._arrived(files, parent, pull_request=pull_request):
                    return arrived
                raise

    def _arrived(self, files: Sequence[File], parent: str, *, pull_request: bool) -> Arrived | None:
        """Whether the change is there after all; None too where the Hub does not say."""
        with suppress(Exception):
            if pull_request:
                page = self._open_request(files)
                return Arrived(pull_request=page) if page else None
            head = self._head()
            if head != parent and self._holds(files, self.revision):
                return Arrived(f"{self.api.endpoint}/{self.repo_id}/commit/{head}")
        return None

    # ----- what is there ----------------------------------------------------------------------------------

    def _there(self, private: bool) -> bool:
        """Whether there is such a model.

        Raises:
            UserError: a data set or Space has the name, or the model is public and should not be.
        """
        if found := self._info():
            if private and not found.private:
                raise UserError(
                    f"{self.repo_id} is there and public; make it private on its page, or leave out --private"
                )
            return True
        for kind, words in (("dataset", "a data set"), ("space", "a Space")):
            if self._call("looking for the repository", partial(self._exists, kind)):
                raise UserError(f"{self.repo_id} is {words} on the Hub; choose another name for the model")
        return False

    def _info(self, revision: str | None = None) -> ModelInfo | None:
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        def ask() -> ModelInfo | None:
            try:
                return self.api.model_info(self.repo_id, revision=revision)
            except (RepositoryNotFoundError, RevisionNotFoundError):
                return None

        return self._call("looking for the repository", ask)

    def _exists(self, kind: str) -> bool:
        """`HfApi.repo_exists`, which takes a server in trouble for a repository that is there."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            self.api.repo_info(self.repo_id, repo_type=kind)
        except RepositoryNotFoundError:
            return False
        return True

    def _head(self) -> str | None:
        """The commit that the branch stands at; None where there is no such branch."""
        found = self._info(self.revision)
        self._names = {entry.rfilename for entry in found.siblings or ()} if found else set()
        return found.sha if found else None

    def _holds(self, files: Sequence[File], revision: str) -> bool:
        """Whether the repository has these files, byte for byte."""
        names = [file.name for file in files]
        found = {
            entry.path: entry for entry in self.api.get_paths_info(self.repo_id, names, revision=revision)
        }
        return all(file.name in found and _same(file, found[file.name]) for file in files)

    def _open_request(self, files: Sequence[File]) -> str | None:
        """The page of an open pull request of this user that holds these files already."""
        requests = self.api.get_repo_discussions(
            self.repo_id, author=self.user, discussion_type="pull_request", discussion_status="open"
        )
        return next((r.url for r in requests if self._holds(files, f"refs/pr/{r.num}")), None)

    # ----- what is made -----------------------------------------------------------------------------------

    def _make(self, private: bool, undo: Undo) -> None:
        """Make the repository; what takes it away as long as it is empty goes into `undo`."""

        def unmake() -> None:
            now = self._info()
            if now is not None and {entry.rfilename for entry in now.siblings or ()} <= NEW:
                self.api.delete_repo(self.repo_id)

        create = partial(self.api.create_repo, self.repo_id, private=private or None)
        with in_one_line("making the repository"):
            undo.make(create, unmake)

    def _make_branch(self, undo: Undo) -> None:
        """Make the branch; what takes it away as long as it is the main one still goes into `undo`."""
        start = self._info(MAIN)

        def unmake() -> None:
            if start is not None and self._head() == start.sha:
                self.api.delete_branch(self.repo_id, branch=self.revision)

        create = partial(self.api.create_branch, self.repo_id, branch=self.revision)
        with in_one_line("making the branch"):
            undo.make(create, unmake)

    def _call(self, doing: str, call: Callable[[], Result]) -> Result:
        with in_one_line(doing):
            return retried(call)


def _same(file: File, entry: object) -> bool:
    """Whether an entry of a repository has a file's content: by SHA-256 where it is large, else by git's."""
    large = getattr(entry, "lfs", None)
    if large is not None:
        return bool(large.sha256 == file_sha256(file.path))
    content = file.path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return bool(getattr(entry, "blob_id", None) == blob.hexdigest())
