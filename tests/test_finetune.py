"""Fine-tuning: what Trainer gets, what the folder holds, and what happens to unusable data."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import LARGE, ROOT, TINY, save_recogniser
from transformers import (
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoProcessor,
    HubertConfig,
    HubertForCTC,
    HubertModel,
    Trainer,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    pipeline,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from finetune.arguments import CTCTrainingArguments, changed
from finetune.augment import SPEED, augment
from finetune.data import ClipDataset, SpeechCollator, frames_needed, load_split
from finetune.evaluation import ErrorRates, argmax_tokens
from finetune.progress import TrainingLog
from finetune.recogniser import load_recogniser
from finetune.score import score
from finetune.settings import FinetuneConfig
from finetune.train import FinetuneResult, main, train
from finetune.vocabulary import build_processor
from hf_distilhubert.errors import UserError, run_command
from hf_distilhubert.speech_data import Clip, load_clips
from hf_distilhubert.text_rules import TextRules
from hf_distilhubert.tokens import tokens_of
from hf_distilhubert.transcribe import Transcriber

RATE = 16_000
WORDS = ["one", "two", "three", "seven", "oh"]
SHAPES: dict[str, dict[str, Any]] = {
    "base": TINY | {"num_hidden_layers": 2},
    "large": TINY | LARGE | {"num_hidden_layers": 2},
}


def write_data(folder: Path, sizes: dict[str, int], seed: int = 0) -> Path:
    """Noise of uneven lengths, with words of numbers as transcripts, in the given splits."""
    generator = np.random.default_rng(seed)
    lines = ["file_name,transcription,speaker,split"]
    for split, count in sizes.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            samples = int(generator.integers(8_000, 16_000))
            name = f"{split}/{index}.wav"
            soundfile.write(folder / name, 0.1 * generator.standard_normal(samples), RATE)
            text = " ".join(generator.choice(WORDS, size=2))
            lines.append(f"{name},{text.title()}!,speaker{index % 2},{split}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_model(folder: Path, model: Any, *, do_normalize: bool = False) -> Path:
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=True).save_pretrained(folder)
    return folder


def arguments_for(output_dir: Path, **changes: Any) -> CTCTrainingArguments:
    values: dict[str, Any] = {
        "output_dir": str(output_dir),
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
    }
    return CTCTrainingArguments(**(values | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), {"train": 12, "validation": 6})


@pytest.fixture(scope="module")
def scratch_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "layer_norm.json"
    path.write_text(json.dumps(SHAPES["large"]))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path, scratch_config: Path) -> FinetuneResult:
    """A recogniser of three steps from scratch, with evaluation on the way."""
    return train(
        FinetuneConfig(data=str(data), from_scratch=str(scratch_config), augment=True),
        arguments_for(tmp_path_factory.mktemp("runs") / "recogniser", eval_strategy="steps", eval_steps=2),
    )


# ----- the folder -----------------------------------------------------------------------------------------


def test_folder_holds_a_stock_recogniser_and_nothing_to_unpickle(trained: FinetuneResult) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert {"model.safetensors", "preprocessor_config.json", "text.json", "finetune.yaml"} <= names
    assert not [path for path in trained.folder.rglob("*") if path.suffix in {".bin", ".pt"} or path.is_dir()]
    model = AutoModelForCTC.from_pretrained(trained.folder)
    tokenizer = AutoProcessor.from_pretrained(trained.folder).tokenizer
    assert type(model) is HubertForCTC
    assert len(tokenizer) == model.config.vocab_size == model.lm_head.out_features
    assert model.config.ctc_loss_reduction == "mean"
    assert model.config.ctc_zero_infinity is True
    assert model.config.layerdrop == model.config.mask_time_prob == 0
    assert model.config.apply_spec_augment is False
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0


def test_results_and_log_tell_what_was_done(trained: FinetuneResult, data: Path) -> None:
    results = json.loads((trained.folder / "results.json").read_text())
    assert results["stage"] == "finetune"
    assert results["data"] == data.name
    assert (results["steps"], results["batch_size"], results["seed"]) == (3, 4, 0)
    assert (results["train_clips"], results["train_speakers"], results["skipped"]) == (12, 2, 0)
    assert results["vocabulary"] == ["<pad>", "<unk>", "|", *sorted(set("onetwothreesevenoh"))]
    assert results["vocabulary_size"] == len(results["vocabulary"]) == trained.vocabulary_size
    assert results["eval"] == trained.evaluation
    assert results["num_parameters"] == trained.num_parameters
    log = [json.loads(line) for line in (trained.folder / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3]
    assert {"step", "loss", "learning_rate", "grad_norm", "epoch"} == set(log[0])
    evaluated = [entry for entry in log if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluated] == [2, 3]
    assert {"step", "eval_loss", "eval_wer", "eval_cer"} == set(evaluated[-1])
    assert evaluated[-1]["eval_wer"] == results["eval"]["wer"]


def test_settings_can_be_given_to_the_command_again(
    trained: FinetuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = trained.folder / "finetune.yaml"
    recorded = yaml.safe_load(settings.read_text())
    assert recorded["augment"] is True
    assert (recorded["learning_rate"], recorded["max_steps"], recorded["eval_steps"]) == (3e-4, 3, 2)
    assert not {"overwrite", "hub_token", "local_rank"} & set(recorded)
    again = tmp_path / "again"
    monkeypatch.setattr(sys, "argv", ["train", str(settings), "--output_dir", str(again)])
    main()
    first, second = (HubertForCTC.from_pretrained(folder).state_dict() for folder in (trained.folder, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_settings_that_are_trainers_own_defaults_are_recorded_too(tmp_path: Path) -> None:
    given = {"seed": 42, "learning_rate": 5e-5, "per_device_train_batch_size": 8, "weight_decay": 0.0}
    recorded = changed(arguments_for(tmp_path, **given, bf16=False))
    assert given | {"bf16": False} == {name: recorded[name] for name in (*given, "bf16")}


def test_pipeline_and_transcriber_and_score_agree(
    trained: FinetuneResult, data: Path, tmp_path: Path
) -> None:
    folder = save_recogniser(tmp_path / "talkative", **LARGE)
    waveforms = [clip.read() for clip in load_clips(data, "validation").clips]
    texts = Transcriber(folder).transcribe_waveforms(waveforms)
    assert all(texts)
    recognise = pipeline("automatic-speech-recognition", model=str(folder))
    assert [recognise({"raw": w, "sampling_rate": RATE})["text"] for w in waveforms] == texts
    # Trainer's evaluation, in padded batches, comes to what score finds.
    assert trained.evaluation is not None
    result = score(str(trained.folder), str(data), split="validation", output_dir=tmp_path / "score")
    assert (result.wer, result.cer) == (trained.evaluation["wer"], trained.evaluation["cer"])


# ----- models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        HubertModel(HubertConfig(**SHAPES["base"])),
        Wav2Vec2Model(Wav2Vec2Config(**SHAPES["base"])),
        WavLMModel(WavLMConfig(**SHAPES["large"])),
    ],
    ids=["hubert", "wav2vec2", "wavlm"],
)
def test_models_of_the_family_are_fine_tuned_with_a_frozen_front_end(
    tmp_path: Path, data: Path, model: Any
) -> None:
    source = write_model(tmp_path / "student", model, do_normalize=True)
    config = FinetuneConfig(model=str(source), data=str(data))
    result = train(config, arguments_for(tmp_path / "run"))
    tuned = AutoModelForCTC.from_pretrained(result.folder)
    before, after = model.state_dict(), getattr(tuned, tuned.base_model_prefix).state_dict()
    for name, weight in before.items():
        if name.startswith("feature_extractor"):
            assert torch.equal(weight, after[name])
    name = "encoder.layers.0.feed_forward.output_dense.weight"
    assert not torch.equal(before[name], after[name])
    assert AutoFeatureExtractor.from_pretrained(result.folder).do_normalize is True
    lineage = json.loads((result.folder / "lineage.json").read_text())
    assert [entry["source"] for entry in lineage] == ["student"]


def test_own_head_is_kept_unless_a_new_one_is_asked_for(tmp_path: Path) -> None:
    folder = save_recogniser(tmp_path, **LARGE)
    head = HubertForCTC.from_pretrained(folder).lm_head.weight
    kept = load_recogniser(str(folder), ["two one", "three"])
    assert not kept.new_head
    assert torch.equal(kept.model.lm_head.weight, head)
    # As many characters, but others: the weights would fit, their meaning would not.
    shifted = "".join(chr(ord(c) + 1) for c in tokens_of(kept.processor.tokenizer)[3:])
    other = load_recogniser(str(folder), [shifted], new_head=True)
    assert other.new_head
    assert other.model.lm_head.weight.shape == head.shape
    assert not torch.equal(other.model.lm_head.weight, head)
    more = load_recogniser(str(folder), ["the quick brown fox jumps over the lazy dog"], new_head=True)
    assert more.model.lm_head.out_features == len(more.processor.tokenizer) == more.model.config.vocab_size


def test_training_computes_in_bfloat16_where_the_hardware_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for supported in (True, False):  # also without --use_cpu
        monkeypatch.setattr("finetune.arguments.computes_in_bf16", lambda supported=supported: supported)
        assert CTCTrainingArguments(str(tmp_path)).bf16 is supported
        assert CTCTrainingArguments(str(tmp_path), use_cpu=True, bf16=False).bf16 is False


def test_half_precision_weights_are_trained_in_float32(tmp_path: Path) -> None:
    source = write_model(tmp_path, HubertModel(HubertConfig(**SHAPES["large"])).half())
    assert load_recogniser(str(source), ["one"]).model.dtype == torch.float32


# ----- Trainer --------------------------------------------------------------------------------------------


def first_step(folder: Path, data: Path, batch_size: int, accumulation: int) -> tuple[float, float]:
    """Loss and gradient norm of the first step through a stock Trainer."""
    clips = load_split(str(data), "train", TextRules()).clips[:8]
    recogniser = load_recogniser(str(folder), [str(clip.text) for clip in clips])
    trainer = Trainer(
        model=recogniser.model,
        args=arguments_for(
            folder / "trainer",
            max_steps=1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            train_sampling_strategy="sequential",
            disable_tqdm=True,
        ),
        train_dataset=ClipDataset(clips, recogniser.processor.tokenizer),
        data_collator=SpeechCollator(do_normalize=False, pad_multiple=3200),
        processing_class=recogniser.processor,
    )
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    return float(entry["loss"]), float(entry["grad_norm"])


def test_accumulation_changes_neither_loss_nor_gradient(tmp_path: Path, data: Path) -> None:
    folder = save_recogniser(tmp_path, **LARGE)
    whole = first_step(folder, data, batch_size=8, accumulation=1)
    assert first_step(folder, data, batch_size=4, accumulation=2) == pytest.approx(whole, rel=1e-4)


def test_lengths_come_from_headers() -> None:
    class Unreadable(Clip):
        def read(self) -> Any:
            raise AssertionError("decoded")

    clips = [Unreadable(str(n), Path("none"), 4_000 * n, "one") for n in (3, 1, 2)]
    dataset = ClipDataset(clips, build_processor(["one"], do_normalize=False).tokenizer)
    sampler = LengthGroupedSampler(2, dataset=dataset, model_input_name="input_values")
    assert sampler.lengths == [12_000, 4_000, 8_000]


def test_padding_never_decodes(tmp_path: Path, data: Path) -> None:
    folder = save_recogniser(tmp_path, **LARGE)
    recogniser = load_recogniser(str(folder), WORDS)
    model, tokenizer = recogniser.model, recogniser.processor.tokenizer
    dataset = ClipDataset(load_split(str(data), "validation", TextRules()).clips, tokenizer)
    together = predictions(model, [dataset[index] for index in range(len(dataset))])
    for row, index in zip(together, range(len(dataset)), strict=True):
        (alone,) = predictions(model, [dataset[index]])
        assert row[row != -100].tolist() == alone[alone != -100].tolist()
        rates = ErrorRates(tokenizer)
        assert rates._text(row.tolist()) == rates._text(alone.tolist()) != ""


def predictions(model: Any, items: list[dict[str, Any]]) -> torch.Tensor:
    """Token ids `(batch, frame)` as the metrics get them: Trainer pads logits and mask with -100."""
    batch = SpeechCollator(do_normalize=False, pad_multiple=3200)(items)
    with torch.inference_mode():
        logits = model.eval()(**batch).logits
    padded = torch.nn.functional.pad(logits, (0, 0, 0, 7), value=-100)
    mask = torch.nn.functional.pad(batch["attention_mask"], (0, 320 * 7), value=-100)
    return argmax_tokens(model)(padded, (batch["labels"], mask))


def test_error_rates_are_those_of_all_batches_together() -> None:
    tokenizer = build_processor(WORDS, do_normalize=False).tokenizer
    rates = ErrorRates(tokenizer)
    for _ in range(2):  # the second round starts from nothing
        assert rates(batch_of(tokenizer, ["two", "seven"], ["two", "one"]), False) == {}
        result = rates(batch_of(tokenizer, ["three oh", "one"], ["three oh", "one"]), True)
        assert result["wer"] == 1 / 5
        assert result["cer"] == pytest.approx(4 / len("twosevenone" + "three oh"))


def batch_of(tokenizer: Any, references: list[str], hypotheses: list[str]) -> Any:
    class Batch:
        label_ids = (padded([tokenizer(text).input_ids for text in references]), None)
        predictions = padded(
            [[i for label in tokenizer(text).input_ids for i in (label, 0)] for text in hypotheses]
        )

    return Batch


def padded(rows: list[list[int]]) -> torch.Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=-100)


# ----- checkpoints ----------------------------------------------------------------------------------------


class KilledError(Exception):
    """What stops a run from outside."""


def stopped_run(output: Path, config: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoints of a run that is stopped at the third of four steps."""
    on_log = TrainingLog.on_log

    def stop(self: TrainingLog, args: Any, state: Any, *rest: Any, **others: Any) -> None:
        if state.global_step == 3:
            raise KilledError
        on_log(self, args, state, *rest, **others)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "on_log", stop)
        with pytest.raises(KilledError):
            train(config, saving(output))
    assert not output.exists()
    return output.with_name(f"{output.name}.checkpoints")


