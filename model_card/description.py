"""What a model is, hears, writes, and what its hidden states mean, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from model_card.facts import Facts
from model_card.history import FORMATS
from model_card.limits import characters
from model_card.wording import NOT_MEASURED, cell, code, count, counted, given, listing, millions, series

MOST_CHARACTERS = 120
TEXTS = {
    "basic": "letters, digits, combining marks and apostrophes of any language",
    "english": "the letters a to z, digits and the apostrophe, accents taken off and signs written out",
    "none": "texts as they stand",
}
CASES = {"lower": "in lower case", "upper": "in upper case", "keep": "in the case they have"}


def what_it_is(facts: Facts) -> str:
    """One paragraph: kind, size and shape."""
    config = facts.config
    kind = "A speech recogniser" if facts.recognises else "A speech encoder, from sound to features"
    if facts.untrained:
        kind = "A speech recogniser that is still to be trained"
    layers = given(config, "num_hidden_layers", lambda n: counted(n, "Transformer layer"))
    width = given(config, "hidden_size", lambda n: f" of width {n}") if layers else ""
    front = given(
        config, "conv_stride", lambda strides: counted(len(strides), "convolution") + " before them"
    )
    step = frame_milliseconds(facts)
    frame = f"one frame every {step:g} ms" if step else ""
    size = facts.num_parameters
    parameters = f"{millions(size)} parameters ({size:,})" if size is not None else f"size {NOT_MEASURED}"
    shape = listing(parameters, layers + width, front, frame)
    file = FORMATS.get(str(facts.export.get("format")), "a file")
    exported = f" It is exported as {file}." if facts.export else ""
    return f"{kind} ({code(facts.architecture)}): {shape}.{exported}"


def frame_milliseconds(facts: Facts) -> float | None:
    """Time from one frame to the next."""
    rate, strides = facts.preprocessor.get("sampling_rate"), facts.config.get("conv_stride")
    return 1000 * math.prod(map(float, strides)) / rate if rate and strides else None


def hidden_states(facts: Facts) -> Iterator[tuple[str, str]]:
    """Rows of a table: an expression, and what it is."""
    layers = facts.config.get("num_hidden_layers")
    if not layers or facts.export:
        return
    normalised = facts.config.get("do_stable_layer_norm", False)
    first = "the projected features with their positions added" + ("" if normalised else ", normalised")
    yield "`hidden_states[0]`", f"input of layer 1: {first}"
    numbers = "`hidden_states[i]`" if layers > 1 else "`hidden_states[1]`"
    which = f"layer i, for i from 1 to {layers}" if layers > 1 else "layer 1"
    yield numbers, f"output of {which}"
    if not facts.recognises:
        last = f"`hidden_states[{layers}]`"
        yield "`last_hidden_state`", f"{last}, normalised" if normalised else f"the same as {last}"
    for place, head in enumerate(heads(facts)):
        yield f"`predictions[:, {place}]`", head


def heads(facts: Facts) -> Iterator[str]:
    """What each prediction head gives, where the folder has heads."""
    if facts.architecture != "HubertForLayerDistillation":
        return
    settings = facts.config.get("distillation", {})
    distilled = facts.stage("distill")
    name = distilled.get("teacher", distilled.get("source"))
    teacher = f"the teacher, {code(name)}" if name else "the teacher"
    layers = settings.get("target_layers", [])  # a stage always says them
    if settings.get("objective") == "mean-of-layers":
        yield f"the mean of the layers {series(layers)} of {teacher}, as the model predicts it"
    elif settings.get("objective") == "last-layer":
        yield f"the last layer of {teacher}, as the model predicts it"
    else:
        yield from (f"layer {layer} of {teacher}, as the model predicts it" for layer in layers)


def input_line(facts: Facts) -> str:
    """What the model hears."""
    rate = given(facts.preprocessor, "sampling_rate", lambda rate: f" at {count(rate)} Hz")
    normal = facts.preprocessor.get("do_normalize")
    kinds = {
        True: "each clip is brought to zero mean and unit variance (`do_normalize` is true)",
        False: "as it is: no normalisation of loudness (`do_normalize` is false)",
        None: "",
    }
    return listing(f"mono{rate}", kinds[normal])


def text_line(facts: Facts) -> str:
    """The normal form of the texts that it was trained on; empty where none was written down."""
    if not facts.recognises or facts.untrained:
        return ""
    name, case = facts.text.get("text"), facts.text.get("case")
    if name == "custom":
        return f"a function of its maker's own, {code(facts.text.get('name', 'its name is lost'))}"
    if name in TEXTS and case in CASES:
        return f"{code(name)}: {TEXTS[name]}, {CASES[case]}"
    return given(facts.tuned, "text", code)


def vocabulary_line(facts: Facts) -> str:
    """The characters that it writes; empty where its tokens are not known."""
    symbols = characters(facts) if facts.recognises else []
    if not symbols:
        return ""
    shown = " ".join(cell(symbol) for symbol in symbols[:MOST_CHARACTERS])
    rest = len(symbols) - MOST_CHARACTERS
    others = [code(token) for token in facts.vocabulary if len(token) > 1 and not token.startswith("<")]
    other = "`<unk>` for any other" if "<unk>" in facts.vocabulary else "nothing else"
    tokens = f"{count(len(facts.vocabulary))} tokens: spaces and these {count(len(symbols))} characters"
    return (
        f"{tokens}, {other}: {shown}{f' and {count(rest)} more' if rest > 0 else ''}"
        f"{f'; and {series(others[:MOST_CHARACTERS])}' if others else ''}."
    )
