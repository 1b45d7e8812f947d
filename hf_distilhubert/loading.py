"""Models and processors from a folder or the Hub; what fails is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_distilhubert.errors import UserError, one_line


def load_model(model_class: Any, source: str | Path, **kwargs: Any) -> Any:
    """`model_class.from_pretrained(source)` in float32 (unless `dtype` is given) and evaluation mode.

    Args:
        model_class: a Transformers class, e.g. `HubertModel` or `AutoModelForCTC`.
        source: a folder, or the name of a repository on the Hub.

    Raises:
        UserError: there is no such folder or repository, or it holds no such model.
    """
    # Half-precision files stay half precision by default, which neither training nor a CPU wants.
    kwargs.setdefault("dtype", "float32")
    return load(model_class, source, **kwargs).eval()


def load(loader: Any, source: str | Path, **kwargs: Any) -> Any:
    """`loader.from_pretrained(source)` for anything that Transformers loads (processor, config, …).

    Raises:
        UserError: see `load_model`.
    """
    folder = Path(source)
    if not folder.is_dir() and (folder.is_absolute() or str(source).startswith((".", "~"))):
        raise UserError(f"there is no folder {source}; give a folder, or the name of a repository on the Hub")
    try:
        with quiet_transformers():
            return loader.from_pretrained(str(source), **kwargs)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        where = "the folder" if folder.is_dir() else "the Hub (and there is no such folder here)"
        reason = one_line(error, limit=300)
        raise UserError(f"cannot load {loader.__name__} {str(source)!r} from {where}: {reason}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the libraries' bars, load reports and retries: callers check for themselves what was loaded."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_level = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bar:
            logging.enable_progress_bar()
