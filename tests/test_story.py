"""The page that tells the whole story runs as it stands there, only shorter, on a Hub of our own."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT, python, save_teacher
from pages import STARTS, blocks, lines, module_of

BLOCKS = blocks(ROOT / "docs" / "story.md")
CLIPS = {"train.100": 8, "train.360": 4, "validation": 4, "test": 4}
# At full size the page takes days; and the golden student's teacher has six layers.
SHORTER = {
    "hf_distilhubert.distill": ("--max_steps", "2", "--batch_size", "4", "--target_layers", "2", "4", "6"),
    "finetune.train": (
        *("--max_steps", "2", "--per_device_train_batch_size", "4", "--dataloader_num_workers", "0"),
        *("--eval_steps", "2", "--freeze_encoder_steps", "1"),
    ),
}
CARD = "---\nconfigs:\n- config_name: clean\n  data_files:\n{files}---\n"
FILES = "  - split: {split}\n    path: clean/{split}-*\n"


def commands() -> list[list[str]]:
    """Every command on the page, as arguments of Python."""
    found = [words for block in BLOCKS if block.language == "bash" for words in lines(block.code)]
    return [[*STARTS[words[0]], *words[1:], *SHORTER.get(module_of(words), ())] for words in found]


def write_data_set(folder: Path, source: Path) -> None:
    """The shortest of some real clips as the Hub has LibriSpeech: sound and text in Parquet files."""
    (folder / "clean").mkdir(parents=True)
    files = "".join(FILES.format(split=split) for split in CLIPS)
    (folder / "README.md").write_text(CARD.format(files=files))
    with (source / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = iter(sorted(csv.DictReader(file), key=lambda row: float(row["duration_s"])))
    for split, count in CLIPS.items():
        table = [
            {
                "audio": {"bytes": (source / row["file_name"]).read_bytes(), "path": row["file_name"]},
                "text": row["transcription"],
                "speaker_id": row["speaker"],
            }
            for _, row in zip(range(count), rows, strict=False)
        ]
        path = folder / "clean" / f"{split}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)


@pytest.mark.slow
def test_the_story_leads_from_a_checkpoint_to_a_name_on_the_hub(
    hub_and_processes, golden_dir, speech_dir, tmp_path
):
    (hub, server), here = hub_and_processes, tmp_path
    root = hub.root
    (root / "leo19941227" / "distilhubert").mkdir(parents=True)
    (here / "runs").mkdir()
    checkpoint = root / "leo19941227" / "distilhubert" / "distilhubert_ls960_4-8-12.ckpt"
    shutil.copyfile(golden_dir / "conversion" / "paper.ckpt", checkpoint)
    save_teacher(root / "facebook" / "hubert-base-ls960", num_hidden_layers=6, hidden_size=48)
    write_data_set(root / "datasets" / "openslr" / "librispeech_asr", speech_dir / "librispeech_mini")
    shutil.copyfile(min((speech_dir / "librispeech_mini" / "test").glob("*.flac")), here / "speech.wav")

    pushed = root / "your-name" / "small-recogniser"
    for arguments in commands():
        assert not pushed.exists()
        python(*arguments, cwd=here, server=server)
    [code] = [block.code for block in BLOCKS if block.language == "python"]
    text = python("-c", code, cwd=here, server=server)
    transcribe = ("-m", "hf_distilhubert", "transcribe", "speech.wav", "--model", "runs/recogniser")
    assert python(*transcribe, cwd=here, server=server) == text != "\n"
    # The card knows all of it.
    card = (pushed / "README.md").read_text(encoding="utf-8")
    for origin in ("leo19941227/distilhubert", "facebook/hubert-base-ls960", "openslr/librispeech_asr"):
        assert origin in card
    assert str(tmp_path) not in "".join(file.read_text(errors="replace") for file in pushed.rglob("*.*"))
