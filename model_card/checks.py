"""What is looked at before anything is sent: all that a user has to mend, found in one go."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from hf_distilhubert.errors import UserError, one_line
from hf_distilhubert.loading import quiet_hub
from model_card.leaks import Machine, leaks
from model_card.loadable import loads, needs_this_package, weights
from model_card.selection import Selection

MAX_OF_A_KIND = 20  # findings of one file that are listed; a table of paths would hide everything else


class NotReadyError(UserError):
    """A folder that must not be published as it is.

    Attributes:
        findings: what is wrong and what to do about it, a line each.
    """

    def __init__(self, model_dir: str | Path, findings: list[str]) -> None:
        things = "one thing" if len(findings) == 1 else f"{len(findings)} things"
        super().__init__(f"nothing was sent: {model_dir} has {things} to mend, the first is: {findings[0]}")
        self.findings = findings


def check(model_dir: str | Path, selection: Selection) -> None:
    """Look at everything that would be sent.

    Raises:
        NotReadyError: something is wrong with it.
    """
    folder = Path(model_dir)
    findings = [one_line(finding) for finding in _findings(folder, selection)]
    if findings:
        raise NotReadyError(model_dir, findings)


def _findings(folder: Path, selection: Selection) -> Iterator[str]:
    damaged = list(weights(selection))
    yield from damaged
    if not damaged:
        yield from loads(folder, selection)
    if needs_this_package(folder):
        # Better published, with a card that says so, than kept: there is no stock class that it fits.
        warnings.warn(
            f"{folder} mixes layers, so stock Transformers refuses it; it loads after "
            "`import hf_distilhubert.layer_sum`, and once exported it loads everywhere",
            stacklevel=4,
        )
    yield from _card(folder, selection)
    machine = Machine.this()
    for file in selection.files:
        found = list(leaks(file, machine))
        yield from (f"{finding}: take it out" for finding in found[:MAX_OF_A_KIND])
        if len(found) > MAX_OF_A_KIND:
            yield f"{file.name} has {len(found) - MAX_OF_A_KIND} more of these"


def _card(folder: Path, selection: Selection) -> Iterator[str]:
    """What is wrong with the card's metadata, as far as that can be said without the Hub."""
    from huggingface_hub import ModelCard

    render = f"python -m model_card.render {folder}"
    file = selection.named("README.md")
    if file is None:
        yield f"there is no card, README.md: write one with {render} --license … --data_license …"
        return
    try:
        with quiet_hub():
            data = ModelCard.load(file.path).data.to_dict()
    # A mistake in YAML, in what the keys hold, or in the encoding: each has a class of its own library.
    except Exception as error:
        yield f"README.md has no valid metadata ({one_line(error, 200)}): mend it, or take it away; {render}"
        return
    for key, of in (("license", "the weights"), ("data_license", "the data that they learned from")):
        if not isinstance(data.get(key), str | list) or not data[key]:
            yield f"README.md does not state the licence of {of} ({key}): {render} --{key} NAME"
