"""What a person wrote into a card outlives every rendering; what is ours follows the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cards import FINETUNE, SCORE, make_bare, make_recogniser, write
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distilhubert.errors import UserError
from model_card.metadata import as_yaml, combined, note, parse
from model_card.render import render
from model_card.sections import MARK, SECTION, merged, read_card

pytestmark = pytest.mark.usefixtures("no_figures")

NAMES = ("title", "summary", "usage", "results", "limits", "note")
# A person's text; a mark of ours in it would be a section.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda text: MARK not in text)
WRITTEN = st.dictionaries(st.sampled_from(NAMES), TEXTS.filter(str.strip), min_size=1)


@pytest.fixture
def recogniser(tmp_path: Path) -> Path:
    return make_recogniser(tmp_path / "recogniser")


def in_order(sections: dict[str, str]) -> dict[str, str]:
    return {name: sections[name] for name in NAMES if name in sections}


def gaps(body: str) -> list[str]:
    """What stands between our sections."""
    return SECTION.sub("\0", body).split("\0")


@settings(deadline=None)
@given(WRITTEN, st.lists(WRITTEN, min_size=1, max_size=4), st.data())
def test_text_between_sections_survives_any_renderings(
    first: dict[str, str], later: list[dict[str, str]], data: st.DataObject
) -> None:
    pieces = gaps(merged("", in_order(first)))
    marks = SECTION.findall(merged("", in_order(first)))
    hands = [data.draw(TEXTS.map(lambda text: text.replace("\0", ""))) for _ in pieces]
    body = "".join(
        f"{gap}{hand}" + (merged("", {marks[n][0]: marks[n][1]}).strip("\n") if n < len(marks) else "")
        for n, (gap, hand) in enumerate(zip(pieces, hands, strict=True))
    )
    for sections in later:
        body = merged(body, in_order(sections))
        assert merged(body, in_order(sections)) == body
        place = 0
        for hand in hands:
            found = body.find(hand.strip("\n"), place)
            assert found >= 0
            place = found + len(hand.strip("\n"))


@settings(deadline=None)
@given(WRITTEN, st.lists(TEXTS, min_size=len(NAMES) + 1, max_size=len(NAMES) + 1))
def test_with_the_same_sections_every_byte_between_them_stays(
    sections: dict[str, str], hands: list[str]
) -> None:
    marked = merged("", in_order(sections)).strip("\n").split("\n\n<!--")
    blocks = [block if n == 0 else f"<!--{block}" for n, block in enumerate(marked)]
    body = "".join(f"{hand}{block}" for hand, block in zip(hands, [*blocks, ""], strict=False))
    again = merged(body, in_order(sections))
    if not gaps(body)[0].lstrip().startswith("# "):
        assert gaps(again) == gaps(body)
    assert merged(again, in_order(sections)) == again


def test_a_new_section_comes_after_the_one_before_it_and_an_old_one_goes() -> None:
    body = merged("", {"title": "# T", "usage": "U"}) + "\nMy words.\n"
    body = merged(body, {"title": "# T", "summary": "S", "usage": "U2", "results": "R"})
    assert [name for name, _ in SECTION.findall(body)] == ["title", "summary", "usage", "results"]
    assert body.endswith("<!-- hf-distilhubert: end of results -->\n\nMy words.\n")
    assert merged(body, {"title": "# T", "usage": "U2"}).count("\n\n") == 2
    assert "U2" in body


def test_paragraphs_stay_apart_when_the_section_between_them_goes() -> None:
    body = merged("", {"title": "# T", "usage": "U"}).replace(
        "<!-- hf-distilhubert: usage", "Mine.\n<!-- hf-distilhubert: usage"
    )
    assert merged(body + "\nYours.\n", {"title": "# T"}).endswith("Mine.\n\n\nYours.\n")


def test_a_mark_alone_is_a_persons_text() -> None:
    stray = "<!-- hf-distilhubert: usage -->\nThis is how I use it.\n\n"
    body = stray + merged("", {"usage": "U"}).lstrip("\n")
    assert merged(body, {"usage": "U2"}) == body.replace("\nU\n", "\nU2\n")


def test_a_text_from_a_file_cannot_end_its_section() -> None:
    body = merged("", {"title": f"{MARK} end of title --> {MARK} usage -->", "usage": "U"})
    assert merged(body, {"title": "new", "usage": "U"}).count(MARK) == 4


@pytest.mark.parametrize("head", ["", "---\nlicense: mit\nmine: 1\n---\n"], ids=["no head", "head"])
def test_a_card_of_a_persons_own_stays_before_ours(head: str, recogniser: Path) -> None:
    own = "\r\n# My model\r\n\r\nIt is **good**.\t \r\n"
    (recogniser / "README.md").write_bytes(f"{head}{own}".encode())
    render(recogniser)
    text = (recogniser / "README.md").read_bytes().decode()
    assert f"---\n{own}\n<!-- hf-distilhubert: summary -->" in text
    assert "end of title" not in text  # it has a title already
    assert ("license: mit\n" in text) is bool(head)
    render(recogniser)
    assert (recogniser / "README.md").read_bytes().decode() == text


TRAINERS = """---
license: mit
---

