"""`trainer.push_to_hub()` with a `CardCallback` brings our card, and no pickle."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cards import make_bare
from conftest import Server, python, save_recogniser

from model_card.render import render
from model_card.training_records import SETTINGS, History, write_records

# What a notebook does, with the stock Trainer; the sound is noise.
TRAIN = """
import sys
from pathlib import Path
import torch
from transformers import AutoProcessor, HubertForCTC, Trainer, TrainingArguments
from model_card.callback import CardCallback

source, folder, more = sys.argv[1], sys.argv[2], eval(sys.argv[3])
model = HubertForCTC.from_pretrained(source, mask_time_prob=0.0)
model.accepts_loss_kwargs = False
torch.manual_seed(0)
clips = [{"input_values": torch.randn(4_000), "labels": torch.tensor([3, 4, 5])} for _ in range(4)]
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        folder, **{"max_steps": 2, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 1} | more,
        per_device_train_batch_size=2, report_to="none", save_only_model=True, disable_tqdm=True,
        hub_model_id=f"someone/{Path(folder).name}", hub_token="hf_token-of-the-tests",
        dataloader_pin_memory=False,
    ),
    train_dataset=clips,
    eval_dataset=clips[:1],
    processing_class=AutoProcessor.from_pretrained(source),
    compute_metrics=lambda _: {"wer": 0.5, "cer": 0.25},
    callbacks=[CardCallback(language="en", license="mit", dataset="someone/clips")],
)
"""
PUSH = """
import transformers.trainer
trainer.train()
save, trainer.save_model = trainer.save_model, None
try:
    trainer.push_to_hub()
except TypeError:  # a push that fails leaves the other trainers of the notebook alone
    assert transformers.trainer.TRAINING_ARGS_NAME == "training_args.bin"
trainer.save_model = save
trainer.push_to_hub()
"""
PULL = """
from transformers import AutoProcessor, HubertForCTC
there = HubertForCTC.from_pretrained("someone/digits")
assert torch.equal(there.lm_head.weight, model.lm_head.weight.cpu())
AutoProcessor.from_pretrained("someone/digits")
"""


def run(code: str, tmp_path: Path, processes: Server, name: str, **more: object) -> Path:
    """Run a notebook of these lines; the folder that Trainer pushed."""
    folder = tmp_path / name
    source = save_recogniser(tmp_path / "source")
    python("-c", TRAIN + code, source, folder, repr(more), server=processes)
    return folder


def test_a_push_brings_our_card_and_no_pickle_and_loads(hub_and_processes, tmp_path):
    hub, processes = hub_and_processes
    folder = run(PUSH + PULL, tmp_path, processes, "digits")
    there = hub.root / "someone" / "digits"
    card = (there / "README.md").read_text(encoding="utf-8")
    assert card == (folder / "README.md").read_text(encoding="utf-8")
    assert "generated automatically" not in card
    assert all(line in card for line in ("language: en", "license: mit", "- someone/clips", "2 steps"))
    names = {path.name for path in there.rglob("*")}
    assert {"config.json", "model.safetensors", "log.jsonl", "results.json", "training-dark.png"} <= names
    assert not [path for path in there.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert (folder / "_training_args.bin").is_file()
    assert b"hf_token" not in b"".join(path.read_bytes() for path in there.rglob("*") if path.is_file())
    log = [json.loads(line) for line in (there / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2]
    (stage,) = json.loads((there / "lineage.json").read_text())
    assert (stage["stage"], stage["source"], stage["eval"]) == (
        "finetune",
        "source",
        {"wer": 0.5, "cer": 0.25},
    )


# Its second checkpoint meets a file that no card can be made of; then the run goes on, and all is well.
TROUBLE = """
import logging
from transformers import TrainerCallback

