"""Checkpoints beside a run's result: named by step, whole as soon as they are named, checked before use."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from hf_distilhubert.errors import UserError
from hf_distilhubert.folders import file_sha256

CHECKSUMS = "SHA256SUMS"  # in the format of the tool sha256sum
LOG = "log.jsonl"
LOCK = ".lock"  # held by the run that writes; the system lets go of it however the run ends
NAME = re.compile(r"step-\d{8,}")


class Checkpoints:
    """The folder `OUTPUT_DIR.checkpoints`, and what is in it: `step-00000500`, …

    Args:
        output_dir: where the finished result will lie.
        keep: how many of the newest checkpoints are kept.
    """

    def __init__(self, output_dir: str | Path, keep: int = 2) -> None:
        target = Path(output_dir).absolute()
        self.folder, self.keep = target.with_name(f"{target.name}.checkpoints"), keep

    @property
    def log(self) -> Path:
        """The log of the run as it grows."""
        return self.folder / LOG

    def named(self) -> list[Path]:
        """All checkpoints, oldest first, whether damaged or not."""
        found = (path for path in self.folder.glob("step-*") if NAME.fullmatch(path.name))
        return sorted(found, key=step_of)

    def newest_whole(self, say: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that is as it was written; damaged ones are set aside, saying so."""
        for path in reversed(self.named()):
            problem = damage(path)
            if problem is None:
                return path
            aside = path.with_name(f"{path.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            say(f"checkpoint {path} is damaged ({problem}) and set aside as {aside.name}")
        return None

    @contextmanager
    def opened(self, *, anew: bool) -> Iterator[None]:
        """Make the folder this run's alone; where an error leaves no checkpoint in it, it is removed.

        Args:
            anew: throw away what a stopped run left.

        Raises:
            UserError: it cannot be written, or another run is writing it.
        """
        lock = FileLock(self.folder / LOCK, blocking=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            self._remove(*(("[!.]*", ".step-*.partial") if anew else (".step-*.partial",)))
            self.log.touch()
        except Timeout as error:
            raise UserError(
                f"another run is writing {self.folder}; wait for its end, or choose another output folder"
            ) from error
        except OSError as error:
            raise UserError(
                f"cannot write {self.folder}: {error.strerror}; choose another output folder"
            ) from error
        try:
            yield
        except BaseException:
            if not self.named():
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            lock.release()
            self._leave()

    def partial(self, step: int) -> Path:
        """Where the checkpoint of a step is written until it is whole."""
        return self.folder / f".step-{step:08d}.partial"

    def commit(self, step: int, best: int | None) -> None:
        """Give a written checkpoint its name; only the newest ones, and the best, stay.

        Args:
            step: whose checkpoint lies in `partial(step)`.
            best: step whose checkpoint is kept however old it is.
        """
        seal(self.partial(step))
        self.partial(step).rename(self.folder / f"step-{step:08d}")
        for path in self.named()[: -self.keep]:
            if step_of(path) != best:
                shutil.rmtree(path)

    def finish(self, best: int | None = None) -> Path | None:
        """Throw away what a finished run no longer needs.

        Args:
            best: step whose checkpoint is kept, under the name `best`.

        Returns:
            Where that checkpoint lies now, None where there is none.
        """
        kept = None
        for path in self.named():
            if step_of(path) == best:
                kept = path.rename(self.folder / "best")
        self._remove("step-*", ".step-*.partial", LOG)
        self._leave()
        return kept

    def _remove(self, *patterns: str) -> None:
        for path in [path for pattern in patterns for path in self.folder.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _leave(self) -> None:
        """Leave no lock behind, and no empty folder; a tracker may have left its files in there."""
        (self.folder / LOCK).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.removeprefix("step-"))


def seal(folder: Path) -> None:
    """Write the checksums of all files in a folder, once they are on the disk."""
    lines = []
    for path in _files(folder):
        with path.open("rb+") as file:
            os.fsync(file.fileno())  # some file systems say only now that they are full
        lines.append(f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n")
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, None where nothing is."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        files = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        odd = sorted(expected.keys() ^ files.keys())
        if odd:
            return f"{odd[0]} is missing" if odd[0] in expected else f"{odd[0]} has no checksum"
        wrong = [name for name, path in files.items() if file_sha256(path) != expected[name]]
    except (OSError, UnicodeDecodeError):
        return f"{CHECKSUMS} cannot be read"
    return f"{wrong[0]} does not match its checksum" if wrong else None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
