"""The card tells what the folder holds, all of it, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard
from matplotlib.image import imread

from hf_distilhubert.errors import UserError
from model_card import wording
from model_card.facts import publishable
from model_card.render import Card, render

ROOT = Path(__file__).resolve().parent.parent
LETTERS = ["<pad>", "<unk>", "|", "e", "n", "o", "t", "w"]
CONVERT = {"stage": "convert", "source": "paper.ckpt", "step": 200_017, "num_parameters": 23_493_001}
CONVERT["keeps_heads"] = True
DISTILL = {
    "stage": "distill",
    "source": "someone/small-teacher",
    "data": "hub:someone/clean-speech:train",
    "steps": 611,
    "batch_size": 7,
    "audio_hours": 1.31,
    "seconds": 733.0,
    "seed": 131,
    "target_layers": [2, 4, 6],
    "num_parameters": 1_237_001,
    "teacher_parameters": 1_981_001,
    "final": {"loss": 0.9011, "l1": {"2": 0.4111, "4": 0.5111}, "cosine": {"2": 0.3511, "4": 0.3611}},
}
FINETUNE = {
    "stage": "finetune",
    "source": "student",
    "data": "numbers",
    "steps": 409,
    "batch_size": 24,
    "learning_rate": 0.0005,
    "seed": 137,
    "train_clips": 1_489,
    "train_hours": 0.4271,
    "train_speakers": 17,
    "skipped": 13,
    "seconds": 97.0,
    "num_parameters": 1_238_021,
    "vocabulary_size": len(LETTERS),
    "vocabulary": LETTERS,
    "eval": {"wer": 0.2234, "cer": 0.0871},
}
SCORE = {
    "stage": "score",
    "model": "recogniser",
    "data": "numbers",
    "split": "test",
    "utterances": 157,
    "words": 463,
    "speakers": 4,
    "wer": 0.2512,
    "cer": 0.0919,
    "substitutions": 71,
    "deletions": 29,
    "insertions": 11,
    "audio_seconds": 301.0,
    "seconds": 3.7,
    "real_time_factor": 0.01231,
    "num_parameters": 1_238_021,
    "threads": 2,
    "skipped": 19,
}
ROWS = [
    {
        "model": "teacher",
        "num_parameters": 1_981_001,
        "wer": 0.0821,
        "cer": 0.0301,
        "real_time_factor": 0.0311,
    },
    {"model": "scratch", "num_parameters": 1_238_021, "wer": 1.0401, "cer": 0.7101},
]
EXAMPLES = [
    {"clip": "clip_53.wav", "reference": "two ten", "hypothesis": "two | tne"},
    {"clip": "clip_59.wav", "reference": "one", "hypothesis": ""},
]
LOSSES = [
    {
        "step": step,
        "loss": 1.0,
        "l1": {"2": 9 / step, "4": 8 / step},
        "cosine": {"2": 3 / step, "4": 2 / step},
    }
    for step in range(1, 200)
]
TRAINING = [
    *({"step": step, "loss": 30 / step, "learning_rate": 1e-4, "epoch": 1.0} for step in range(10, 410, 10)),
    *(
        {"step": step, "eval_loss": 1.0, "eval_wer": 90 / step, "eval_cer": 70 / step}
        for step in (100, 200, 400)
    ),
]

# Every number that the full card below may show: what the stages wrote, in the card's own words.
SHOWN = """
    1.24 1,238,021 1 3 5 16 2 20 16000
    23.50 200,017
    78.6 2 4 6 611 7 131 12.2 0.902 0.412 0.512 0.352 0.362 1.99
    1,489 25.6 17 13 409 24 0.0005 137 97 22.4 8.8
    157 463 4 25.2 9.2 0.013 71 29 11 2 19
    8.3 3.1 0.032 104.1 71.1 53 59
    3.11 2.13.0 5.23
"""


def write(folder: Path, name: str, value: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(json.dumps(entry) for entry in value) if path.suffix == ".jsonl" else json.dumps(value)
    path.write_text(lines + "\n")


def tiny_config(**changes: Any) -> Any:
    from transformers import HubertConfig

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    front = {
        "conv_dim": (8, 8),
        "conv_stride": (20, 16),
        "conv_kernel": (20, 16),
        "num_feat_extract_layers": 2,
    }
    position = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    return HubertConfig(**shape, **front, **position, vocab_size=len(LETTERS), pad_token_id=0, **changes)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny recogniser and its processor, as `finetune` saves them."""
    from transformers import HubertForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    folder = tmp_path_factory.mktemp("weights")
    write(folder, "vocab.json", {letter: place for place, letter in enumerate(LETTERS)})
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None)
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer)
    processor.save_pretrained(folder)
    processor.feature_extractor.save_pretrained(folder)
    HubertForCTC(tiny_config()).save_pretrained(folder)
    return folder


