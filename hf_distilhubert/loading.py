"""Models and processors from a folder or the Hub; what fails is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_distilhubert.errors import UserError, one_line


def load_model(
    model_class: Any, source: str | Path, *, allow_missing: tuple[str, ...] = (), **kwargs: Any
) -> Any:
    """`model_class.from_pretrained(source)` in float32 (unless `dtype` is given) and evaluation mode.

    Args:
        model_class: a Transformers class, e.g. `HubertModel` or `AutoModelForCTC`.
        source: a folder, or the name of a repository on the Hub.
        allow_missing: beginnings of weights that may be made up where the file lacks them (a new head).
        **kwargs: passed on to `from_pretrained`.

    Raises:
        UserError: there is no such folder or repository, or it holds no such model, or only a part of it.
    """
    # Half-precision files stay half precision by default, which neither training nor a CPU wants.
    kwargs.setdefault("dtype", "float32")
    model, report = load(model_class, source, output_loading_info=True, **kwargs)
    lost = [*report["missing_keys"], *(str(key) for key, *_ in report["mismatched_keys"])]
    # Only SpecAugment uses the mask vector, and converted students never had one.
    lost = [
        key for key in lost if not key.endswith("masked_spec_embed") and not key.startswith(allow_missing)
    ]
    if lost:
        raise UserError(
            f"{source}: {len(lost)} weights are missing, for example {lost[0]}; give a whole model"
        )
    return model.eval()


def load(loader: Any, source: str | Path, **kwargs: Any) -> Any:
    """`loader.from_pretrained(source)` for anything that Transformers loads (processor, config, …).

    Raises:
        UserError: see `load_model`.
    """
    folder = Path(source)
    if not folder.is_dir() and (folder.is_absolute() or str(source).startswith((".", "~"))):
        raise UserError(f"there is no folder {source}; give a folder, or the name of a repository on the Hub")
    import hf_distilhubert.layer_sum  # noqa: F401 - Transformers then knows recognisers of this type, too

    try:
        with quiet_transformers():
            return loader.from_pretrained(str(source), **kwargs)
    # Damaged files and missing packages raise classes of many libraries, with Exception as their only base.
    except Exception as error:
        where = "the folder" if folder.is_dir() else "the Hub (and there is no such folder here)"
        reason = one_line(error, limit=300)
        raise UserError(f"cannot load {loader.__name__} {str(source)!r} from {where}: {reason}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the libraries' bars, load reports and retries: callers check for themselves what was loaded."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with quiet_hub():
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Silence the Hub client's line about each time that it tries again; its download bars stay."""
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
