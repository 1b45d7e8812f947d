"""Where a checkpoint comes from: a file of this machine, or one in a repository on the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.folders import file_sha256, resolved
from hf_distilhubert.loading import quiet_hub

HUB = "hub:"
SHA256 = re.compile(r"[0-9a-f]{64}")
EXAMPLE = "hub:leo19941227/distilhubert/distilhubert_ls960_4-8-12.ckpt"


def checkpoint_file(source: str | Path) -> Path:
    """The path of a checkpoint on this machine; one on the Hub is fetched into the Hub's cache, once.

    Args:
        source: a path, which is returned as it is, or `hub:OWNER/NAME/PATH/IN/REPO[@REVISION]`.

    Raises:
        UserError: the name has another form, there is no such file, the Hub cannot be reached, or what it
            sends is not what it announced.
    """
    if not str(source).startswith(HUB):
        resolved(source)
        return Path(source)
    repository, path, revision = _parse(str(source))
    try:
        return _fetch(repository, path, revision)
    # The client, its HTTP library and the file system raise classes with Exception as their only base.
    except Exception as error:
        reason = _reason(error, repository, path, revision)
        raise UserError(f"cannot fetch {source}: {reason}") from error


def _parse(source: str) -> tuple[str, str, str]:
    """Repository, path in it, and revision; only what follows the last `@` is the revision."""
    name, at, revision = source.removeprefix(HUB).rpartition("@")
    if not at:
        name, revision = revision, "main"
    parts = name.split("/")
    if len(parts) < 3 or not revision or {"", ".", ".."} & set(parts):
        raise UserError(f"{source!r} names no file on the Hub; give hub:OWNER/NAME/FILE, such as {EXAMPLE}")
    return "/".join(parts[:2]), "/".join(parts[2:]), revision


def _fetch(repository: str, path: str, revision: str) -> Path:
    """Download with the client's own bar; the client compares sizes alone, so the content is compared here.

    Raises:
        UserError: what arrived is not what the Hub announced; it is taken out of the cache.
    """
    from huggingface_hub import hf_hub_download

    with quiet_hub():
        found = Path(hf_hub_download(repository, path, revision=revision))
    # The cache calls a large file by its SHA-256.
    content = found.resolve()
    if SHA256.fullmatch(content.name) and file_sha256(content) != content.name:
        content.unlink()
        raise UserError("what arrived is not what the Hub announced, and was thrown away; try again")
    return found


def _reason(error: Exception, repository: str, path: str, revision: str) -> str:
    """What is wrong, and what to do."""
    from huggingface_hub import errors

    elsewhere = "or download the file with a browser and give its path"
    match error:
        case UserError():
            return f"{error}, {elsewhere}"
        case errors.LocalEntryNotFoundError(__cause__=errors.OfflineModeIsEnabled()):
            return f"HF_HUB_OFFLINE is set and the file is not in the cache; unset it, {elsewhere}"
        case errors.LocalEntryNotFoundError():
            cause = one_line(error.__cause__ or error, 200)
            return f"the Hub cannot be reached ({cause}); check the connection, {elsewhere}"
        case errors.GatedRepoError():
            return f"{repository} is gated; ask for access on its page, then log in (hf auth login)"
        case errors.RepositoryNotFoundError():
            return f"there is no {repository}, or it is private; correct the name, or log in (hf auth login)"
        case errors.RevisionNotFoundError():
            return f"{repository} has no revision {revision}; give one of its branches, tags or commits"
        case errors.RemoteEntryNotFoundError():
            return f"{repository} has no file {path} at {revision}; give one that its page lists"
        case errors.HFValidationError():
            return f"{repository} cannot be a repository; give OWNER/NAME as in {EXAMPLE}"
    return f"{one_line(error, 300)}; try again, log in (hf auth login), {elsewhere}"
