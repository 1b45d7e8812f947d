"""Which files of a model folder are sent to the Hub, and which stay here and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hf_distilhubert.errors import UserError

# What `pickle` and `torch.save` begin their files with: protocols 2 to 5, and a zip archive.
PICKLE = re.compile(rb"\x80[\x02-\x05]|PK\x03\x04")
PICKLE_NAMES = re.compile(r"(?i).+\.(bin|ckpt|joblib|pickle|pkl|pt|pth)")
# Reasons by what the whole name of a file or folder looks like; the first that fits is given.
UNWANTED = (
    (re.compile(r"(?i)(.*\.)?optimi[sz]er\..*"), "state of a training"),
    (re.compile(r"checkpoint-\d+|step-\d{8,}.*|.*\.checkpoints"), "checkpoints of a training"),
    (re.compile(r"events\.out\.tfevents\..*"), "a training's log for TensorBoard, which names the machine"),
    (
        re.compile(r"utterances\.csv"),
        "every transcript and file name of a split; results.json has the figures",
    ),
    (re.compile(r"(?i).*\.(lock|tmp|temp|partial|incomplete|pyc)|__pycache__"), "temporary"),
)
HIDDEN_BUT_SENT = (".eval_results",)  # the Hub reads results of evaluations there


@dataclass(frozen=True)
class File:
    """A file that is sent.

    Attributes:
        name: in the repository, with slashes.
        path: here.
        size: in bytes.
        note: what it says otherwise than the file of this name in the folder.
    """

    name: str
    path: Path
    size: int
    note: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not sent.

    Attributes:
        name: in the model folder, with slashes; a folder's ends in one.
        reason: why, in a few words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Selection:
    """Everything in a model folder, in the order of the names.

    Attributes:
        files: what is sent.
        left_out: what is not.
    """

    files: list[File]
    left_out: list[LeftOut]

    def named(self, name: str) -> File | None:
        """The file of this name, if it is sent."""
        return next((file for file in self.files if file.name == name), None)


def select(model_dir: str | Path) -> Selection:
    """Sort the files of a model folder into those that are sent and those that are not.

    Raises:
        UserError: there is no such folder, or something in it cannot be read.
    """
    folder = Path(model_dir)
    if not folder.is_dir():
        raise UserError(f"there is no folder {model_dir}; give a folder that holds a model")
    files: list[File] = []
    left_out: list[LeftOut] = []
    try:
        for found in _walk(folder, folder):
            (files if isinstance(found, File) else left_out).append(found)  # type: ignore[arg-type]
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}; make it readable") from error
    return Selection(files, left_out)


def _walk(folder: Path, root: Path) -> Iterator[File | LeftOut]:
    for path in sorted(folder.iterdir()):
        name = path.relative_to(root).as_posix()
        reason = _unwanted(path)
        if reason is not None:
            yield LeftOut(name + "/" * path.is_dir(), reason)
        elif path.is_dir():
            yield from _walk(path, root)
        else:
            yield File(name, path, path.stat().st_size)


def _unwanted(path: Path) -> str | None:
    """Why a file or folder is not sent; None where it is."""
    if path.name.startswith(".") and path.name not in HIDDEN_BUT_SENT:
        return "hidden"
    for names, reason in UNWANTED:
        if names.fullmatch(path.name):
            return reason
    if path.is_dir():
        return "a link to a folder" if path.is_symlink() else None
    if not path.is_file():
        return "no file, or a link to nothing"
    if path.name == "report.html" and path.with_name("utterances.csv").is_file() and not _embeds(path):
        return "every transcript, with clips of this machine; finetune.score --embed_audio writes one to send"
    return "a pickle or an archive, which can hold code" if _pickled(path) else None


def _embeds(path: Path) -> bool:
    """Whether the page of a score was written to be sent: the sound is in it, and no clip's place."""
    content = path.read_bytes()
    return b"data:audio/" in content and b'src="../' not in content


def _pickled(path: Path) -> bool:
    """Whether a file is a pickle by its name or its first bytes; the weights of OpenVINO are none."""
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return False
    with path.open("rb") as file:
        return bool(PICKLE_NAMES.fullmatch(path.name) or PICKLE.match(file.read(4)))
