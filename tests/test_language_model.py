"""N-gram models: their probabilities are probabilities, as the literature has them, and survive a file."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
from conftest import save_recogniser
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.language_model import build, estimate
from hf_distilhubert.errors import UserError
from hf_distilhubert.language_model import BEGIN, END, UNKNOWN, read_language_model, write_language_model

sentences = st.lists(st.lists(st.sampled_from("abcd"), max_size=8), min_size=1, max_size=12)
orders = st.integers(1, 4)


@settings(max_examples=100, deadline=None)
@given(sentences, orders, st.lists(st.sampled_from([*"abcde", UNKNOWN]), max_size=5))
def test_probabilities_after_any_context_sum_to_one(text, order, context):
    model = estimate(text, order)
    words = [*model.words, END, UNKNOWN]
    for history in (tuple(context), (BEGIN, *context)):
        assert math.fsum(math.exp(model.score(history, word)) for word in words) == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(sentences.filter(any), orders, st.booleans())
def test_a_file_keeps_every_score(tmp_path_factory, text, order, spelled):
    path = tmp_path_factory.mktemp("lm") / "model.arpa"
    model = estimate(text, order, of_characters=spelled)
    write_language_model(model, path)
    read = read_language_model(path)
    assert (read.order, read.words) == (max(map(len, model.grams)), model.words)
    assert read.of_characters == model.of_characters == spelled
    for gram, (probability, back_off) in model.grams.items():
        assert read.grams[gram] == pytest.approx((probability, back_off), rel=1e-6)


def test_kneser_ney_counts_in_how_many_contexts_a_word_was_seen():
    # Francisco is frequent, but only ever after San: alone it is less likely than a word of many contexts.
    text = [["san", "francisco"]] * 6 + [["in", "glass"], ["a", "glass"], ["of", "glass"]]
    model = estimate(text, 2)
    assert model.score((), "glass") > model.score((), "francisco")
    assert model.score(("san",), "francisco") > math.log(0.5)


def test_scores_are_those_of_chen_and_goodman_by_hand():
    # Bigrams, each once: <s> a, a b, b </s>. So every discount is the one for small texts, 0.5.
    model = estimate([["a", "b"]], 2)
    unigram = (1 - 0.5) / 3 + 0.5 / 4  # seen after one word each; a, b, </s> and the unknown share the rest
    assert model.score((), "a") == pytest.approx(math.log(unigram))
    assert model.score((), "never heard") == pytest.approx(math.log(0.5 / 4))
    assert model.score(("a",), "b") == pytest.approx(math.log(0.5 + 0.5 * unigram))
    assert model.score(("a",), "a") == pytest.approx(math.log(0.5 * unigram))
    assert model.perplexity([["a", "b"]]) == pytest.approx(1 / (0.5 + 0.5 * unigram))


# As KenLM's lmplz writes it: tabs, no back-off for the longest, comments of its own.
ARPA = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.0\t<unk>\t0
0\t<s>\t-0.5
-0.7\t</s>\t0
-0.3\ta\t-0.25

\\2-grams:
-0.1\t<s> a
-0.2\ta </s>

\\end\\
"""


def test_a_file_of_kenlm_is_read_also_gzipped(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text(ARPA)
    with gzip.open(tmp_path / "lm.arpa.gz", "wt") as file:
        file.write(ARPA)
    for name in ("lm.arpa", "lm.arpa.gz"):
        model = read_language_model(tmp_path / name)
        assert (model.order, model.words, model.of_characters) == (2, {"a"}, False)
        assert model.score((BEGIN,), "a") == pytest.approx(-0.1 * math.log(10))
        assert model.score((BEGIN, "a"), "a") == pytest.approx((-0.25 - 0.3) * math.log(10))
        assert model.score((BEGIN,), "b") == pytest.approx((-0.5 - 1.0) * math.log(10))


@pytest.mark.parametrize(
    "content",
    [
        *(None, b"", b"hello\n", b"\\1-grams:\nnot numbers\n", b"\xff\xfe", b"\x1f\x8b"),
        *(
            b"\\1-grams:\n-1 </s>\n",
            b"\\1-grams:\n-nan a\n-1 </s>\n",
            gzip.compress(b"x" * 99)[:12] + bytes(20),
        ),
    ],
)
def test_what_is_no_language_model_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    for name in ("lm.arpa", "lm.arpa.gz"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"lm\.arpa"):
            read_language_model(tmp_path / name)


def test_a_text_or_transcripts_become_a_model_in_the_recognisers_normal_form(spoken, tmp_path: Path) -> None:
    recogniser = str(save_recogniser(tmp_path / "recogniser"))
    (tmp_path / "book.txt").write_text("One, two!\n\nTHREE  four one\n", encoding="utf-8-sig")
    words = build(str(tmp_path / "book.txt"), tmp_path / "words.arpa", model=recogniser, order=2)
    assert read_language_model(words.path).words == {"one", "two", "three", "four"}
    assert (words.sentences, words.words) == (2, 5)
    spelled = build(str(spoken), tmp_path / "letters.arpa", model=recogniser, order=4, characters=True)
    model = read_language_model(spelled.path)
    assert model.of_characters
    assert model.words == set("onetwothreefour")
    with pytest.raises(UserError, match="exists already"):
        build(str(spoken), words.path, model=recogniser)
    (tmp_path / "empty.txt").write_text("!!!\n")
    with pytest.raises(UserError, match="there is no text"):
        build(str(tmp_path / "empty.txt"), tmp_path / "none.arpa", model=recogniser)
    with pytest.raises(UserError, match="a sentence a line"):
        build(str(tmp_path / "absent.txt"), tmp_path / "none.arpa", model=recogniser)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "none"))]
