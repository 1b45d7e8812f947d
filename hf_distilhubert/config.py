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
    classes: Sequence[Any],
    prog: str,
    description: str,
    examples: str,
    argv: Sequence[str] | None = None,
    recipes: Path | None = None,
) -> tuple[Any, ...]:
    """Read dataclasses from flags, or from a YAML file given first with flags over it.

    `--help` shows the fields of the first class.

    Args:
        classes: dataclasses with a `help` in each field's metadata.
        prog: the command, for `--help` and complaints.
        description: what it does, for `--help`.
        examples: example lines, for `--help`.
        argv: arguments; None takes the command line's.
        recipes: folder of YAML files that `--recipe NAME` stands for.

    Raises:
        UserError: an unknown key or flag, a missing or wrong value.
    """
    from transformers import HfArgumentParser

    class Parser(OneLineParser, HfArgumentParser):
        pass

    arguments = list(sys.argv[1:] if argv is None else argv)
    hint = "A YAML file of the same names may come first; flags go over it."
    if recipes is not None:
        hint += f"\n--recipe NAME stands for one of these files: {', '.join(_names(recipes))}."
        arguments = _take_recipe(arguments, recipes)
    if {"-h", "--help"} & set(arguments):
        classes = classes[:1]
    parser = Parser(
        list(classes),
        prog=prog,
        description=description,
        epilog=f"{hint}\n\nexamples:\n{examples}",
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


def _names(recipes: Path) -> list[str]:
    return sorted(path.stem for path in recipes.glob("*.yaml"))


def _take_recipe(arguments: list[str], recipes: Path) -> list[str]:
    """Put the file that `--recipe NAME` (or `--recipe=NAME`) stands for where a YAML file goes."""
    for number, word in enumerate(arguments):
        flag, equals, name = word.partition("=")
        if flag != "--recipe":
            continue
        rest = arguments[number + 1 :]
        name, *rest = [name, *rest] if equals else rest or [""]
        if name not in _names(recipes):
            raise UserError(f"there is no recipe {name!r}; give one of {', '.join(_names(recipes))}")
        if arguments and not arguments[0].startswith("-"):
            raise UserError(f"give a recipe or the settings {arguments[0]}, not both")
        return [str(recipes / f"{name}.yaml"), *arguments[:number], *rest]
    return arguments


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