def saving(output: Path, **changes: Any) -> CTCTrainingArguments:
    return arguments_for(output, max_steps=4, save_strategy="steps", save_steps=1, **changes)


def test_stopped_run_goes_on_to_the_same_result(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = tmp_path / "dropout.json"
    shape.write_text(json.dumps(SHAPES["large"] | {"hidden_dropout": 0.1}))
    config = FinetuneConfig(data=str(data), from_scratch=str(shape), augment=True)
    whole = train(config, saving(tmp_path / "whole"))
    checkpoints = stopped_run(tmp_path / "run", config, monkeypatch)
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-2"]
    with pytest.raises(UserError, match="checkpoints of a stopped run"):
        train(config, saving(tmp_path / "run"))
    resumed = train(config, saving(tmp_path / "run", resume_from_checkpoint="true"))
    assert not checkpoints.exists()
    assert resumed.steps == 4
    first, second = (HubertForCTC.from_pretrained(run.folder).state_dict() for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("log.jsonl", "finetune.yaml"):
        text = (resumed.folder / name).read_text()
        assert text.replace(str(resumed.folder), str(whole.folder)) == (whole.folder / name).read_text()


@pytest.mark.parametrize("torn_state", [None, '{"epoch"'])
def test_unfinished_checkpoint_is_passed_over(
    tmp_path: Path, data: Path, scratch_config: Path, monkeypatch: pytest.MonkeyPatch, torn_state: str | None
) -> None:
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config))
    unfinished = stopped_run(tmp_path / "run", config, monkeypatch) / "checkpoint-3"
    unfinished.mkdir()
    (unfinished / "model.safetensors").write_bytes(b"torn")
    if torn_state is not None:
        (unfinished / "trainer_state.json").write_text(torn_state)
    assert train(config, saving(tmp_path / "run", resume_from_checkpoint="true")).steps == 4
    assert not unfinished.parent.exists()