<!-- This model card has been generated automatically according to the information the Trainer had
access to. You should probably proofread and complete it, then remove this comment. -->

# out

## Model description

More information needed

## Intended uses & limitations

More information needed

## Training and evaluation data

More information needed

## Training procedure

### Framework versions

- Transformers 5.23.0
"""
FIRST = """# Converted from S3PRL

This is a first card; `python -m model_card.render FOLDER` writes a full one in its place.

## How to load it

```python
## no heading
```
"""


@pytest.mark.parametrize("card", [TRAINERS, FIRST], ids=["Trainer's", "first"])
def test_cards_that_programs_wrote_are_replaced(card: str, recogniser: Path) -> None:
    plain = render(recogniser).text
    (recogniser / "README.md").write_text(card)
    assert render(recogniser).text == plain


@pytest.mark.parametrize(
    "card",
    [
        TRAINERS.replace("More information needed", "It hears my kitchen.", 1),
        f"{TRAINERS}\n## My kitchen\n\nIt hears it.\n",
        f"{FIRST}\n## My kitchen\n\nIt hears it.\n",
    ],
    ids=["filled in", "a section more", "first and a section more"],
)
def test_a_programs_card_that_a_person_went_on_with_stays(card: str, recogniser: Path) -> None:
    (recogniser / "README.md").write_text(card)
    text = render(recogniser).text
    assert read_card(recogniser / "README.md")[1].startswith(card.split("---\n")[-1])
    assert text.count("kitchen") == card.count("kitchen")


def test_a_head_behind_a_byte_order_mark_is_read(recogniser: Path) -> None:
    (recogniser / "README.md").write_bytes(b"\xef\xbb\xbf---\nlicense: mit\n---\n\n# Mine\n")
    text = render(recogniser).text
    assert (text.count("license: mit"), text.count("\ufeff")) == (1, 0)
    assert text.count("\n---\n") == 1


def test_metadata_of_ours_follows_the_folder_and_a_persons_stays(recogniser: Path) -> None:
    card = render(recogniser, license="apache-2.0", data_license="cc-by-4.0")
    text = card.text.replace("library_name: transformers\n", "").replace("- speech\n", "- speech\n- dutch\n")
    card.path.write_text(text.replace("---\n", "---\ninference: false\nlanguage: no\n", 1))
    write(recogniser, "scores/test/results.json", SCORE | {"wer": 0.5})
    write(recogniser, "results.json", FINETUNE | {"data": "hub:someone/other-speech"})
    for _ in range(3):
        card = render(recogniser)
    head, body = read_card(card.path)
    found = yaml.safe_load(head)
    assert "library_name" not in found  # taken out by a person
    assert found["tags"] == ["speech", "dutch", "hubert", "distilhubert", "ctc"]
    assert (found["license"], found["data_license"], found["language"]) == ("apache-2.0", "cc-by-4.0", "no")
    assert found["inference"] is False
    assert found["datasets"] == ["someone/clean-speech", "someone/other-speech"]
    assert found["model-index"][0]["results"][0]["metrics"][0]["value"] == 50.0
    assert "- Weights: `apache-2.0`." in body
    assert "- Speech it was trained on: `cc-by-4.0` (`someone/clean-speech`, `someone/other-speech`)." in body
    assert yaml.safe_load(read_card(render(recogniser, license="mit").path)[0])["license"] == "mit"


VALUES = st.one_of(st.text(max_size=5), st.integers(), st.lists(st.text(max_size=5), max_size=3))
METADATA = st.dictionaries(st.sampled_from("abcd"), VALUES)


@settings(deadline=None)
@given(METADATA, METADATA, METADATA, st.sets(st.sampled_from("abcd")))
def test_of_the_metadata_each_keeps_what_is_theirs(
    own: dict[str, Any], changed: dict[str, Any], fresh: dict[str, Any], deleted: set[str]
) -> None:
    path = Path("README.md")
    card = combined({}, "", own, {})
    assert card == own
    person = {key: value for key, value in (card | changed).items() if key not in deleted}
    theirs = {key: value for key, value in person.items() if own.get(key) != value}
    written, gone = note(card, own), own.keys() & deleted
    found = parse(as_yaml(person), path)
    for _ in range(2):
        found, written = (
            (now := combined(found, written, fresh, {})),
            note(now, fresh),
        )
        found = parse(as_yaml(found), path)
        expected = {key: value for key, value in fresh.items() if key not in gone} | theirs
        assert found == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"---\na: [1\n---\n", "is not YAML"),
        (b"---\n- a\n---\n", "holds no keys"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
    ids=["broken YAML", "a list", "other encoding"],
)
def test_a_card_that_cannot_be_read_is_left_alone(content: bytes, message: str, tmp_path: Path) -> None:
    folder = make_bare(tmp_path / "bare")
    (folder / "README.md").write_bytes(content)
    with pytest.raises(UserError, match=message):
        render(folder)
    assert (folder / "README.md").read_bytes() == content
