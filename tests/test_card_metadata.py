"""The head of the card and `.eval_results` say to the Hub what the folder says, in the Hub's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cards import CONVERT, DISTILL, FINETUNE, SCORE, make_bare, make_recogniser, make_student, write
from huggingface_hub import ModelCard, parse_eval_result_entries

from hf_distilhubert.errors import UserError
from model_card.render import render

pytestmark = pytest.mark.usefixtures("no_figures")

EXPORT: dict[str, Any] = {"stage": "export", "model": "recogniser", "file": "onnx/model.onnx", "bytes": 1_001}


@pytest.fixture
def recogniser(tmp_path: Path) -> Path:
    return make_recogniser(tmp_path / "recogniser")


def metadata(folder: Path, **given: Any) -> dict[str, Any]:
    return ModelCard.load(render(folder, **given).path).data.to_dict()


def test_metadata_is_what_the_hub_reads(recogniser: Path) -> None:
    given = {"language": "en", "license": "apache-2.0", "data_license": "cc-by-4.0"}
    data = metadata(recogniser, **given)
    assert {key: data[key] for key in given} == given
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "automatic-speech-recognition"
    assert data["tags"] == ["speech", "hubert", "distilhubert", "ctc"]
    assert (data["base_model"], data["base_model_relation"]) == ("someone/small-teacher", "finetune")
    assert data["datasets"] == ["someone/clean-speech"]
    assert data["metrics"] == ["wer", "cer"]
    (model,) = data["model-index"]
    results = {metric["type"]: metric["value"] for entry in model["results"] for metric in entry["metrics"]}
    assert results == {"wer": 25.2, "cer": 9.2}
    assert {entry["dataset"]["split"] for entry in model["results"]} == {"test"}


def test_what_the_user_says_goes_before_what_the_lineage_says(recogniser: Path) -> None:
    data = metadata(recogniser, base_model="other/model", dataset="other/data")
    assert (data["base_model"], data["datasets"]) == ("other/model", ["other/data"])
    assert "base_model_relation" not in data  # it was that of the model which the lineage names


@pytest.mark.parametrize(
    ("stages", "base_model", "relation"),
    [
        ([CONVERT | {"source": "hub:someone/upstream/student.ckpt"}], "someone/upstream", None),
        ([CONVERT], None, None),
        ([DISTILL], "someone/small-teacher", "finetune"),
        ([DISTILL, FINETUNE], "someone/small-teacher", "finetune"),
        ([DISTILL, FINETUNE | {"source": "someone/student"}], "someone/student", "finetune"),
        ([FINETUNE | {"source": "student"}], None, None),
    ],
    ids=["converted from the Hub", "converted", "distilled", "fine-tuned", "published between", "all local"],
)
def test_the_base_model_comes_with_its_relation(
    stages: list[dict[str, Any]], base_model: str | None, relation: str | None, tmp_path: Path
) -> None:
    folder = make_bare(tmp_path / "model")
    write(folder, "lineage.json", stages)
    data = metadata(folder)
    assert (data.get("base_model"), data.get("base_model_relation")) == (base_model, relation)


@pytest.mark.parametrize(
    ("file_format", "library", "tags", "relation"),
    [
        ("onnx", "transformers.js", ["onnx"], "finetune"),
        ("onnx-int8", "transformers.js", ["onnx", "int8"], "finetune"),
        ("openvino", "openvino", ["openvino"], "finetune"),
    ],
)
def test_an_export_says_which_library_reads_it(
    file_format: str, library: str, tags: list[str], relation: str, tmp_path: Path
) -> None:
    folder = make_bare(tmp_path / "model")
    write(folder, "export.json", EXPORT | {"format": file_format, "lineage": [DISTILL, FINETUNE]})
    data = metadata(folder)
    assert data["library_name"] == library
    assert data["tags"] == ["speech", "hubert", "distilhubert", "ctc", *tags]
    assert (data["base_model"], data["base_model_relation"]) == ("someone/small-teacher", relation)


@pytest.mark.parametrize(("file_format", "relation"), [("onnx-int8", "quantized"), ("onnx", None)])
def test_an_export_of_a_published_model_is_that_model_in_fewer_bits(
    file_format: str, relation: str | None, tmp_path: Path
) -> None:
    folder = make_bare(tmp_path / "model")
    exported = {"format": file_format, "model": "someone/recogniser", "lineage": [DISTILL, FINETUNE]}
    write(folder, "export.json", EXPORT | exported)
    data = metadata(folder)
    assert (data["base_model"], data.get("base_model_relation")) == ("someone/recogniser", relation)


def test_features_are_no_speech_recognition(tmp_path: Path) -> None:
    data = metadata(make_student(tmp_path / "student"))
    assert data["pipeline_tag"] == "feature-extraction"
    assert not {"metrics", "model-index", "license", "data_license", "language"} & data.keys()


def entries(folder: Path) -> list[Any]:
    (path,) = (folder / ".eval_results").glob("*.yaml")
    return parse_eval_result_entries(yaml.safe_load(path.read_text()))


def test_a_leaderboard_gets_the_score_it_was_asked_for_and_later_ones(recogniser: Path) -> None:
    write(recogniser, "scores/test/results.json", SCORE | {"data": "hub:someone/benchmark:clean"})
    render(recogniser)
    assert not (recogniser / ".eval_results").exists()  # the task's name is known to a person alone
    render(recogniser, benchmarks=["someone/benchmark:clean_test"])
    (entry,) = entries(recogniser)
    assert (entry.dataset_id, entry.task_id, entry.value) == ("someone/benchmark", "clean_test", 25.12)
    assert entry.notes == "word error rate in percent, less is better; split test"
    write(recogniser, "scores/test/results.json", SCORE | {"data": "hub:someone/benchmark", "wer": 0.19999})
    render(recogniser)
    assert [entry.value for entry in entries(recogniser)] == [20.0]


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ("someone", "write OWNER/NAME:TASK"),
        ("someone/other:task", "there is no score of it"),
        ("someone/benchmark:task", "scores of it: dev, test"),
    ],
)
def test_a_leaderboard_without_its_score_is_a_mistake_in_one_line(
    benchmark: str, message: str, recogniser: Path
) -> None:
    for split in ("dev", "test"):
        write(recogniser, f"scores/{split}/results.json", SCORE | {"data": "hub:someone/benchmark"})
    with pytest.raises(UserError, match=message):
        render(recogniser, benchmarks=[benchmark])
    assert not (recogniser / "README.md").exists()
    render(recogniser, benchmarks=["someone/benchmark:task:dev"])
    assert len(entries(recogniser)) == 1