@pytest.mark.parametrize("damaged", ["model.safetensors", "optimizer.pt", "rng_state.pth"])
def test_damaged_checkpoint_is_one_line_and_stays(
    tmp_path: Path, data: Path, scratch_config: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config))
    checkpoints = stopped_run(tmp_path / "run", config, monkeypatch)
    (checkpoints / "checkpoint-2" / damaged).write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot go on from .*checkpoint-2"):
        train(config, saving(tmp_path / "run", resume_from_checkpoint="true"))
    assert (checkpoints / "checkpoint-2").is_dir()
    again = FinetuneConfig(data=str(data), from_scratch=str(scratch_config), overwrite=True)
    assert train(again, saving(tmp_path / "run")).steps == 4
    assert not checkpoints.exists()


def test_checkpoint_of_another_shape_is_one_line(
    tmp_path: Path, data: Path, scratch_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config))
    checkpoint = stopped_run(tmp_path / "run", config, monkeypatch) / "checkpoint-2"
    wider = tmp_path / "wider.json"
    wider.write_text(json.dumps(SHAPES["large"] | {"intermediate_size": 64}))
    other = FinetuneConfig(data=str(data), from_scratch=str(wider))
    with pytest.raises(UserError, match="a run with another from_scratch"):
        train(other, saving(tmp_path / "other", resume_from_checkpoint=str(checkpoint)))
    (checkpoint / "settings.json").unlink()
    with pytest.raises(UserError, match="cannot go on from"):
        train(other, saving(tmp_path / "other", resume_from_checkpoint=str(checkpoint)))
    assert not (tmp_path / "other.checkpoints").exists()


