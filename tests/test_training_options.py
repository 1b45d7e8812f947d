"""Who learns when and how fast, and from which layers; all of it together goes on after a kill."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LARGE, RUNS, TINY, save_recogniser, save_teacher
from stopped_runs import outcome
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCTC,
    HubertConfig,
    HubertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    pipeline,
)

import finetune.train
from finetune.arguments import CTCTrainingArguments
from finetune.data import read_split
from finetune.optimiser import heights
from finetune.recogniser import recogniser_for
from finetune.score import score
from finetune.settings import FinetuneConfig
from finetune.train import train
from finetune.trainer import make_trainer
from hf_distilhubert.errors import UserError
from hf_distilhubert.layer_sum import MODEL_TYPE, HubertLayerSumForCTC, with_layer_sum
from hf_distilhubert.loading import load_model
from hf_distilhubert.speech_data import load_clips
from hf_distilhubert.text_rules import TextRules
from hf_distilhubert.transcribe import Transcriber
from model_card.render import render

FRESH = {"vocab_size": 20} | TINY | {"num_hidden_layers": 3}


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return save_teacher(tmp_path / "student", num_hidden_layers=3)


def arguments(output: Path, **changes: Any) -> CTCTrainingArguments:
    given = {"max_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 1e-2}
    return CTCTrainingArguments(
        str(output), **given | {"use_cpu": True, "bf16": False, "warmup_steps": 0} | changes
    )


def trainer_for(student: Path, data: Path, folder: Path, **changes: Any) -> Any:
    """The Trainer of a run, and what is trained."""
    config = FinetuneConfig(model=str(student), data=str(data), eval_split="none", **changes)
    training = read_split(str(data), "train")
    torch.manual_seed(0)
    recogniser = recogniser_for(config, [str(clip.text) for clip in training.clips], TextRules())
    log = folder / "log.jsonl"
    return make_trainer(config, arguments(folder), recogniser, training, None, log, folder / "checkpoints")


# ----- layer-wise learning rates --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{}, LARGE], ids=["post-norm", "pre-norm"])
def test_height_of_each_part(shape: dict[str, Any]) -> None:
    model = HubertForCTC(HubertConfig(**FRESH | shape))
    below = heights(model)
    found = {name: below[parameter] for name, parameter in model.named_parameters()}
    assert found["lm_head.weight"] == found["lm_head.bias"] == 0
    for layer, height in enumerate((3, 2, 1)):
        assert {h for n, h in found.items() if f"layers.{layer}." in n and "encoder" in n} == {height}
    lowest = ("feature_extractor", "feature_projection", "pos_conv_embed")
    assert {h for n, h in found.items() if any(part in n for part in lowest)} == {4}
    assert found["hubert.encoder.layer_norm.weight"] == (1 if shape else 4)


def test_each_layer_learns_at_its_rate_and_weight_decay_stays_as_trainer_has_it(
    student: Path, spoken: Path, tmp_path: Path
) -> None:
    plain = trainer_for(student, spoken, tmp_path / "plain")
    trainer = trainer_for(student, spoken, tmp_path / "run", layer_decay=0.5)
    model = trainer.model
    rates, decays, stock = {}, {}, {}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            rates[names[parameter]], decays[names[parameter]] = group["lr"], group["weight_decay"]
    names = {parameter: name for name, parameter in plain.model.named_parameters()}
    for group in plain.create_optimizer().param_groups:
        stock |= {names[parameter]: group["weight_decay"] for parameter in group["params"]}
    assert decays == stock
    assert set(stock.values()) == {0.0, 0.01}
    assert rates["lm_head.weight"] == 1e-2
    assert rates["hubert.encoder.layers.2.final_layer_norm.bias"] == 5e-3
    assert rates["hubert.encoder.layers.0.attention.q_proj.weight"] == 1.25e-3
    assert rates["hubert.feature_projection.projection.weight"] == 6.25e-4
    assert not any("feature_extractor" in name for name in rates)  # it is frozen
    # The first step of Adam is one of the learning rate, nearly whatever the gradient.
    layer, head = model.hubert.encoder.layers[0].attention.q_proj.weight, model.lm_head.weight
    before = layer.detach().clone(), head.detach().clone()
    trainer.args.max_steps = 1
    trainer.train()
    moved = [float((a.detach() - b).abs().median()) for a, b in zip((layer, head), before, strict=True)]
    assert moved == pytest.approx([1.25e-3, 1e-2], rel=0.1)
    assert next(entry for entry in trainer.state.log_history if "loss" in entry)["learning_rate"] == 1e-2


# ----- a frozen encoder -----------------------------------------------------------------------------------


def test_the_head_alone_learns_until_the_step_that_was_named(
    student: Path, spoken: Path, tmp_path: Path
) -> None:
    def learned(steps: int) -> tuple[dict[str, bool], Any]:
        trainer = trainer_for(student, spoken, tmp_path / str(steps), freeze_encoder_steps=2)
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.args.max_steps = steps
        trainer.train()
        changed = {n: not torch.equal(v, before[n]) for n, v in trainer.model.state_dict().items()}
        return changed, trainer

    changed, trainer = learned(2)
    assert {name for name, yes in changed.items() if yes} == {"lm_head.weight", "lm_head.bias"}
    # Neither weight decay nor moments: the optimiser has never seen the others.
    assert set(trainer.optimizer.state) == set(trainer.model.lm_head.parameters())
    changed, _ = learned(3)
    still = {name for name, yes in changed.items() if not yes}
    assert all("feature_extractor" in name or name.endswith("k_proj.bias") for name in still)


def test_a_random_encoder_is_not_frozen(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="output layer on random features"):
        FinetuneConfig(from_scratch="shape.json", freeze_encoder_steps=10)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"layer_decay": 0.0}, "--layer_decay 0.0; give a share above 0, and 1 at most"),
        ({"layer_decay": 1.1}, "--layer_decay 1.1"),
        ({"freeze_encoder_steps": -1}, "--freeze_encoder_steps -1; give a number from 0"),
    ],
)
def test_settings_that_cannot_be_are_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        FinetuneConfig(**given)


# ----- all of it in one run -------------------------------------------------------------------------------


OPTIONS = {
    "spec_augment": "true",
    "freeze_encoder_steps": 2,
    "layer_decay": 0.7,
    "weighted_layer_sum": "true",
    "max_steps": 4,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "per_device_train_batch_size": 4,
    "eval_split": "none",
    "use_cpu": "true",
    "bf16": "false",
    "pad_multiple": 1,
    "learning_rate": 1e-3,
}


def command(
    student: Path, data: Path, folder: Path, processes: int = 1, stop: Any = None, **changes: Any
) -> Any:
    """The command with every option, in real processes that may be killed."""
    flags = OPTIONS | {"model": student, "data": data, "output_dir": folder} | changes
    words = [str(word) for flag, value in flags.items() for word in (f"--{flag}", value)]
    every = {"ranks": list(range(processes)), "number": signal.SIGKILL, "delay": 0.0}
    request = {"flags": words, "output": f"{folder}.out", "processes": processes}
    return RUNS.ask(stage="finetune", stop=stop and every | stop, **request)


def test_killed_after_the_thaw_it_ends_as_if_left_alone(spoken: Path, tmp_path: Path) -> None:
    student = save_teacher(tmp_path / "student", num_hidden_layers=3, hidden_dropout=0.1)
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    assert set(command(student, spoken, alone, max_steps=5)["statuses"]) == {0}
    # In the fourth step: the head has moments of three steps then, and the others of one.
    answer = command(student, spoken, killed, stop={"event": "step", "count": 4}, max_steps=5)
    assert set(answer["statuses"]) == {-signal.SIGKILL}, answer["printed"]
    answer = command(student, spoken, killed, max_steps=5, resume_from_checkpoint="true")
    assert set(answer["statuses"]) == {0}, answer["printed"]
    assert "will refuse the folder" in answer["printed"][0]
    assert outcome(killed) == outcome(alone)


def test_two_processes_and_accumulation_learn_the_same(student: Path, spoken: Path, tmp_path: Path) -> None:
    cuts = {
        "one": {},
        "two": {"processes": 2, "per_device_train_batch_size": 2},
        "parts": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
    }
    logs = []
    for name, cut in cuts.items():
        answer = command(student, spoken, tmp_path / name, **cut)
        assert set(answer["statuses"]) == {0}, answer["printed"]
        logs.append([json.loads(line) for line in (tmp_path / name / "log.jsonl").open()])
    assert len(logs[0]) == 4
    for other in logs[1:]:
        for one, two in zip(logs[0], other, strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)


# ----- a weighted sum of layers ---------------------------------------------------------------------------


@pytest.fixture
def summed(tmp_path: Path) -> Path:
    """A recogniser whose layers weigh differently, with its processor."""
    folder = save_recogniser(tmp_path / "summed", **LARGE)
    model = with_layer_sum(load_model(HubertForCTC, folder))
    model.layer_weights.data.copy_(torch.tensor([1.0, -0.5, 0.3]))
    model.save_pretrained(folder)
    return folder


def test_the_head_reads_the_weighted_sum_of_all_hidden_states(summed: Path) -> None:
    model = load_model(AutoModelForCTC, summed)
    assert type(model) is HubertLayerSumForCTC
    waveform = torch.randn(2, 8_000)
    with torch.inference_mode():
        hubert = model.hubert(waveform, output_hidden_states=True)
        states = [*hubert.hidden_states[:-1], hubert.last_hidden_state]
        shares = torch.tensor([1.0, -0.5, 0.3]).softmax(0)
        mixture = sum(share * state for share, state in zip(shares, states, strict=True))
        expected = mixture @ model.lm_head.weight[..., 0].T + model.lm_head.bias
        output = model(waveform, labels=torch.tensor([[3, 4], [5, -100]]))
        assert output.hidden_states is None
        assert len(model(waveform, output_hidden_states=True).hidden_states) == 3
    assert torch.allclose(output.logits, expected, atol=1e-4)
    assert output.loss.isfinite()


def test_at_first_all_layers_weigh_the_same_and_the_loss_is_that_of_stock(tmp_path: Path) -> None:
    stock = load_model(HubertForCTC, save_recogniser(tmp_path / "model", **LARGE))
    model = with_layer_sum(stock)
    assert with_layer_sum(model) is model
    assert torch.equal(model.layer_weights.softmax(0), torch.full((3,), 1 / 3))
    model.layer_weights.data.copy_(torch.tensor([-1e9, -1e9, 0.0]))  # the last layer alone
    batch = {"input_values": torch.randn(2, 8_000), "labels": torch.tensor([[3, 4], [5, -100]])}
    batch["attention_mask"] = (torch.arange(8_000) < torch.tensor([[8_000], [5_000]])).long()
    with torch.inference_mode():
        ours, theirs = model(**batch), stock(**batch)
    assert torch.allclose(ours.logits, theirs.logits, atol=1e-5)
    assert float(ours.loss) == pytest.approx(float(theirs.loss), rel=1e-5)


def test_transcriber_pipeline_and_score_take_it_and_stock_transformers_refuses(
    summed: Path, spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveforms = [clip.read() for clip in load_clips(spoken, "test").clips]
    texts = Transcriber(summed).transcribe_waveforms(waveforms)
    assert all(texts)
    recognise = pipeline("automatic-speech-recognition", model=str(summed))
    assert [recognise({"raw": w, "sampling_rate": 16_000})["text"] for w in waveforms] == texts
    assert score(str(summed), str(spoken), split="test", output_dir=tmp_path / "score").wer > 0
    # As in a process that has not imported this package.
    monkeypatch.delitem(CONFIG_MAPPING._extra_content, MODEL_TYPE)
    with pytest.raises(ValueError, match=f"`{MODEL_TYPE}` but Transformers does not recognize"):
        AutoModelForCTC.from_pretrained(summed)
    with pytest.raises(RuntimeError):
        HubertForCTC.from_pretrained(summed)


def test_its_card_does_not_call_it_stock(summed: Path) -> None:
    text = render(summed).text
    assert "import hf_distilhubert.layer_sum" in text
    assert "stock Transformers model" not in text


def test_the_mixture_is_learned_and_learned_further(student: Path, spoken: Path, tmp_path: Path) -> None:
    config = {"data": str(spoken)}
    first = train(
        FinetuneConfig(model=str(student), weighted_layer_sum=True, **config), arguments(tmp_path / "first")
    )
    assert first.evaluation is not None
    weights = load_model(AutoModelForCTC, first.folder).layer_weights
    assert weights.unique().numel() == 4
    second = train(FinetuneConfig(model=str(first.folder), **config), arguments(tmp_path / "second"))
    further = load_model(AutoModelForCTC, second.folder)
    assert type(further) is HubertLayerSumForCTC
    assert not torch.equal(further.layer_weights, weights)


def test_other_kinds_and_a_head_of_another_layer_are_refused(tmp_path: Path, spoken: Path) -> None:
    with pytest.raises(UserError, match="there for HuBERT models, and this is a wav2vec2; leave out"):
        with_layer_sum(Wav2Vec2ForCTC(Wav2Vec2Config(**FRESH)))
    folder = save_recogniser(tmp_path / "model")
    config = FinetuneConfig(model=str(folder), data=str(spoken), weighted_layer_sum=True)
    with pytest.raises(UserError, match="taught on its last layer.*--new_head true"):
        recogniser_for(config, ["one two three"], TextRules())


# ----- recipes --------------------------------------------------------------------------------------------


def test_every_value_of_the_librispeech_recipe_has_its_reason() -> None:
    recipe = Path(finetune.train.__file__).parent / "recipes" / "librispeech-100h.yaml"
    values = [line for line in recipe.read_text().splitlines() if re.match(r"\w", line)]
    assert values
    assert [line for line in values if not re.search(r"  # \S+ \S+", line)] == []


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"mask_time_prob": 0.4}, "give --spec_augment true with it"),
        ({"spec_augment": True, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}, "hides nothing"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        FinetuneConfig(**flags)
