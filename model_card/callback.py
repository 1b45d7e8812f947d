"""A callback with which `trainer.push_to_hub()` brings the card of `render`, and no pickle."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import transformers.trainer
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import HubStrategy

from hf_distilhubert.errors import UserError, one_line
from model_card.render import render
from model_card.training_records import History, write_records

__all__ = ["CardCallback", "write_records"]
logger = logging.getLogger(__name__)

PICKLE = "training_args.bin"
HIDDEN = f"_{PICKLE}"  # Trainer uploads nothing that begins so


class CardCallback(TrainerCallback):
    """Has Trainer push the card that `python -m model_card.render` writes, in place of its own.

        from model_card.callback import CardCallback

        trainer = Trainer(
            model=model,
            args=TrainingArguments("my-recogniser", ...),
            processing_class=processor,
            callbacks=[CardCallback(language="en", license="apache-2.0")],
            ...
        )
        trainer.train()
        trainer.push_to_hub()

    Trainer pushes its `output_dir`, so that is where `log.jsonl`, `results.json` and `lineage.json` come to
    lie, from which the card is written with all else that is there (a score, a benchmark). What a stage wrote
    there of the same steps stays. Pushes of checkpoints while it trains bring the card too. The pickle of
    the training arguments, a token in it perhaps, stays on this machine.

    A card that cannot be written stops neither training nor push: a line of the log says why, and again when
    the training ends, and the README.md that was there is pushed.

    Args:
        language: of the speech, as the Hub has it.
        license: of the weights, as the Hub has it.
        base_model: what the weights were made from, as the Hub calls it.
        dataset: what it was trained on, as the Hub calls it.
        data_license: of that speech, as the Hub has it.

    Attributes:
        failure: why the last card could not be written, None where it was.
    """

    def __init__(
        self,
        *,
        language: str | None = None,
        license: str | None = None,  # noqa: A002 (the Hub's own word)
        base_model: str | None = None,
        dataset: str | None = None,
        data_license: str | None = None,
    ) -> None:
        self.given = {"language": language, "license": license, "base_model": base_model}
        self.given |= {"dataset": dataset, "data_license": data_license}
        self.failure: str | None = None
        self._trains = False
        self._history = History()

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Refuse a model of another kind before it is trained; say so where pickles were asked for.

        Raises:
            UserError: the model is no recogniser.
        """
        kind = type(given["model"]).__name__
        if "ForCTC" not in kind:
            raise UserError(
                f"a CardCallback writes cards of recognisers (HubertForCTC, …), and this is a {kind}"
            )
        self._trains, self.failure = True, None
        self._history = self._history.then(given["model"], state)
        strategy = HubStrategy(args.hub_strategy).value
        if args.push_to_hub and "checkpoint" in strategy and state.is_world_process_zero:
            logger.warning(
                "hub_strategy=%r pushes whole checkpoints, whose optimizer states are pickles; "
                "'every_save' pushes the model alone",
                strategy,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say again what went wrong hours ago."""
        self._trains = False
        transformers.trainer.TRAINING_ARGS_NAME = PICKLE
        if self.failure:
            self._warn(args.output_dir)

    def on_push_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Before Trainer saves and uploads: see to it that the card is ours, and no pickle beside it."""
        if not state.is_world_process_zero:
            return
        trainer = self._trainer()
        trainer.create_model_card = partial(self._create_model_card, trainer)  # type: ignore[method-assign]
        if self._trains:
            # Of a checkpoint Trainer writes no card, and it copies the config once this has returned. It
            # pickles its arguments then too, and uploads at once; `on_save` follows.
            transformers.trainer.TRAINING_ARGS_NAME = HIDDEN
            _hide_pickle(args.output_dir)
            config = copy.deepcopy(given["model"].config)
            config.architectures = [type(given["model"]).__name__]
            config.save_pretrained(args.output_dir)
            self._write(trainer, self.given)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint and its push are done."""
        transformers.trainer.TRAINING_ARGS_NAME = PICKLE

    def _trainer(self) -> Trainer:
        """Whose event this is: Trainer tells its callbacks everything but that."""
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
            found = frame.f_locals.get("self")
            if isinstance(found, Trainer) and self in found.callback_handler.callbacks:
                return found
        raise RuntimeError("this event was not sent by a Trainer that has this callback")

    def _create_model_card(self, trainer: Trainer, **named: Any) -> None:
        """In place of `Trainer.create_model_card`: the folder is whole by now, and is uploaded next.

        Args:
            trainer: whose `output_dir` gets the card.
            named: what `push_to_hub` was given for the card; it goes before what this callback was given.
        """
        transformers.trainer.TRAINING_ARGS_NAME = PICKLE  # an interrupted training may have left it hidden
        if trainer.is_world_process_zero():
            _hide_pickle(trainer.args.output_dir)
            self._write(trainer, {name: named.get(name) or value for name, value in self.given.items()})

    def _write(self, trainer: Trainer, given: Mapping[str, str | None]) -> None:
        folder = Path(str(trainer.args.output_dir))
        try:
            write_records(trainer, folder, given["dataset"], self._history)
            render(folder, repo_id=getattr(trainer, "hub_model_id", None), **given)
            self.failure = None
        except Exception as error:  # whatever it is, hours of training are worth more than a card
            self.failure = f"{type(error).__name__}: {one_line(error)}"
            self._warn(folder)

    def _warn(self, folder: str | Path) -> None:
        # A logger says it each time, where a warning would be shown once.
        logger.error(
            "THE CARD COULD NOT BE WRITTEN (%s). What is pushed has the README.md that was there before, if "
            "any; mend that and push again, or run python -m model_card.render %s",
            self.failure,
            folder,
        )


def _hide_pickle(output_dir: str | None) -> None:
    if (pickle := Path(str(output_dir), PICKLE)).exists():
        pickle.replace(pickle.with_name(HIDDEN))