def test_a_run_goes_on_with_its_own_settings_alone(
    tmp_path: Path, data: Path, scratch_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config))
    stopped_run(tmp_path / "run", config, monkeypatch)
    again = {"resume_from_checkpoint": "true"}
    for other in ({"learning_rate": 1e-5}, {"seed": 7}, {"gradient_accumulation_steps": 2}):
        with pytest.raises(UserError, match=f"another ({next(iter(other))}|clips in a step)"):
            train(config, saving(tmp_path / "run", **again, **other))
    with pytest.raises(UserError, match="another augment"):
        train(replace(config, augment=True), saving(tmp_path / "run", **again))
    assert train(config, saving(tmp_path / "run", **again, logging_steps=3)).steps == 4


# ----- augmentation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [400, 5_000, 48_000])
def test_augmentation_is_a_pure_function_that_stays_finite(samples: int) -> None:
    waveform = np.sin(np.arange(samples) / 7, dtype=np.float32)
    before = waveform.copy()
    for seed in range(50):
        changed = augment(waveform, np.random.default_rng(seed))
        assert np.array_equal(changed, augment(waveform, np.random.default_rng(seed)))
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert int(samples / SPEED[1]) <= len(changed) <= samples / SPEED[0] + 2 * 1_600
        assert changed.std() > 0
    assert np.array_equal(waveform, before)


