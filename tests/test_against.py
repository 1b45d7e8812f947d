"""Two models are compared on what both have heard, and a score that cannot be compared is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from conftest import NUMBERS

from finetune.score import main, score
from hf_distilhubert.errors import UserError
from hf_distilhubert.transcriber import Transcriber


def heard_as(monkeypatch: pytest.MonkeyPatch, numbers: Path, texts: list[str]) -> None:
    """Let every recogniser write these texts of the clips."""
    names = {soundfile.info(numbers / f"{number}.wav").frames: text for number, text in enumerate(texts)}
    monkeypatch.setattr(
        Transcriber,
        "transcribe_waveforms",
        lambda self, waveforms, batch_size: [names[len(w)] for w in waveforms],
    )


def test_two_models_are_compared_on_what_both_have_heard(
    tmp_path: Path, layer_norm: Path, numbers: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    said = [text.lower() for text in NUMBERS]
    heard_as(monkeypatch, numbers, ["", "", "", *said[3:]])  # 5 of 12 words missing
    score(str(layer_norm), str(numbers), output_dir=tmp_path / "other")
    rows = (tmp_path / "other" / "utterances.csv").read_text()
    # The other one has learned another form of one reference.
    (tmp_path / "other" / "utterances.csv").write_text(rows.replace(",eleven,", ",11,"))
    heard_as(monkeypatch, numbers, [*said[:6], "seven oh"])
    found = score(
        str(layer_norm),
        str(numbers),
        output_dir=tmp_path / "better",
        against=tmp_path / "other" / "results.json",
    ).against
    assert (found.utterances, found.words, found.model) == (6, 11, layer_norm.name)
    assert (found.wer, found.other_wer, found.difference) == (1 / 11, 5 / 11, pytest.approx(-4 / 11))
    assert found.interval[0] < found.difference < found.interval[1]
    # Signed differences -2 -1 -2 and +1: of 16 sums, those of at least 4 from 0 are +-6 and +-4 (two ways).
    assert found.p_value == 6 / 16
    assert (found.only_here, found.only_there) == (("4.wav",), ("4.wav",))
    figures = json.loads((tmp_path / "better" / "results.json").read_text())["against"]
    assert (figures["p_value"], figures["only_here"]) == (6 / 16, ["4.wav"])
    flags = ["--output_dir", str(tmp_path / "again"), "--against", str(tmp_path / "better")]
    monkeypatch.setattr(sys, "argv", ["score", "--model", str(layer_norm), "--data", str(numbers), *flags])
    main()
    assert f"against {layer_norm.name}: WER +0.0 points, p = 1.0000" in capsys.readouterr().out


def test_a_score_of_other_speech_cannot_be_compared(tmp_path: Path, layer_norm: Path, numbers: Path) -> None:
    score(str(layer_norm), str(numbers), output_dir=tmp_path / "first")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"file_name,transcription\n{numbers / '0.wav'},one\n")
    with pytest.raises(UserError, match="no clip with the same reference"):
        score(
            str(layer_norm),
            str(manifest),
            split="all",
            output_dir=tmp_path / "new",
            against=tmp_path / "first",
        )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "damage", ["no figures", "no utterances", "cut off", "row cut off", "no JSON", "other keys"]
)
def test_a_damaged_score_is_named_before_any_work(
    tmp_path: Path, layer_norm: Path, numbers: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    heard_as(monkeypatch, numbers, NUMBERS)
    other = tmp_path / "other"
    score(str(layer_norm), str(numbers), output_dir=other)
    utterances = (other / "utterances.csv").read_text()
    if damage == "no figures":
        (other / "results.json").unlink()
    elif damage == "no utterances":
        (other / "utterances.csv").unlink()
    elif damage == "cut off":
        (other / "utterances.csv").write_text("\n".join(utterances.splitlines()[:3]))
    elif damage == "row cut off":
        (other / "utterances.csv").write_text(utterances[: utterances.rindex("seven")])
    else:
        (other / "results.json").write_text("{" if damage == "no JSON" else "{}")
    with monkeypatch.context() as patch:
        patch.setattr(Transcriber, "__init__", lambda *_, **__: pytest.fail("work was begun"))
        with pytest.raises(UserError, match="--against") as caught:
            score(str(layer_norm), str(numbers), output_dir=tmp_path / "new", against=other)
    assert "\n" not in str(caught.value)
