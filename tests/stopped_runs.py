"""Training runs that are stopped from outside: a server that imports once and forks each run.

One request a line on standard input, one answer a line on standard output, both JSON. A run reports through
a pipe what it is doing; once it has reported `event` for the `count`th time, and after `delay` seconds more,
its processes of `ranks`, and those that read audio for them, get the signal `number`.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

TURNS = {"step": b"s", "save": b"w", "evaluation": b"e", "result": b"r"}
SETTINGS = {
    "target_layers": [2, 4],
    "max_steps": 12,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "pad_multiple": 1_000,
    "max_samples": 3_000,  # so that clips are cropped
    "logging_steps": 3,
    "save_steps": 2,
    "eval_steps": 4,
}


def outcome(folder: Path) -> dict:
    """All that must not depend on whether a run was stopped."""
    results = json.loads((folder / "results.json").read_text())
    del results["seconds"]
    return {
        "log": (folder / "log.jsonl").read_text(),
        "weights": (folder / "model.safetensors").read_bytes(),
        "results": results,
    }


def serve() -> None:
    import soundfile  # noqa: F401 - what a run imports late is imported before the fork
    import soxr  # noqa: F401
    import transformers.models.hubert.modeling_hubert
    import transformers.models.wav2vec2.feature_extraction_wav2vec2  # noqa: F401

    import hf_distilhubert.distill
    import hf_distilhubert.distillation_run
    import hf_distilhubert.teachers  # noqa: F401

    build_table_of_names()
    for line in sys.stdin:
        print(json.dumps(attempt(**json.loads(line))), flush=True)


def build_table_of_names() -> None:
    """Of the names that weights once had: Transformers builds it when the first model is loaded or saved."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("hubert")


def attempt(
    flags: list[str], output: str, processes: int = 1, stop: dict | None = None, stage: str = "distill"
) -> dict:
    """Run the command once; its exit statuses (negative: the signal), and what it printed."""
    if stage == "finetune":
        import finetune.metrics
        import finetune.train
        import finetune.trainer  # noqa: F401 - before the fork
    gc.freeze()  # what a fork inherits it need not look through again
    reader, writer = os.pipe()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            os.close(reader)
            os._exit(run(stage, flags, f"{output}.{rank}", writer, rank, processes, port))
        children.append(child)
    os.close(writer)
    if stop:
        wait_and_stop(children, reader, **stop)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(reader)
    printed = [Path(f"{output}.{rank}").read_text() for rank in range(processes)]
    return {"statuses": statuses, "printed": printed}


def wait_and_stop(
    children: list[int], reader: int, event: str, count: int, delay: float, number: int, ranks: list[int]
) -> None:
    while count and (heard := os.read(reader, 1)):
        count -= heard == TURNS[event]
    if not count:
        time.sleep(delay)
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.killpg(children[rank], number)


def run(stage: str, flags: list[str], output: str, writer: int, rank: int, processes: int, port: int) -> int:
    """The command in a fork of its own, as `torch.distributed.run` would start it; its exit status."""
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for place, descriptor in enumerate((null, file, file)):
        os.dup2(descriptor, place)
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from hf_distilhubert.errors import run_command

    main = {"distill": distillation, "finetune": fine_tuning}[stage](flags, writer, rank)
    try:
        run_command(main)
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        return int(end.code or 0)


def distillation(flags: list[str], writer: int, rank: int):
    """The command, made to report and to be slow where it is to be stopped."""
    from hf_distilhubert import snapshots, training
    from hf_distilhubert.distill import main

    training._step = reporting(training._step, writer, "step", rank)
    snapshots.Snapshots.save = reporting(snapshots.Snapshots.save, writer, "save", rank)
    snapshots.Snapshots._write_rest = slowly(snapshots.Snapshots._write_rest)
    snapshots.Checkpoints.commit = slowly(snapshots.Checkpoints.commit)
    return lambda: main(flags)


def fine_tuning(flags: list[str], writer: int, rank: int):
    """The same for fine-tuning."""
    from transformers import Trainer, TrainerState

    from finetune import train

    Trainer.training_step = reporting(Trainer.training_step, writer, "step", rank)
    Trainer._save_checkpoint = reporting(Trainer._save_checkpoint, writer, "save", rank)
    Trainer.evaluate = reporting(Trainer.evaluate, writer, "evaluation", rank)
    for name in ("save_model", "_save_optimizer_and_scheduler", "_save_rng_state"):
        setattr(Trainer, name, slowly(getattr(Trainer, name)))
    TrainerState.save_to_json = in_two_parts(TrainerState.save_to_json)
    train.save_result = reporting(slowly(train.save_result), writer, "result", rank)
    sys.argv = ["finetune.train", *flags]
    return train.main


def in_two_parts(save_to_json):
    """Leave time to be killed in the middle of a file."""

    def torn(state, path):
        save_to_json(state, path)
        text = Path(path).read_text()
        Path(path).write_text(text[: len(text) // 2])
        time.sleep(0.01)
        Path(path).write_text(text)

    return torn


def reporting(function, writer: int, event: str, rank: int):
    def reported(*arguments, **named):
        if rank == 0:
            with suppress(BrokenPipeError):
                os.write(writer, TURNS[event])
        return function(*arguments, **named)

    return reported


def slowly(function):
    """Leave time to be killed between two parts of a checkpoint."""

    def slow(*arguments, **named):
        time.sleep(0.01)
        result = function(*arguments, **named)
        time.sleep(0.01)
        return result

    return slow


if __name__ == "__main__":
    serve()
