"""Write the card of a model folder, README.md and its figures, from what the stages left in it.

    python -m model_card.render MODEL_DIR
    python -m model_card.render MODEL_DIR --language en --license apache-2.0 --dataset openslr/librispeech_asr

What the folder does not say is left out or called not measured. Nothing is fetched.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.errors import UserError, run_command
from model_card import wording
from model_card.facts import Facts, hub_data_set, hub_model, read_facts
from model_card.limits import limitations

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData


@dataclass(frozen=True)
class Card:
    """What was written.

    Attributes:
        path: the README.md.
        figures: the pictures it shows.
        text: the whole card, metadata first.
    """

    path: Path
    figures: list[Path]
    text: str


def render(
    model_dir: str | Path,
    *,
    language: str | None = None,
    license: str | None = None,  # noqa: A002 (the Hub's own word)
    base_model: str | None = None,
    dataset: str | None = None,
) -> Card:
    """Write `README.md` and `figures/` into `model_dir`; a card that is there is replaced in one move.

    Args:
        model_dir: a folder with a model and what its stages wrote beside it.
        language: of the speech, as the Hub has it, e.g. `en`.
        license: of the weights, as the Hub has it, e.g. `apache-2.0`.
        base_model: the model's name on the Hub that this one was made from; by default the lineage's.
        dataset: the data set's name on the Hub; by default those of the lineage.

    Raises:
        UserError: the folder holds no model, or cannot be read or written.
    """
    folder = Path(model_dir)
    facts = read_facts(folder)
    metadata = _metadata(facts, language=language, license=license, base_model=base_model, dataset=dataset)
    try:
        figures = _draw(facts, folder)
        text = f"---\n{metadata.to_yaml()}\n---\n\n{_body(facts, figures)}"
        _replace(folder / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot write the card into {model_dir}: {error.strerror}; make the folder writable"
        ) from error
    return Card(folder / "README.md", [folder / name for name in figures.values()], text)


def _metadata(facts: Facts, *, base_model: str | None, dataset: str | None, **given: Any) -> ModelCardData:
    """What the Hub reads: the head of the card."""
    from huggingface_hub import ModelCardData

    sources = [name for stage in reversed(facts.stages) if (name := hub_model(stage.get("source")))]
    data_sets = [name for stage in facts.stages if (name := hub_data_set(stage.get("data")))]
    results = [result for split, score in facts.scores.items() for result in _eval_results(split, score)]
    distilled = any(facts.stage(name) for name in ("convert", "distill"))
    tags = ["speech", str(facts.config.get("model_type", "hubert"))]
    tags += ["distilhubert"] * distilled + ["ctc"] * facts.recognises
    return ModelCardData(
        model_name=facts.name if results else None,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition" if facts.recognises else "feature-extraction",
        tags=tags,
        base_model=base_model or next(iter(sources), None),
        datasets=[dataset] if dataset else list(dict.fromkeys(data_sets)) or None,
        metrics=sorted({result.metric_type for result in results}, reverse=True) or None,
        eval_results=results or None,
        **given,
    )


def _eval_results(split: str, score: dict[str, Any]) -> list[EvalResult]:
    """WER and CER of one split, in percent, for the Hub's model-index."""
    from huggingface_hub import EvalResult

    data = str(score.get("data", split))
    return [
        EvalResult(
            task_type="automatic-speech-recognition",
            task_name="Speech recognition",
            dataset_type=hub_data_set(data) or data,
            dataset_name=hub_data_set(data) or data,
            dataset_split=score.get("split", split),
            metric_type=key,
            metric_name=f"{key.upper()} (%)",
            metric_value=float(wording.rounded_up(100 * score[key], 1)),
        )
        for key in ("wer", "cer")
        if key in score
    ]


def _draw(facts: Facts, folder: Path) -> dict[str, str]:
    """Draw what there are figures for; their names relative to the card, by what they show."""
    drawn: dict[str, list[dict[str, Any]]] = {}
    if facts.comparison.get("rows"):
        drawn["comparison"] = facts.comparison["rows"]
    if any("l1" in entry for entry in facts.log):
        drawn["losses"] = facts.log
    elif any("loss" in entry or "eval_wer" in entry for entry in facts.log):
        drawn["training"] = facts.log
    if not drawn:
        return {}
    from model_card.figures import DRAWINGS

    (folder / "figures").mkdir(exist_ok=True)
    for name, values in drawn.items():
        _replace(folder / "figures" / f"{name}.png", partial(DRAWINGS[name], values))
    return {name: f"figures/{name}.png" for name in drawn}


def _body(facts: Facts, figures: dict[str, str]) -> str:
    """The card below its metadata."""
    import jinja2

    # Markdown, not HTML: what comes from files is made safe by `cell` and `code`.
    environment = jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["cell"] = wording.cell
    for form in (wording.percent, wording.millions, wording.factor, wording.count):
        environment.filters[form.__name__] = _or_missing(form)
    comparison = facts.comparison
    place = wording.listing(wording.given(comparison, "data", wording.code), comparison.get("split", ""))
    return environment.get_template("template.md").render(
        facts=facts,
        reference=json.dumps(facts.name, ensure_ascii=False),
        what_it_is=wording.what_it_is(facts),
        stages=[wording.stage_line(stage) for stage in facts.stages],
        errors=[line for split, score in facts.scores.items() if (line := wording.error_line(split, score))],
        measured_on=place,
        limitations=limitations(facts),
        versions=wording.version_line(facts),
        figures=figures,
    )


def _or_missing(form: Callable[[float | None], str]) -> Callable[[Any], str]:
    """A filter to which Jinja's "undefined" is what was not measured."""
    import jinja2

    return lambda value: form(None if isinstance(value, jinja2.Undefined) else value)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside `path` and rename it: `path` is the old file or the new one, never half of it."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        write(Path(temporary) / path.name)
        (Path(temporary) / path.name).replace(path)


def main() -> None:
    """Read the command line, write the card, say where it is."""
    from hf_distilhubert.config import argument_parser

    summary, examples = (__doc__ or "").split("\n\n")[:2]
    parser = argument_parser("python -m model_card.render", summary, examples)
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="a folder with a model, as a stage wrote it")
    parser.add_argument("--language", help="language of the speech, e.g. en")
    parser.add_argument("--license", help="licence of the weights, e.g. apache-2.0")
    parser.add_argument("--base_model", metavar="NAME", help="what it was made from, as the Hub calls it")
    parser.add_argument("--dataset", metavar="NAME", help="what it was trained on, as the Hub calls it")
    arguments = vars(parser.parse_args())
    print(render(arguments.pop("model_dir"), **arguments).path)


if __name__ == "__main__":
    run_command(main)
