"""Fixtures: where real data lies, and tiny models that stand in for the published ones."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The suite never speaks to the Hub, and small matrices are fastest on one thread.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

if TYPE_CHECKING:
    from hub_server import HubServer

ROOT = Path(__file__).resolve().parent.parent
# For parameters of tests, which are collected before any fixture; empty where the folder is missing.
GOLDEN = Path(os.environ.get("GOLDEN_DIR", ROOT.parent / "shared" / "golden")) / "conversion"
variants = pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.ckpt")), ids=lambda path: path.stem)


def golden_waveforms(expected: dict[str, Any]) -> list[Any]:
    pairs = zip(expected["input_values"], expected["lengths"].tolist(), strict=True)
    return [values[:length] for values, length in pairs]


ENVIRONMENT = dict(os.environ) | {
    "ACCELERATE_USE_CPU": "true",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}


class Server:
    """A script of this folder that answers lines of JSON; started when it is first asked."""

    def __init__(self, script: str, environment: dict[str, str] | None = None) -> None:
        self.script, self.environment = script, environment or ENVIRONMENT
        self._process: subprocess.Popen[str] | None = None

    def ask(self, **request: Any) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / self.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment,
            )
            atexit.register(self._process.stdin.close)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Let it end."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


COMMANDS, RUNS = Server("forked.py"), Server("stopped_runs.py")


def python(*arguments: object, cwd: Path = ROOT, server: Server = COMMANDS, **environment: str) -> str:
    """Run `python -m MODULE …` or `python -c CODE` in a process of its own; what it prints."""
    env = server.environment | environment
    answer = server.ask(arguments=[*map(str, arguments)], cwd=str(cwd), env=env)
    assert answer["status"] == 0, f"{arguments}: {answer['err'][-2_000:]}"
    return answer["out"]


def command(*arguments: object) -> str:
    """Run one of the project's modules as a user would; what it prints."""
    return python("-m", *arguments)


def data_folder(variable: str, default: str) -> Path:
    """The folder named by an environment variable; the test is skipped where there is none."""
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing; set {variable} to a folder of the same layout")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Files made with S3PRL's own classes."""
    return data_folder("GOLDEN_DIR", "golden")


@pytest.fixture(scope="session")
def speech_dir() -> Path:
    """Real speech with transcripts, and broken input."""
    return data_folder("SPEECH_DIR", "speech")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C counts, here and in processes that are started: shells turn it off in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards are written without drawing, which takes longest."""
    monkeypatch.setattr("model_card.figures.draw_figures", lambda facts, folder: {})


@pytest.fixture(scope="session")
def hub_and_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubServer, Server]]:
    """An empty Hub, and what runs commands in processes whose Hub it is (`python(…, server=…)`).

    They share its address and their cache, both of which are read when the first of them starts.
    """
    from hub_server import HubServer

    folder = tmp_path_factory.mktemp("hub")
    ours = {name: ENVIRONMENT[name] for name in ("ACCELERATE_USE_CPU", "PYTHONPATH")}
    with HubServer(folder / "hub") as hub:
        server = Server("forked.py", hub.environment(folder / "home") | ours)
        yield hub, server
        server.close()


TINY = {
    "conv_dim": (16,) * 7,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}


LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}  # the arrangement of HuBERT Large


def save_teacher(folder: Path, **changes: object) -> Path:
    """A random HuBERT of four layers and its feature extractor."""
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    HubertModel(HubertConfig(**{"num_hidden_layers": 4} | TINY | changes)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(folder)
    return folder


def save_recogniser(folder: Path, **changes: object) -> Path:
    """A random recogniser of numbers; its output is scaled up, so that its argmax is not always the blank."""
    import torch
    from transformers import (
        HubertConfig,
        HubertForCTC,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Processor,
    )

    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "|", *"efhnorstuvw"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), pad_token="<pad>", unk_token="<unk>", bos_token=None, eos_token=None
    )
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    shape = {"num_hidden_layers": 2, "vocab_size": len(vocabulary)} | TINY | changes
    model = HubertForCTC(HubertConfig(**shape))
    model.lm_head.weight.data.normal_(std=5.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_teacher(tmp_path: Path) -> Path:
    """A teacher arranged as HuBERT Base: group norm front end, post-norm layers."""
    return save_teacher(tmp_path / "teacher")


@pytest.fixture
def tiny_large_teacher(tmp_path: Path) -> Path:
    """A teacher arranged as HuBERT Large: layer norm front end, pre-norm layers."""
    return save_teacher(tmp_path / "large-teacher", **LARGE)


def save_spoken(folder: Path) -> Path:
    """A data set of short noises with transcripts: 12 clips to train on, 4 for validation, 4 to test."""
    import csv

    import numpy as np
    import soundfile

    generator = np.random.default_rng(0)
    words = ("one", "two", "three", "four")
    rows = [("file_name", "transcription", "speaker", "split")]
    for split, count in (("train", 12), ("validation", 4), ("test", 4)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            samples = generator.standard_normal(int(generator.integers(8_000, 16_000))) * 0.1
            soundfile.write(folder / split / f"{number}.flac", samples, 16_000)
            rows.append((f"{split}/{number}.flac", words[number % 4], f"speaker{number % 2}", split))
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """See `save_spoken`."""
    return save_spoken(tmp_path / "spoken")


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where the commands of README and docs run: in one folder, so that none runs twice; a `Workplace`."""
    from pages import prepare

    return prepare(tmp_path_factory.mktemp("pages"))


@pytest.fixture
def config(spoken: Path, tmp_path: Path) -> Callable[..., Any]:
    """Makes settings of a short distillation with dropout, for the folder `student`."""
    from stopped_runs import SETTINGS

    from hf_distilhubert import DistillConfig

    teacher = save_teacher(tmp_path / "teacher", hidden_dropout=0.1, attention_dropout=0.1)
    given = {"teacher": str(teacher), "data": str(spoken), "output_dir": str(tmp_path / "student")}
    return lambda **changes: DistillConfig(**given | SETTINGS | changes)


NUMBERS = ["one two", "seven", "Three oh", "two two", "eleven", "one", "seven oh one"]


@pytest.fixture(scope="module")
def layer_norm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random recogniser arranged as HuBERT Large."""
    return save_recogniser(tmp_path_factory.mktemp("model"), **LARGE)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of very uneven lengths; the last clip has no speaker, and the first one no accent."""
    import numpy as np
    import soundfile

    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    lines = ["file_name,transcription,speaker,split,accent"]
    for index, text in enumerate(NUMBERS):
        samples = 2_000 + 4_700 * index
        soundfile.write(folder / f"{index}.wav", 0.1 * generator.standard_normal(samples), 16_000)
        speaker = f"speaker{index % 2}" if index + 1 < len(NUMBERS) else ""
        accent = ("north", "south")[index % 2] if index else ""
        lines.append(f'{index}.wav,"{text}.",{speaker},test,{accent}')
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A random recogniser, the folder of its export to ONNX, and the report: made once, it takes seconds."""
    from hf_distilhubert.export import export

    folder = tmp_path_factory.mktemp("exported")
    model = save_recogniser(folder / "recogniser")
    return model, folder / "onnx", export(model, folder / "onnx")
