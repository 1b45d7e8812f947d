"""Write the card of a model folder, README.md and its figures, from what the stages left in it.

    python -m model_card.render MODEL_DIR
    python -m model_card.render MODEL_DIR --language en --license apache-2.0 --data_license cc-by-4.0
    python -m model_card.render MODEL_DIR --dataset openslr/librispeech_asr --base_model OWNER/NAME

What the folder does not say is left out or called not measured. Nothing is fetched. A card that is there
keeps what a person wrote outside of the marks, and the keys of the metadata that a person set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_distilhubert.errors import UserError, run_command
from model_card import metadata
from model_card.body import sections
from model_card.eval_results import entries, write_entries
from model_card.facts import read_facts
from model_card.files import replace
from model_card.sections import merged, read_card, section

NOTE = "note"


@dataclass(frozen=True)
class Card:
    """What was written.

    Attributes:
        path: the README.md.
        figures: the pictures it shows, the light and the dark ones.
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
    data_license: str | None = None,
    benchmarks: Sequence[str] | None = None,
    repo_id: str | None = None,
) -> Card:
    """Write `README.md` and `figures/` into `model_dir`; a card that is there is replaced in one move.

    What was given once stays in the card's metadata, until something else is given or written there.

    Args:
        model_dir: a folder with a model and what its stages wrote beside it.
        language: of the speech, as the Hub has it, e.g. `en`.
        license: of the weights, as the Hub has it, e.g. `apache-2.0`.
        base_model: the model's name on the Hub that this one was made from; by default the lineage's.
        dataset: the data set's name on the Hub; by default those of the lineage.
        data_license: of the speech that it was trained on, as the Hub has it, e.g. `cc-by-4.0`.
        benchmarks: data sets whose leaderboard the score should go to, `OWNER/NAME:TASK[:SPLIT]`; see
            `eval_results`.
        repo_id: what the card's code loads; by default the folder, which `push` sets right for what it sends.

    Raises:
        UserError: the folder holds no model, or cannot be read or written.
    """
    folder = Path(model_dir)
    facts = read_facts(folder)
    head, body = read_card(folder / "README.md")
    results = entries(facts, benchmarks or ())
    own = metadata.derived(facts)
    values = metadata.combined(
        metadata.parse(head, folder / "README.md"),
        section(body, NOTE),
        own,
        {
            "language": language,
            "license": license,
            "data_license": data_license,
            "base_model": base_model,
            "datasets": [dataset] if dataset else None,
        },
    )
    try:
        from model_card.figures import draw_figures

        figures = draw_figures(facts, folder)
        parts = sections(facts, values, figures, metadata.note(values, own), repo_id)
        text = f"---\n{metadata.as_yaml(values)}---\n{merged(body, parts)}"
        replace(folder / "README.md", lambda path: path.write_bytes(text.encode()))
        write_entries(folder, results)
    except OSError as error:
        raise UserError(
            f"cannot write the card into {model_dir}: {error.strerror}; make the folder writable"
        ) from error
    pictures = [folder / name for figure in figures.values() for name in (figure.light, figure.dark)]
    return Card(folder / "README.md", list(dict.fromkeys(pictures)), text)


def main() -> None:
    """Read the command line, write the card, say where it is."""
    from hf_distilhubert.config import argument_parser

    summary, examples = (__doc__ or "").split("\n\n")[:2]
    parser = argument_parser("python -m model_card.render", summary, examples)
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="a folder with a model, as a stage wrote it")
    parser.add_argument("--language", help="language of the speech, e.g. en")
    parser.add_argument("--license", help="licence of the weights, e.g. apache-2.0")
    parser.add_argument("--data_license", help="licence of the speech that it learned from, e.g. cc-by-4.0")
    parser.add_argument("--base_model", metavar="NAME", help="what it was made from, as the Hub calls it")
    parser.add_argument("--dataset", metavar="NAME", help="what it was trained on, as the Hub calls it")
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        metavar="NAME:TASK",
        help="data sets on the Hub whose leaderboard the score should go to (OWNER/NAME:TASK[:SPLIT])",
    )
    arguments = vars(parser.parse_args())
    print(render(arguments.pop("model_dir"), **arguments).path)


if __name__ == "__main__":
    run_command(main)
