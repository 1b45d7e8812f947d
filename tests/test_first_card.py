"""The first card says what the conversion knows, nothing that a stranger's file wants it to say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard

from conversion.first_card import first_card
from conversion.from_s3prl import convert
from model_card.render import render

DISTILLER = {"encoder_layers": 2, "encoder_embed_dim": 96, "n_tasks": 3, "pred_layer_id": [3, 7, 11]}
ACCOUNT: dict[str, Any] = {
    "source": "student.ckpt",
    "sha256": "0123456789abcdef" * 4,
    "step": 123_457,
    "distiller": DISTILLER,
    "model_class": "HubertModel",
    "num_parameters": 23_491_201,
    "dtype": "float32",
    "target_layers": [],
    "left_out": [],
    "tensors": {"a": "b"},
    "parity": [],
    "verified_on": "made-up sound",
    "vocabulary_size": None,
}
WITH_HEADS = ACCOUNT | {"model_class": "HubertForLayerDistillation", "target_layers": [3, 7, 11]}
RECOGNISER = ACCOUNT | {"model_class": "HubertForCTC", "vocabulary_size": 37}
HOSTILE = [
    "a`b` <script>alert(1)</script> **bold** [link](http://evil.example) `",
    "line one\n---\nlicense: mit\n---\n# Heading\n\n```python\nevil()\n```",
    "| cell \\| <img src=x onerror=evil()> |\r\n\u2028- item\x85{{ 7 * 7 }}{% raw %}",
    "\x1b[31mred \u202eterces\u200b\x00\ud800 \\` $x$ @someone #1",
    "` " * 500,
    "\n\n",
]


def prose(card: str) -> str:
    """The card without its metadata, its code blocks and its code spans."""
    body = re.sub(r"^```.*?^```$", "", ModelCard(card).text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`", "", body)


def vocabulary(folder: Path) -> Path:
    path = folder / "vocab.json"
    tokens = ["<pad>", "<unk>", "|", *"efhnortuvw"]
    path.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    return path


@pytest.mark.parametrize("account", [ACCOUNT, WITH_HEADS, RECOGNISER], ids=lambda a: a["model_class"])
def test_the_metadata_is_what_the_hub_reads_and_claims_no_licence(account: dict[str, Any]) -> None:
    data = ModelCard(first_card(account)).data
    recognises = account is RECOGNISER
    assert data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition" if recognises else "feature-extraction",
        "tags": ["speech", "hubert", "distilhubert"] + ["ctc"] * recognises,
    }


def test_the_card_says_where_the_model_comes_from_and_what_it_is() -> None:
    card = first_card(ACCOUNT)
    for fact in (
        "`student.ckpt`",
        "step 123,457",
        ACCOUNT["sha256"],
        "23,491,201 parameters",
        "`HubertModel`",
    ):
        assert fact in card
    assert "2 Transformer layers of width 96, float32." in card
    assert "checkpoint's, unchanged." in card
    assert "checkpoint's, rounded to float16." in first_card(ACCOUNT | {"dtype": "float16"})
    assert "at step" not in first_card(ACCOUNT | {"step": 0})


def test_the_card_says_what_became_of_the_heads() -> None:
    assert "(of the teacher's layers 3, 7, 11) were left out." in first_card(ACCOUNT)
    assert "kept: they predict the teacher's layers 3, 7, 11." in first_card(WITH_HEADS)
    without = DISTILLER | {"out_layer_type": "none", "task_emb_type": "none"}
    assert "has no prediction heads." in first_card(ACCOUNT | {"distiller": without})
    assert "CTC head, for 37 tokens, is untrained" in first_card(RECOGNISER)
    assert "untrained" not in first_card(ACCOUNT) + first_card(WITH_HEADS)


def test_differences_are_told_if_there_are_any_and_never_rounded_down() -> None:
    assert "Agreement" not in first_card(ACCOUNT)
    parts = [
        {"name": "front end", "max_difference": 3.11e-7, "relative_difference": 9.91e-8, "frames": 3},
        {"name": "layer 1", "max_difference": 0.0, "relative_difference": None, "frames": 3},
    ]
    card = first_card(ACCOUNT | {"parity": parts, "verified_on": "speech.wav"})
    assert "on `speech.wav`" in card
    assert "| `front end` | 3.2e-07 | 1.0e-07 |\n| `layer 1` | 0.0e+00 | not finite |\n" in card


def test_foreign_objects_are_named_but_not_without_end() -> None:
    assert "Objects of other programs" not in first_card(ACCOUNT)
    names = [f"module.Class{number}" for number in range(50)]
    card = first_card(ACCOUNT | {"left_out": names})
    assert "`module.Class0`, `module.Class1`" in card
    assert "`module.Class19` and 30 more, named in `conversion.json`." in card
    assert "Class20" not in card


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_stays_in_its_code_span(name: str) -> None:
    part = {"name": name, "max_difference": 0.0, "relative_difference": 0.0}
    changes = {"source": name, "left_out": [name, name], "parity": [part], "verified_on": name}
    plain = {"source": "x", "left_out": ["x", "x"], "parity": [part | {"name": "x"}], "verified_on": "x"}
    hostile, harmless = (first_card(ACCOUNT | change) for change in (changes, plain))
    assert prose(hostile) == prose(harmless)
    assert ModelCard(hostile).data.to_dict() == ModelCard(harmless).data.to_dict()
    assert len(hostile.splitlines()) == len(harmless.splitlines())
    assert all(character.isprintable() for character in hostile.replace("\n", ""))
    # However bars are escaped, some renderer of tables takes the escape for something else.
    assert {line.count("|") for line in hostile.splitlines() if line.startswith("|")} == {4}
    assert len(hostile) < len(harmless) + 1_000


@pytest.mark.parametrize(
    ("options", "name", "axes"),
    [
        ({}, "last_hidden_state", 3),
        ({"keep_heads": True}, "predictions", 4),
        ({"ctc": vocabulary}, "logits", 3),
    ],
    ids=["plain", "heads", "ctc"],
)
def test_the_code_on_the_card_runs_in_the_folder(
    options: dict[str, Any],
    name: str,
    axes: int,
    golden_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {key: value(tmp_path) if callable(value) else value for key, value in options.items()}
    convert(golden_dir / "conversion" / "paper.ckpt", tmp_path / "student", dtype="float16", **given)
    card = (tmp_path / "student" / "README.md").read_text(encoding="utf-8")
    account = json.loads((tmp_path / "student" / "conversion.json").read_text(encoding="utf-8"))
    assert card == first_card(account)
    monkeypatch.chdir(tmp_path / "student")
    soundfile.write("speech.wav", np.sin(np.arange(16_000) / 20).astype(np.float32), 16_000)
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)), names)  # noqa: S102
    assert names[name].ndim == axes
    assert "attention_mask" in names["inputs"]


def test_a_full_card_takes_its_place_also_after_fine_tuning(
    golden_dir: Path, spoken: Path, tmp_path: Path
) -> None:
    from finetune.arguments import CTCTrainingArguments
    from finetune.settings import FinetuneConfig
    from finetune.train import train

    folder = tmp_path / "student"
    convert(golden_dir / "conversion" / "paper.ckpt", folder, ctc=vocabulary(tmp_path))
    arguments = CTCTrainingArguments(str(tmp_path / "tuned"), max_steps=1, use_cpu=True)
    train(FinetuneConfig(model=str(folder), data=str(spoken)), arguments)
    for target, stages in ((folder, ["Converted"]), (tmp_path / "tuned", ["Converted", "Fine-tuned"])):
        text = render(target).text
        assert (target / "README.md").read_text(encoding="utf-8") == text
        assert re.findall(r"^\d\. \*\*([\w-]+)", text, flags=re.MULTILINE) == stages
        assert "first card" not in text