class Spoiler(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 1:
            trainer._finish_current_push()
            cards.append(card.read_text())
            results.write_text("{")

cards, card, results = [], Path(folder, "README.md"), Path(folder, "results.json")
trainer.add_callback(Spoiler())
said, handler = [], logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("model_card").addHandler(handler)
trainer.train()
assert [text.split(" (UserError: ")[0] for text in said] == ["THE CARD COULD NOT BE WRITTEN"] * 2, said
assert "1 step," in cards[0] and card.read_text() == cards[0]
assert results.read_text() == "{"
results.unlink()
card.write_text("# My digits\\n\\nRecorded in my kitchen.\\n")
trainer.args.max_steps = 3
trainer.pop_callback(Spoiler)
trainer.train(resume_from_checkpoint=True)
trainer.push_to_hub(license="cc0-1.0")
"""


def test_checkpoints_bring_their_card_and_one_that_fails_stops_nothing(hub_and_processes, tmp_path):
    hub, processes = hub_and_processes
    pushes = len(hub.uploads.summaries)
    saving = {"push_to_hub": True, "hub_strategy": "every_save", "save_steps": 1, "hub_always_push": True}
    run(TROUBLE, tmp_path, processes, "resumed", **saving)
    there = hub.root / "someone" / "resumed"
    assert len(hub.uploads.summaries) - pushes == 4  # after three steps, and at the end
    assert not list(there.rglob("*training_args.bin"))
    card = (there / "README.md").read_text(encoding="utf-8")
    assert all(text in card for text in ("Recorded in my kitchen.", "3 steps", "license: cc0-1.0"))
    log = [json.loads(line) for line in (there / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3]


OTHER = """
from torch import nn
from hf_distilhubert.errors import UserError
from model_card.callback import CardCallback
try:
    CardCallback().on_train_begin(None, None, None, model=nn.Linear(1, 1))
except UserError as error:
    print(error)
"""


def test_a_model_that_is_no_recogniser_is_refused_before_it_is_trained(hub_and_processes):
    _, processes = hub_and_processes
    assert "cards of recognisers (HubertForCTC, …), and this is a Linear" in python(
        "-c", OTHER, server=processes
    )


def trainer_after_training(best: bool = False, later: Sequence[float] = ()) -> Any:
    """What `write_records` asks of a Trainer, after four steps and two evaluations, and later ones."""
    history = [{"step": step, "eval_loss": 1.0, "eval_wer": wer} for step, wer in ((2, 0.3), (4, 0.4))]
    history += [{"step": 4, "loss": math.nan, "train_runtime": 7.0}]
    history += [{"step": 4, "eval_loss": 1.0, "eval_wer": wer} for wer in later]
    args = SimpleNamespace(**dict.fromkeys(SETTINGS, 1), train_batch_size=6, world_size=1)
    args.to_dict = lambda: vars(args)
    args.device, args.load_best_model_at_end = SimpleNamespace(type="cpu"), best
    state = SimpleNamespace(global_step=4, log_history=history, best_global_step=2)
    model = SimpleNamespace(num_parameters=lambda: 5, name_or_path="")
    return SimpleNamespace(args=args, state=state, model=model, processing_class=None, train_dataset=None)


@pytest.mark.parametrize(
    ("best", "later", "expected"),
    [
        (False, [], {"wer": 0.4}),
        (True, [], {"wer": 0.3}),
        (True, [0.2], {"wer": 0.2}),
        (False, [0.2], {"wer": 0.2}),
    ],
)
def test_the_error_that_is_told_is_that_of_the_weights_that_are_pushed(best, later, expected, tmp_path):
    trainer = trainer_after_training(best, later)
    write_records(trainer, tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["eval"], found["seconds"], found["batch_size"]) == (expected, 7.0, 6)
    assert "NaN" not in (tmp_path / "log.jsonl").read_text()
    # An evaluation of other weights than these is none of theirs.
    trainer.state.global_step, trainer.state.best_global_step = 5, None
    write_records(trainer, tmp_path)
    assert ("eval" in json.loads((tmp_path / "results.json").read_text())) == bool(later)


@pytest.mark.usefixtures("no_figures")
def test_what_was_before_the_last_training_is_not_passed_over(tmp_path):
    trainer, folder = trainer_after_training(), make_bare(tmp_path / "model")
    begun = SimpleNamespace(global_step=0)
    first = History().then(trainer.model, begun)
    assert (first.earlier_steps, first.resumed) == (0, False)
    begun.global_step = 3  # Trainer counts on in the same object
    second = first.then(trainer.model, SimpleNamespace(global_step=0))
    write_records(trainer, folder, history=second)
    text = render(folder).text
    assert "4 steps after 3 of an earlier training" in text
    assert "It took 7.0 s" in text
    assert "from `weights of no name`" in text
    assert "random" not in text
    # The clock of a run that goes on begins anew, and another model has nothing of the first one's steps.
    resumed = second.then(trainer.model, SimpleNamespace(global_step=2))
    write_records(trainer, folder, history=resumed)
    found = json.loads((folder / "results.json").read_text())
    assert (found["earlier_steps"], "seconds" in found) == (3, False)
    assert second.then(object(), SimpleNamespace(global_step=0)).earlier_steps == 0


def test_of_an_earlier_run_in_the_folder_no_error_stays(tmp_path):
    (tmp_path / "results.json").write_text(
        json.dumps({"stage": "finetune", "steps": 4, "eval": {"wer": 0.01}, "train_hours": 2.5})
    )
    trainer = trainer_after_training()
    trainer.state.log_history = []
    write_records(trainer, tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert ("eval" in found, found["train_hours"]) == (False, 2.5)
