"""A step of CTC fine-tuning at the paper's sizes, against Trainer's defaults and against a bare loop.

    python -m benchmarks.finetuning_step

Trainer's defaults: float32, the front end trained along. Ours: bfloat16 and the front end frozen. All learn
from the same batch of noise on the CPU, with random weights, and take turns; the median counts. The last line
is the same training through our Trainer and through a plain loop of the same steps.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.turns import Turn, medians
from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import run_command

EXAMPLES = """\
  python -m benchmarks.finetuning_step
  python -m benchmarks.finetuning_step --clips 8 --seconds 10 --threads 2
"""
STEPS = 3  # of one turn


def student(frozen: bool) -> Any:
    """A `HubertForCTC` of the paper's student's size, with random weights and no dropout."""
    import torch
    from transformers import HubertConfig, HubertForCTC

    torch.manual_seed(0)
    dropout: dict[str, Any] = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout"),
        0.0,
    )
    config = HubertConfig(
        num_hidden_layers=2,
        vocab_size=32,
        apply_spec_augment=False,
        layerdrop=0.0,
        ctc_loss_reduction="mean",
        **dropout,
    )
    model: Any = HubertForCTC(config)
    if frozen:
        model.freeze_feature_encoder()
    # As `finetune.train` has it: otherwise Trainer takes the loss for a sum over the batch.
    model.accepts_loss_kwargs = False
    return model.train()


def bare_loop(model: Any, batch: Mapping[str, Any], *, bf16: bool) -> Turn:
    """Some steps as one would write them down: forward, backward, clip, AdamW; the seconds of one."""
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)

    def turn() -> float:
        started = time.perf_counter()
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return (time.perf_counter() - started) / STEPS

    return turn


def through_trainer(model: Any, batch: Mapping[str, Any], folder: str) -> Turn:
    """The same steps through Trainer, with the arguments of `finetune.train`, without setting it up."""
    import torch
    from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

    from finetune.arguments import CTCTrainingArguments

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    rows, clock = len(batch["labels"]), Clock()
    items = [{name: values[row] for name, values in batch.items()} for row in range(rows)] * (STEPS + 1)
    arguments = CTCTrainingArguments(
        output_dir=folder,
        max_steps=STEPS + 1,
        per_device_train_batch_size=rows,
        learning_rate=1e-5,
        bf16=True,
        use_cpu=True,
        train_sampling_strategy="sequential",
        report_to=[],
        dataloader_pin_memory=False,
        logging_strategy="no",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=items,
        data_collator=lambda chosen: {name: torch.stack([item[name] for item in chosen]) for name in batch},
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)

    def turn() -> float:
        trainer.train()
        return (clock.ends[-1] - clock.ends[0]) / STEPS

    return turn


def noise(clips: int, seconds: float) -> dict[str, Any]:
    """A batch: waveforms of one length, and a letter for every quarter of a second."""
    import torch

    generator = torch.Generator().manual_seed(0)
    values = torch.randn(clips, int(seconds * 16_000), generator=generator) * 0.1
    labels = torch.randint(3, 32, (clips, max(1, int(4 * seconds))), generator=generator)
    mask = torch.ones(values.shape, dtype=torch.int64)
    return {"input_values": values, "attention_mask": mask, "labels": labels}


def main() -> None:
    """Read the command line, measure, and print the medians and their ratios."""
    parser = argument_parser("python -m benchmarks.finetuning_step", __doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("--clips", type=int, default=2, help="clips in a batch")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    batch = noise(arguments.clips, arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        found = medians(
            {
                "Trainer's defaults": bare_loop(student(frozen=False), batch, bf16=False),
                "frozen front end": bare_loop(student(frozen=True), batch, bf16=False),
                "frozen front end, bf16": bare_loop(student(frozen=True), batch, bf16=True),
                "the last through Trainer": through_trainer(
                    student(frozen=True), batch, str(Path(folder, "out"))
                ),
            },
            arguments.rounds,
        )
    peer = found["Trainer's defaults"]
    for name, median in found.items():
        print(f"{name:26} {median:6.3f} s a step, {peer / median:.2f}x", flush=True)
    overhead = found["the last through Trainer"] / found["frozen front end, bf16"] - 1
    print(f"Trainer takes {overhead:+.1%} more than the loop")


if __name__ == "__main__":
    run_command(main)