def test_augmentation_of_silence_stays_finite() -> None:
    assert np.isfinite(augment(np.zeros(4_000, np.float32), np.random.default_rng(0))).all()


def test_augmentation_depends_on_seed_epoch_and_clip_alone(data: Path) -> None:
    clips = load_clips(data, "train").clips[:2]
    tokenizer = build_processor(WORDS, do_normalize=False).tokenizer

    def sound(seed: int | None, epoch: int, index: int, cache: bool = False) -> bytes:
        dataset = ClipDataset(clips, tokenizer, augment_seed=seed, cache=cache)
        dataset.set_epoch(epoch)
        dataset.waveform(1 - index)  # what was read before does not matter
        return dataset.waveform(index).tobytes()

    assert sound(0, 2, 1) == sound(0, 2, 1) == sound(0, 2, 1, cache=True)
    assert len({sound(0, 0, 0), sound(0, 1, 0), sound(1, 0, 0), sound(None, 0, 0)}) == 4
    assert sound(None, 0, 0) == sound(None, 1, 0) == clips[0].read().tobytes()
    twins = ClipDataset([clips[0], clips[0]], tokenizer, augment_seed=0)
    assert twins.waveform(0).tobytes() != twins.waveform(1).tobytes()


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_each_epoch_is_told_to_the_augmentation(
    tmp_path: Path, data: Path, scratch_config: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    heard: list[tuple[int, int]] = []

    class Spy(ClipDataset):
        def waveform(self, index: int) -> Any:
            heard.append((int(self._epoch), index))
            return super().waveform(index)

    monkeypatch.setattr("finetune.trainer.ClipDataset", Spy)
    # On several processes Accelerate tells a random sampler in place of the data set.
    monkeypatch.setattr("accelerate.data_loader.DataLoaderShard.set_epoch", lambda *_: None)
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config), augment=True, eval_split="none")
    arguments = arguments_for(
        tmp_path / "run", max_steps=-1, num_train_epochs=2, train_sampling_strategy=strategy
    )
    train(config, arguments)
    assert sorted(heard) == [(epoch, index) for epoch in (0, 1) for index in range(12)]


