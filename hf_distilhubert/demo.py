"""A page on which an exported recogniser transcribes in the browser: `distilhubert demo`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError
from hf_distilhubert.export import FILES

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

T = TypeVar("T")
PAGE = Path(__file__).with_name("web")
# tests/browser/ has the same version, and what it needs, with checksums.
PACKAGE, VERSION = "@huggingface/transformers", "4.3.1"
CDN = "https://cdn.jsdelivr.net"
LIBRARY = "dist/transformers.min.js"
RUNTIME = "onnxruntime-web/dist/"
INSTALL = f"npm install {PACKAGE}@{VERSION}"
PRECISIONS = {"onnx": "float32", "onnx-int8": "linear layers in 8 bits"}
# What transformers.js reads beside the graph.
NEEDED = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
# Kinds of recognisers that can be exported, but that transformers.js does not know.
UNKNOWN = ("data2vec-audio",)
EXAMPLES = f"""\
  distilhubert export --model runs/recogniser --output runs/exported
  distilhubert demo --model runs/exported
without a network, once transformers.js is on this machine:
  {INSTALL}
  distilhubert demo --model runs/exported --transformers_js node_modules"""


def open_demo(
    model: str | Path, *, port: int = 8000, transformers_js: str | Path | None = None
) -> ThreadingHTTPServer:
    """Make the page ready; `serve_forever` of what is returned then answers, to this machine alone.

    Args:
        model: folder that `distilhubert export` wrote, of a recogniser, in ONNX.
        port: of the address; 0 takes one that is free.
        transformers_js: an npm folder (`node_modules`) with transformers.js; None has the browser fetch it.

    Raises:
        UserError: the model or the package is another, or the port is taken.
    """
    from hf_distilhubert.web_server import Site, open_server

    found = describe(Path(model))
    files = _needed_files(Path(model), found.file)
    settings: dict[str, Any] = asdict(found)
    folders: dict[str, Path] = {}
    if transformers_js is None:
        settings |= {"library": f"{CDN}/npm/{PACKAGE}@{VERSION}/{LIBRARY}", "runtime": None}
    else:
        folders["npm"] = _package(Path(transformers_js))
        settings |= {"library": f"/npm/{PACKAGE}/{LIBRARY}", "runtime": f"/npm/{RUNTIME}"}
    texts = {"settings.json": json.dumps(settings).encode()}
    return open_server(Site(PAGE, folders, files, texts, _policy(offline=transformers_js is not None)), port)


@dataclass(frozen=True)
class Exported:
    """What the page has to know of a model.

    Attributes:
        name: of what was exported.
        file: its graph, within the folder.
        precision: of its file, in words.
        bytes: of its file.
        stride: samples from one frame to the next.
    """

    name: str
    file: str
    precision: str
    bytes: int
    stride: int


def describe(model: Path) -> Exported:
    """Read what an export says of itself.

    Raises:
        UserError: it is none that the page can run.
    """
    said, kind = (_read(model, file) for file in ("export.json", "config.json"))
    try:
        file_format, metadata = said["format"], said["metadata"]
        found = Exported(
            _typed(said["model"], str),
            _typed(said["file"], str),
            PRECISIONS.get(file_format, ""),
            _typed(said["bytes"], int),
            int(_typed(metadata["frame_stride"], str)),
        )
        problem = _problem(file_format, metadata, kind["model_type"], found)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{model} is no whole export ({error!r}); export the model again") from error
    if problem:
        raise UserError(f"{model} {problem}")
    return found


def _read(model: Path, name: str) -> Any:
    if not model.is_dir():
        raise UserError(f"there is no folder {model}; give one that distilhubert export wrote")
    try:
        return json.loads((model / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{model} is not exported; distilhubert export --model {model} --output NEW_FOLDER, and give that"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{model / name} cannot be read ({error}); export the model again") from error


def _typed(value: Any, kind: type[T]) -> T:
    # True would be an int.
    if type(value) is not kind:
        raise TypeError(f"{value!r} where {kind.__name__} belongs")
    return value


def _problem(file_format: str, metadata: Mapping[str, str], kind: str, found: Exported) -> str | None:
    """Why a browser cannot run a model."""
    if file_format not in PRECISIONS:
        return f"is for {file_format}, but a browser runs {' or '.join(PRECISIONS)}; export it as that"
    if "vocabulary" not in metadata:
        return "has no CTC head, so it writes no text; export a recogniser"
    if kind in UNKNOWN:
        return f"is of type {kind!r}, which transformers.js does not know; give another"
    if found.file != FILES[file_format]:
        return f"names {found.file!r} in place of {FILES[file_format]}; export the model again"
    if found.bytes < 1 or found.stride < 1:
        return f"is said to have {found.bytes} bytes and a stride of {found.stride}; export the model again"
    return None


def _needed_files(model: Path, graph: str) -> dict[str, Path]:
    """What the page loads of a model, by its address.

    A model in the Hub's cache, `snapshots/COMMIT`, is a folder of links into the `blobs` beside `snapshots`.

    Raises:
        UserError: a file is missing, or a link to somewhere else.
    """
    folder = Path(os.path.realpath(model))
    roots, files = [folder], {}
    if folder.parent.name == "snapshots":
        roots.append(Path(os.path.realpath(folder.parents[1] / "blobs")))
    for name in (*NEEDED, graph):
        file = Path(os.path.realpath(folder / name))
        if not file.is_file():
            raise UserError(f"{model} lacks {name}; export the model again")
        if not any(file.is_relative_to(root) for root in roots):
            raise UserError(f"{model / name} is a link out of the folder; give a folder with the file itself")
        files[f"model/{name}"] = file
    return files


def _package(folder: Path) -> Path:
    for file in (f"{PACKAGE}/{LIBRARY}", RUNTIME):
        if not (folder / file).exists():
            raise UserError(f"{folder} lacks {file}; {INSTALL}, and give the folder node_modules")
    return folder


def _policy(*, offline: bool) -> str:
    """What the page may load, and so where it could send anything: here, and where its library comes from."""
    elsewhere = "" if offline else f" {CDN}"
    # The library turns the runtime's script from elsewhere into one of the page's own.
    scripts = elsewhere and f"{elsewhere} blob:"
    rules = {
        "default-src": "'none'",
        "script-src": f"'self' 'wasm-unsafe-eval'{scripts}",
        "connect-src": f"'self'{elsewhere}",
        "worker-src": "'self'",
        "style-src": "'self'",
        "img-src": "data:",
        "media-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def main(argv: Sequence[str] | None = None, prog: str = "distilhubert demo") -> None:
    """Serve the page until Ctrl-C."""
    parser = argument_parser(
        prog, "Transcribe in the browser, from a microphone or a file, with an exported recogniser.", EXAMPLES
    )
    parser.add_argument("--model", required=True, help="folder that distilhubert export wrote")
    parser.add_argument("--port", type=int, default=8000, help="of the address (default: 8000; 0: any)")
    parser.add_argument(
        "--transformers_js",
        metavar="FOLDER",
        help="node_modules with transformers.js; without it the browser fetches it from "
        f"{CDN.removeprefix('https://')}, which needs a network",
    )
    from hf_distilhubert.web_server import HOST

    server = open_demo(**vars(parser.parse_args(argv)))
    with server, suppress(KeyboardInterrupt):
        print(f"http://{HOST}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        server.serve_forever()