@pytest.fixture
def recogniser(tmp_path: Path, weights: Path) -> Path:
    """A recogniser's folder with everything that the stages may leave in one."""
    folder = tmp_path / "recogniser"
    folder.mkdir()
    for file in weights.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    versions = {"python": "3.11", "torch": "2.13.0", "transformers": "5.23"}
    write(folder, "lineage.json", [CONVERT, DISTILL, {**FINETUNE, "versions": versions}])
    write(folder, "results.json", FINETUNE)
    write(folder, "log.jsonl", TRAINING)
    write(folder, "scores/test/results.json", SCORE)
    note = "Teacher read from /home/somebody/private/teacher; same steps and seed."
    write(folder, "comparison.json", {"data": "numbers", "split": "test", "note": note, "rows": ROWS})
    write(folder, "examples.json", EXAMPLES)
    return folder


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A distilled student's folder, with its log."""
    from transformers import HubertModel, Wav2Vec2FeatureExtractor

    folder = tmp_path / "student"
    HubertModel(tiny_config()).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    write(folder, "lineage.json", [DISTILL])
    write(folder, "log.jsonl", LOSSES)
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with a config and nothing else."""
    folder = tmp_path / "bare"
    tiny_config(architectures=["HubertForCTC"]).save_pretrained(folder)
    return folder


def prose(card: Card) -> str:
    """The card without its metadata, code and citation."""
    return re.sub(r"```.*?```", "", ModelCard(card.text).text, flags=re.DOTALL)


def test_card_shows_every_figure_it_was_given_and_no_other(recogniser: Path) -> None:
    # After a letter a digit is part of a name (L1, S3PRL).
    shown = re.findall(r"(?<![A-Za-z])\d+(?:,\d{3})*(?:\.\d+)*", prose(render(recogniser)))
    assert sorted(set(shown)) == sorted(set(SHOWN.split()))


def test_errors_speed_and_size_are_never_rounded_in_favour_of_the_model() -> None:
    assert wording.percent(0.2501) == "25.1 %"
    assert wording.percent(0.29) == "29.0 %"  # 0.29 * 100 is 28.999999999999996
    assert wording.percent(0.07) == "7.0 %"  # 0.07 * 100 is 7.000000000000001
    assert wording.millions(1_230_001) == "1.24 M"
    assert wording.factor(0.0121) == "0.013"


def test_time_is_told_with_what_it_was_taken_on() -> None:
    assert "timed on 2 threads" in wording.error_line("test", SCORE | {"device": "cpu"})
    line = wording.error_line("test", SCORE | {"device": "cuda:0"})
    assert "timed on `cuda:0`" in line
    assert "thread" not in line


def test_metadata_is_what_the_hub_reads(recogniser: Path) -> None:
    card = ModelCard.load(render(recogniser, language="en", license="apache-2.0").path)
    assert (card.data.language, card.data.license) == ("en", "apache-2.0")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "automatic-speech-recognition"
    assert card.data.base_model == "someone/small-teacher"
    assert card.data.datasets == ["someone/clean-speech"]
    assert card.data.metrics == ["wer", "cer"]
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"wer": 25.2, "cer": 9.2}
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}


def test_what_the_user_says_goes_before_what_the_lineage_says(recogniser: Path) -> None:
    data = ModelCard.load(render(recogniser, base_model="other/model", dataset="other/data").path).data
    assert (data.base_model, data.datasets) == ("other/model", ["other/data"])


def run_usage_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a card's Python beside the model's folder; the names that it leaves."""
    code = re.findall(r"```python\n(.*?)```", render(folder).text, flags=re.DOTALL)
    monkeypatch.chdir(folder.parent)
    soundfile.write("speech.wav", np.sin(np.arange(16_000) / 20).astype(np.float32), 16_000)
    names: dict[str, Any] = {}
    exec(compile("\n".join(code), "card", "exec"), names)  # noqa: S102
    return names


