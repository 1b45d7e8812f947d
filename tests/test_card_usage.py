"""The code on a card runs as it stands, and gives what the card says it gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cards import LETTERS, make_recogniser, make_student, save_weights, tiny_config

from model_card.render import render

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return make_student(tmp_path / "student")


def run_usage_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a card's Python beside the model's folder; the names that it leaves."""
    code = re.findall(r"```python\n(.*?)```", render(folder).text, flags=re.DOTALL)
    monkeypatch.chdir(folder.parent)
    soundfile.write("speech.wav", np.sin(np.arange(16_000) / 20).astype(np.float32), 16_000)
    names: dict[str, Any] = {}
    exec(compile("\n".join(code), "card", "exec"), names)  # noqa: S102
    return names


def test_usage_code_of_a_recogniser_prints_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_usage_code(make_recogniser(tmp_path / "recogniser", save_weights(tmp_path / "weights")), monkeypatch)
    assert set(capsys.readouterr().out) <= set("".join(LETTERS) + " \n")


@pytest.mark.parametrize("normalised", [True, False], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("extractor", [True, False], ids=["extractor", "no extractor"])
def test_usage_code_of_an_encoder_gives_the_hidden_states_that_the_card_speaks_of(
    extractor: bool, normalised: bool, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import HubertModel

    model = HubertModel(tiny_config(do_stable_layer_norm=normalised))
    model.save_pretrained(student)
    if not extractor:
        (student / "preprocessor_config.json").unlink()
    names = run_usage_code(student, monkeypatch)
    states = names["hidden_states"]
    assert [tuple(state.shape) for state in states] == [(1, 50, 16), (1, 50, 16)]
    text = render(student).text
    last = names["model"](**names["inputs"]).last_hidden_state
    # Which of the two is normalised depends on the kind of model.
    assert ("positions added, normalised |" in text) is not normalised
    assert (float(states[0].mean(-1).abs().max()) < 1e-5) is not normalised
    assert ("| `last_hidden_state` | `hidden_states[1]`, normalised |" in text) is normalised
    assert ("| `last_hidden_state` | the same as `hidden_states[1]` |" in text) is not normalised
    assert last.equal(names["model"].encoder.layer_norm(states[1]) if normalised else states[1])


def test_usage_code_of_a_student_with_heads_gives_the_predictions_that_the_card_speaks_of(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import HubertConfig

    from hf_distilhubert import HubertForLayerDistillation

    HubertForLayerDistillation(HubertConfig.from_pretrained(student)).save_pretrained(student)
    names = run_usage_code(student, monkeypatch)
    assert names["predictions"].shape == (1, 3, 50, 16)
    text = render(student).text
    for place, layer in enumerate((2, 4, 6)):
        assert f"| `predictions[:, {place}]` | layer {layer} of the teacher, `someone/small-teacher`" in text


def test_usage_code_of_an_exported_model_prints_text(
    exported: tuple[Path, Path, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run_usage_code(exported[1], monkeypatch)
    text = capsys.readouterr().out.strip()
    assert set(text.replace("<unk>", "")) <= set("efhnorstuvw ")
    assert names["logits"].shape[1] == names["frame_lengths"][0] == 49
