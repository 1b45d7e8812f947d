"""Command lines: `argparse` for small tools, dataclasses (YAML, and flags over it) for training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from hf_distilhubert.errors import UserError


class OneLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaint is one line (and exit status 2, through `run_command`)."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint as a `UserError`."""
        raise UserError(f"{message}; see {self.prog} --help")


def argument_parser(prog: str, description: str, examples: str) -> OneLineParser:
    """A parser whose `--help` ends in examples."""
    return OneLineParser(
        prog=prog,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse_dataclasses(
    classes: Sequence[Any], prog: str, description: str, examples: str, argv: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """Read dataclasses from flags, or from a YAML file given first with flags over it.

    `--help` shows the fields of the first class.

    Args:
        classes: dataclasses with a `help` in each field's metadata.
        prog: the command, for `--help` and complaints.
        description: what it does, for `--help`.
        examples: example lines, for `--help`.
        argv: arguments; None takes the command line's.

    Raises:
        UserError: an unknown key or flag, a missing or wrong value.
    """
    from transformers import HfArgumentParser

    class Parser(OneLineParser, HfArgumentParser):
        pass

    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        classes = classes[:1]
    parser = Parser(
        list(classes),
        prog=prog,
        description=description,
        epilog=f"A YAML file of the same names may come first; flags go over it.\n\nexamples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if arguments and not arguments[0].startswith("-"):
        arguments = [*_yaml_flags(Path(arguments[0])), *arguments[1:]]
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(
            args=arguments, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:
        raise UserError(f"{error}; see {prog} --help") from error
    if unknown:
        raise UserError(f"unknown setting {unknown[0]}; see {prog} --help")
    return tuple(parsed)


def _yaml_flags(path: Path) -> list[str]:
    """The keys of a YAML file as flags, so that there is one way to say and check a setting."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the settings {path}: {error.strerror}; flags begin with --") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings; write lines of `name: value`")
    flags: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        items = value if isinstance(value, list) else [value]
        flags += [f"--{name}", *(str(item) for item in items)]
    return flags