# ----- bad input ------------------------------------------------------------------------------------------


def test_frames_needed_counts_a_blank_between_equal_letters() -> None:
    assert frames_needed([]) == 0
    assert frames_needed([5, 6, 5]) == 3
    assert frames_needed([5, 5, 6, 6, 6]) == 8


def test_clips_too_short_for_their_text_are_left_out_and_listed(tmp_path: Path, scratch_config: Path) -> None:
    data = write_data(tmp_path / "data", {"train": 8})
    soundfile.write(data / "train" / "short.wav", np.full(3_300, 0.1), RATE)  # ten frames
    with (data / "metadata.csv").open("a") as file:
        file.write("train/short.wav,seven two,speaker0,train\n")
    for augmented in (False, True):
        config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config), augment=augmented)
        result = train(config, arguments_for(tmp_path / f"run{augmented}", max_steps=1))
        # Nine letters fit on ten frames, but not once augmentation has made the clip shorter.
        assert (result.train_clips, result.skipped) == ((8, 1) if augmented else (9, 0))
    (line,) = (result.folder / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["clip_id"] == "train/short.wav"
    assert "too short for its text" in json.loads(line)["reason"]


def test_clips_left_out_of_the_evaluation_are_told_and_listed(
    tmp_path: Path, scratch_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", {"train": 4, "validation": 2})
    (data / "validation" / "0.wav").write_text("no sound")
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config))
    result = train(config, arguments_for(tmp_path / "run", max_steps=1))
    assert "evaluation on 1 clips (1 left out)" in capsys.readouterr().out
    (line,) = (result.folder / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["clip_id"] == "validation/0.wav"


def bad_folder(tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / kind
    if kind == "missing":
        return folder
    write_data(folder, {"train": 2})
    metadata = folder / "metadata.csv"
    if kind == "empty":
        metadata.write_text("file_name,transcription,split\n")
    if kind == "no_transcripts":
        metadata.write_text("file_name,split\ntrain/0.wav,train\ntrain/1.wav,train\n")
    if kind == "only_punctuation":
        metadata.write_text("file_name,transcription,split\ntrain/0.wav,...,train\ntrain/1.wav,!,train\n")
    if kind == "not_audio":
        for path in (folder / "train").iterdir():
            path.write_text("no sound")
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "there is no data at"),
        ("empty", "no rows in it"),
        ("no_transcripts", "no transcript"),
        ("only_punctuation", "no letters"),
        ("not_audio", "cannot be decoded"),
    ],
)
def test_unusable_data_is_one_line_and_leaves_nothing(
    tmp_path: Path, scratch_config: Path, capsys: pytest.CaptureFixture[str], kind: str, said: str
) -> None:
    data = bad_folder(tmp_path, kind)
    flags = ["--data", str(data), "--from_scratch", str(scratch_config)]
    assert said in complaint(flags, tmp_path / "run", capsys)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--nonsense", "1"], "--nonsense"),
        (["--learning_rate", "fast"], "--learning_rate"),
        (["--model", "./nowhere"], "there is no folder"),
        (["--model", "nobody/nothing"], "nobody/nothing"),
        (["--train_split", "night"], "'night'"),
        (["--from_scratch", "nowhere.json"], "nowhere.json"),
        (["--pad_multiple", "0"], "--pad_multiple 0"),
        (["--eval_split", "night", "--eval_strategy", "epoch"], "'night'"),
        (["--eval_split", "none", "--eval_strategy", "epoch"], "--eval_split none"),
        (["--report_to", "nobody"], "nobody"),
        (["--report_to", "comet_ml"], "comet"),  # a tracker that is not installed
        (["--optim", "adamw_bnb_8bit"], "bitsandbytes"),  # nor is this
        (["--per_device_train_batch_size", "0"], "batch_size=0"),
        (["--push_to_hub", "true"], "model_card.push"),
        (["--hub_token", "hf_secret"], "--hub_token is used for nothing"),
        (["--resume_from_checkpoint", "true"], "no checkpoint to go on from"),
        (["--resume_from_checkpoint", "./nowhere"], "./nowhere"),
    ],
)
def test_wrong_flags_are_one_line(
    tmp_path: Path,
    data: Path,
    scratch_config: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
) -> None:
    source = (
        [] if "--model" in flags or "--from_scratch" in flags else ["--from_scratch", str(scratch_config)]
    )
    assert said in complaint(["--data", str(data), *source, *flags], tmp_path / "run", capsys)


