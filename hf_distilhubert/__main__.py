"""The `distilhubert` command; each subcommand is imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from hf_distilhubert import __version__
from hf_distilhubert.errors import UserError, run_command

COMMANDS = {
    "distill": "distil a speech teacher into a small student",
    "transcribe": "turn speech into text with a fine-tuned student",
    "features": "write hidden states of audio files",
    "benchmark": "measure how fast, small and exact a model is",
    "export": "write a model as a file for ONNX Runtime, OpenVINO or a browser",
    "demo": "open a page that transcribes in the browser",
}

HELP = "\n".join(
    [
        "usage: distilhubert COMMAND [--help] …",
        "",
        "Make, adapt and ship small speech models.",
        "",
        "commands:",
        *(f"  {name:<12}{text}" for name, text in COMMANDS.items()),
        "",
        "examples:",
        "  distilhubert distill --teacher facebook/hubert-base-ls960 --data LibriSpeech --output_dir student",
        "  distilhubert transcribe --model runs/digits speech.wav",
        "",
        "The stages run from the checkout: python -m conversion.from_s3prl, finetune.train, finetune.score,",
        "model_card.render, model_card.push; each has --help.",
    ]
)


def run(argv: Sequence[str] | None = None) -> None:
    """Pass the arguments on to the subcommand."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(HELP)
    elif command == "--version":
        print(f"distilhubert {__version__}")
    elif command in COMMANDS:
        module = importlib.import_module(f"hf_distilhubert.{command}")
        module.main(arguments[1:], prog=f"distilhubert {command}")
    else:
        raise UserError(
            f"there is no command {command!r}; there are {', '.join(COMMANDS)}; see distilhubert --help"
        )


def main() -> None:
    """Run the command line and exit."""
    run_command(run)


if __name__ == "__main__":
    main()