def test_usage_code_of_a_recogniser_prints_text(
    recogniser: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_usage_code(recogniser, monkeypatch)
    assert set(capsys.readouterr().out) <= set("".join(LETTERS) + " \n")


@pytest.mark.parametrize("extractor", [True, False])
def test_usage_code_of_a_student_gives_hidden_states(
    extractor: bool, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not extractor:
        (student / "preprocessor_config.json").unlink()
    states = run_usage_code(student, monkeypatch)["hidden_states"]
    assert [tuple(state.shape) for state in states] == [(1, 50, 16), (1, 50, 16)]


def test_what_is_missing_is_left_out(bare: Path) -> None:
    card = render(bare)
    assert card.figures == []
    assert not re.search(r"\b(none|nan|null|undefined)\b", card.text, flags=re.IGNORECASE)
    headings = re.findall(r"^## (.*)", card.text, flags=re.MULTILINE)
    assert headings == ["How to use it", "Results", "Limitations", "Citation"]
    assert "WER and CER: not measured." in card.text
    assert "license" not in card.text
    assert "eval_results" not in ModelCard.load(card.path).data.to_dict()


def test_what_was_not_measured_is_said_so_and_never_nan(bare: Path) -> None:
    (bare / "scores/test").mkdir(parents=True)
    (bare / "scores/test/results.json").write_text('{"wer": NaN, "cer": 0.5, "words": null}')
    write(bare, "comparison.json", {"rows": [{"model": "teacher"}]})
    card = render(bare)
    assert not re.search(r"\b(none|nan|null)\b", card.text, flags=re.IGNORECASE)
    row = next(line for line in card.text.splitlines() if "50.0 %" in line)
    assert row.split(" | ")[2:6] == ["not measured"] * 4


def test_card_of_a_student_promises_features_and_no_text(student: Path) -> None:
    card = render(student)
    assert ModelCard.load(card.path).data.pipeline_tag == "feature-extraction"
    assert "It gives features, not text" in card.text
    assert "WER" not in card.text


def test_card_holds_no_path_of_this_machine(recogniser: Path) -> None:
    write(
        recogniser, "results.json", {**FINETUNE, "source": str(recogniser), "data": "C:\\Users\\me\\numbers"}
    )
    text = render(recogniser).text
    assert not re.search(r"(?<![\w.:/-])/(home|tmp|root|work|private|Users)|[A-Z]:\\", text)
    assert str(recogniser.parent) not in text
    assert "Teacher read from teacher; same steps" in text


@pytest.mark.parametrize(
    "text", ["https://huggingface.co/a/b", "a/b and/or c", "hub:a/b:c", "10 words/s", "no / one"]
)
def test_addresses_and_fractions_are_not_taken_for_paths(text: str) -> None:
    assert publishable({"note": [text]}) == {"note": [text]}


def test_transcripts_cannot_break_their_table(recogniser: Path) -> None:
    text = render(recogniser).text
    assert r"| clip_53.wav | two ten | two \| tne |" in text
    assert "| clip_59.wav | one | (nothing) |" in text


@pytest.mark.parametrize(
    ("kind", "names"), [("recogniser", ["comparison.png", "training.png"]), ("student", ["losses.png"])]
)
def test_figures_are_drawn_for_what_there_is_and_shown(
    kind: str, names: list[str], request: pytest.FixtureRequest
) -> None:
    card = render(request.getfixturevalue(kind))
    assert sorted(figure.name for figure in card.figures) == names
    for figure in card.figures:
        assert f"](figures/{figure.name})" in card.text
        height, width, _ = imread(figure).shape
        assert width == 1600
        assert 400 < height < 1600


def test_card_is_the_same_when_rendered_again_and_leaves_nothing_else(recogniser: Path) -> None:
    before = {path.name for path in recogniser.iterdir()}
    assert render(recogniser).text == render(recogniser).text
    assert {path.name for path in recogniser.iterdir()} - before == {"README.md", "figures"}


def test_a_failed_rendering_keeps_the_card_that_was_there(
    recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(recogniser)
    card = (recogniser / "README.md").read_bytes()
    write(recogniser, "scores/test/results.json", {**SCORE, "wer": 0.99})

    replace = Path.replace

    def fail_for_the_card(path: Path, target: Path) -> Path:
        if target.name == "README.md":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_card)
    with pytest.raises(UserError, match="No space left"):
        render(recogniser)
    assert (recogniser / "README.md").read_bytes() == card
    assert not list(recogniser.rglob(".*"))


def test_limits_come_from_the_folder(recogniser: Path) -> None:
    text = render(recogniser).text
    assert "25.6 min, 1,489 clips, 17 speakers" in text
    assert "e n o t w" in text
    assert "one case only, no digits" in text
    assert "synthetic" not in text
    write(recogniser, "results.json", {**FINETUNE, "synthetic": True})
    assert "speech behind these figures is synthetic" in render(recogniser).text


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "model_card.render", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_writes_the_card_and_says_where(bare: Path) -> None:
    done = command(bare, "--language", "en")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()) == bare / "README.md"
    assert ModelCard.load(bare / "README.md").data.language == "en"


@pytest.mark.parametrize(
    "mistake", ["no folder", "no config", "broken results", "broken log", "results of another kind"]
)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake: str, bare: Path) -> None:
    if mistake == "no folder":
        bare = bare / "missing"
    elif mistake == "no config":
        (bare / "config.json").unlink()
    elif mistake == "broken log":
        (bare / "log.jsonl").write_text('{"step": 1}\n{"step": ')
    else:
        (bare / "results.json").write_text('{"wer": ' if mistake == "broken results" else "[1]")
    done = command(bare)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: .*(give|take it away).*\n", done.stderr)
    assert not (bare / "README.md").exists()


def test_help_is_quick_and_has_examples() -> None:
    start = time.perf_counter()
    done = command("--help")
    assert time.perf_counter() - start < 2
    assert done.returncode == 0
    assert "python -m model_card.render MODEL_DIR --language en" in done.stdout