def complaint(flags: list[str], output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command says before it ends with status 2, having written nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *flags, "--output_dir", str(output)])
        with pytest.raises(SystemExit) as stopped:
            run_command(main)
    assert stopped.value.code == 2
    assert not output.exists()
    assert not list(output.parent.glob(f"*{output.name}.*"))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_existing_folder_is_not_touched(tmp_path: Path, data: Path, scratch_config: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config))
    with pytest.raises(UserError, match="--overwrite"):
        train(config, arguments_for(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_missing_evaluation_split_is_said_and_left_out(
    tmp_path: Path, scratch_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", {"train": 4})
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config))
    result = train(config, arguments_for(tmp_path / "run", max_steps=1))
    assert result.evaluation is None
    assert "eval" not in json.loads((result.folder / "results.json").read_text())
    assert "no evaluation: " in capsys.readouterr().out


def test_data_without_splits_is_taken_whole_on_request(tmp_path: Path, scratch_config: Path) -> None:
    data = write_data(tmp_path / "data", {"train": 4, "test": 2})
    config = FinetuneConfig(
        data=str(data), train_split="all", eval_split="none", from_scratch=str(scratch_config)
    )
    result = train(config, arguments_for(tmp_path / "run", max_steps=1))
    assert result.train_clips == 6
    assert len(score(str(result.folder), str(data), split="all").utterances) == 6


def test_loss_that_is_not_finite_ends_the_run(tmp_path: Path, data: Path, scratch_config: Path) -> None:
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config))
    arguments = arguments_for(
        tmp_path / "run", learning_rate=1e30, warmup_steps=0, max_grad_norm=0.0, max_steps=20
    )
    with pytest.raises(UserError, match="lower --learning_rate"):
        train(config, arguments)
    assert not list(tmp_path.iterdir())


def test_command_ends_in_status_2_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "finetune.train"]
    done = subprocess.run(
        [*command, "--data", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no data at")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


# ----- real speech ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fsdd_digits", "ljspeech_mini"])
def test_real_speech_is_trained_and_evaluated_on_its_splits(
    tmp_path: Path, speech_dir: Path, scratch_config: Path, name: str
) -> None:
    data = speech_dir / name
    if not data.is_dir():
        pytest.skip(f"{data} is missing")
    config = FinetuneConfig(data=str(data), from_scratch=str(scratch_config))
    result = train(config, arguments_for(tmp_path / "run", max_steps=2))
    expected = load_clips(data, "train", need_text=True)
    assert result.train_clips + result.skipped == len(expected.clips) + len(expected.skipped)
    assert result.evaluation is not None
    scored = score(str(result.folder), str(data), split="validation")
    assert (scored.wer, scored.cer) == (result.evaluation["wer"], result.evaluation["cer"])
