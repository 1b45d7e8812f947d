"""What the card reads of each file, and of what kind it has to be; whatever else a file holds is its own."""

from __future__ import annotations

from typing import Any

# A type, `[form]` for a list of such, `{key: form}` for an object, `{str: form}` for one of any keys; under
# `...` stand the keys that an object of no use without them has to have.
Form = Any

KINDS = {str: "text", float: "a number", bool: "true or false", dict: "an object", list: "a list"}

LOSSES = {"loss": float, "l1": {str: float}, "cosine": {str: float}}
INTERVALS = {"wer_interval": [float], "cer_interval": [float], "resampled": str}
SIZE = {"num_parameters": float}
RATES = {"wer": float, "cer": float}

STAGE = {
    "stage": str,
    "source": str,
    "data": str,
    **dict.fromkeys(("steps", "step", "seed", "seconds", "skipped"), float),
    **dict.fromkeys(("batch_size", "batch_seconds", "learning_rate", "teacher_parameters"), float),
    **dict.fromkeys(("audio_hours", "train_clips", "train_hours", "train_speakers"), float),
    "earlier_steps": float,
    **dict.fromkeys(("sha256", "dtype", "teacher", "text", "command", "file"), str),
    **SIZE,
    "vocabulary": [str],
    "target_layers": [float],
    "keeps_heads": bool,
    "synthetic": bool,
    "final": LOSSES,
    "held_out": {"before": LOSSES, "after": LOSSES},
    "eval": RATES,
    "versions": {str: str},
    "hardware": {"processor": str, "cores": float, "device": str, "device_name": str, "processes": float},
}
CONFIG = {
    "architectures": [str],
    **dict.fromkeys(("model_type", "feat_extract_norm", "dtype"), str),
    **dict.fromkeys(("num_hidden_layers", "hidden_size"), float),
    "conv_stride": [float],
    "distillation": {"target_layers": [float], "objective": str},
    "do_stable_layer_norm": bool,
}
EXTRACTOR: dict[str, Form] = {"sampling_rate": float, "do_normalize": bool}
PROCESSOR = {"feature_extractor": EXTRACTOR}
GROUP = {"utterances": float, "words": float, **RATES, **INTERVALS}
CONFUSION: dict[Any, Form] = {"reference": str, "hypothesis": str, "count": float, "said": float}
CONFUSION[...] = ("reference", "hypothesis", "count")
CONFUSIONS = {"substitutions": [CONFUSION], "deletions": [CONFUSION], "insertions": [CONFUSION]}
DIFFERENCE = {
    **dict.fromkeys(("model", "resampled"), str),
    **dict.fromkeys(("utterances", "words", "wer", "other_wer", "difference", "p_value"), float),
    "interval": [float],
}
SCORE = {
    **dict.fromkeys(("data", "split", "model", "text", "decoding", "device"), str),
    **dict.fromkeys(("utterances", "words", "speakers", "skipped", "threads"), float),
    **dict.fromkeys(("substitutions", "deletions", "insertions"), float),
    **dict.fromkeys(("seconds", "real_time_factor"), float),
    **SIZE,
    **RATES,
    **INTERVALS,
    "synthetic": bool,
    "groups": {str: {str: GROUP}},
    "character_confusions": CONFUSIONS,
    "against": DIFFERENCE,
}
ROW: dict[str, Form] = {"model": str, **SIZE, **RATES, "real_time_factor": float}
COMPARISON: dict[str, Form] = {"data": str, "split": str, "note": str, "synthetic": bool, "rows": [ROW]}
EXAMPLES = [{"clip": str, "reference": str, "hypothesis": str}]
LOG: dict[str, Form] = {"step": float, "loss": float, "eval_wer": float, "eval_cer": float}
LOG |= {"eval_loss": float, "held_out": LOSSES}
LOG |= {"l1": {str: float}, "cosine": {str: float}}
TEXT = {"text": str, "case": str, "name": str}
VOCABULARY = {str: float}
CONVERSION = {
    **STAGE,
    "left_out": [str],
    "verified_on": str,
    "parity": [{"name": str, "max_difference": float, "relative_difference": float}],
}
TIMING = {"wall": float, "cpu": float, "turns": float}
WAY = {
    "name": str,
    "same_model": bool,
    **dict.fromkeys(("parameters", "multiply_adds_per_second", "file_bytes", "extra_memory"), float),
    "times": {str: TIMING},
    "audio": {str: float},
    "deviations": {str: float},
}
BENCHMARK = {
    **dict.fromkeys(("model", "speech", "clock"), str),
    "machine": {"processor": str, "cores": float, "threads": float, "torch": str},
    "rounds": float,
    "memory_seconds": float,
    "ways": [WAY],
    "left_out": {str: str},
    "ratios": {str: {str: {str: {"wall": float, "cpu": float, "believed": bool}}}},
}
ERROR_RATES = dict.fromkeys(("wer", "cer"), float)
EXPORT = {
    **dict.fromkeys(("model", "format", "file", "command"), str),
    "bytes": float,
    "deviation": {"alone": {str: float}, "batch": float},
    "metadata": {str: str},
    "versions": {str: str},
    "lineage": [STAGE],
    "cost": {
        **dict.fromkeys(("data", "split"), str),
        "clips": float,
        "float32": ERROR_RATES,
        "int8": ERROR_RATES,
        "different": float,
        "points": ERROR_RATES,
    },
}


def complaint(value: object, form: Form, place: str = "") -> str | None:
    """What is wrong with a value, in words; None where it has the form.

    Args:
        value: of a file, without anything that is None.
        form: see `Form`.
        place: where in the file it stands.
    """
    kind = type(form) if isinstance(form, dict | list) else form
    number = kind is float and isinstance(value, int) and not isinstance(value, bool)
    if not (number or isinstance(value, kind)):
        return f"{place or 'what it holds'} is not {KINDS[kind]}"
    inner: list[tuple[object, Form, object]] = []
    if isinstance(value, list):
        inner = [(item, form[0], number) for number, item in enumerate(value)]
    elif isinstance(value, dict):
        for key in form.get(..., ()):
            if key not in value:
                return f"{place or 'what it holds'} has no {key}"
        inner = [(item, form.get(key, form.get(str)), key) for key, item in value.items()]
    found = (
        complaint(item, one, f"{place}.{name}" if place else str(name))
        for item, one, name in inner
        if one is not None
    )
    return next(filter(None, found), None)
