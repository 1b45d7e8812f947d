"""The card below its metadata: every section of `template.md`, by name."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_card import description, history, measured, wording
from model_card.facts import Facts
from model_card.limits import limitations

if TYPE_CHECKING:
    from jinja2 import Template

    from model_card.figures import Figure

PLACE = {"data": wording.code, "split": wording.cell}
FORMS = (
    *(wording.percent, wording.millions, wording.factor),
    *(wording.count, wording.megabytes, wording.scientific),
)


def sections(
    facts: Facts,
    metadata: Mapping[str, Any],
    figures: Mapping[str, Figure],
    written: str,
    repo_id: str | None = None,
) -> dict[str, str]:
    """Name -> Markdown, in the order of the card; empty where the folder says nothing of it.

    Args:
        facts: of the folder.
        metadata: the head of the card.
        figures: that were drawn, by what they show.
        written: which keys of the metadata are ours.
        repo_id: the repository that the model is loaded from; None for its folder.
    """
    template = _template()
    values = _usage(facts, repo_id) | _results(facts) | _prose(facts)
    context = template.new_context(
        values | {"metadata": metadata, "figures": figures, "written": written, "picture": picture}
    )
    return {name.replace("_", "-"): "".join(block(context)) for name, block in template.blocks.items()}


def usage(facts: Facts, repo_id: str) -> str:
    """The section on how to use the model, as it is loaded from a repository on the Hub."""
    template = _template()
    return "".join(template.blocks["usage"](template.new_context(_usage(facts, repo_id))))


def _template() -> Template:
    import jinja2

    # Markdown, not HTML: what comes from files is made safe by `cell` and `code`.
    environment = jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": wording.cell, "code": wording.code}
    environment.filters |= {form.__name__: _or_missing(form) for form in FORMS}
    return environment.get_template("template.md")


def _usage(facts: Facts, repo_id: str | None) -> dict[str, Any]:
    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    name, file = repo_id or facts.name, facts.export.get("file", "onnx/model.onnx")
    return {
        "facts": facts,
        "repo_id": repo_id,
        "reference": quoted(name),
        "hub_name": quoted(repo_id or f"OWNER/{facts.name}"),
        "shell_name": shlex.quote(name),
        "file": f"snapshot_download({quoted(name)}) + {quoted(f'/{file}')}"
        if repo_id
        else quoted(f"{name}/{file}"),
        "half": facts.config.get("dtype", "float32") != "float32",
        "heads": facts.architecture == "HubertForLayerDistillation",
    }


def _results(facts: Facts) -> dict[str, Any]:
    scores, comparison = facts.scores.items(), facts.comparison
    lines = [
        line(split, score) for split, score in scores for line in (measured.error_line, measured.against_line)
    ]
    return {
        "rate": wording.error_rate,
        "errors": [line for line in lines if line],
        "resampled": measured.resampled(facts),
        "groups": list(measured.groups(facts)),
        "measured_on": _place(comparison),
        "measured_cost": _place(facts.export.get("cost", {})),
        "machine": measured.machine_line(facts),
        "sizes": measured.sizes(facts.benchmark),
        "speeds": measured.speeds(facts.benchmark),
        "ratios": list(measured.ratios(facts.benchmark)),
        "parity": facts.conversion.get("parity", []),
    }


def _place(entry: Mapping[str, Any]) -> str:
    """On which speech something was measured."""
    return wording.listing(*(wording.given(entry, *item) for item in PLACE.items()))


def _prose(facts: Facts) -> dict[str, Any]:
    step = description.frame_milliseconds(facts)
    versions = facts.stages[-1].get("versions", {}) if facts.stages else {}
    return {
        "what_it_is": description.what_it_is(facts),
        "stages": history.stage_lines(facts),
        "commands": history.commands(facts),
        "settings": list(map(history.settings_line, facts.settings)),
        "versions": history.version_line(facts),
        "hidden_states": list(description.hidden_states(facts)),
        "step": f"{step:g}" if step else "",
        "limitations": limitations(facts),
        "input_line": description.input_line(facts),
        "text_line": description.text_line(facts),
        "vocabulary_line": description.vocabulary_line(facts),
        "project_version": versions.get("hf-distilhubert", ""),
    }


def picture(figure: Figure) -> str:
    """A figure in both styles: the browser takes the one that the reader's page has."""
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{figure.dark}">'
        f'<img src="{figure.light}" alt="{html.escape(figure.alt)}"></picture>'
    )


def _or_missing(form: Callable[[float | None], str]) -> Callable[[Any], str]:
    """A filter to which Jinja's "undefined" is what was not measured."""
    import jinja2

    return lambda value: form(None if isinstance(value, jinja2.Undefined) else value)
