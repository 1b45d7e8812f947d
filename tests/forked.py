"""Runs modules as `python -m MODULE …` would, in forks of a process that has imported torch once.

One request a line on standard input, one answer a line on standard output, both JSON.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path


def serve() -> None:
    import datasets  # noqa: F401 - what commands import is imported once, before the forks
    import matplotlib.figure  # noqa: F401
    import soundfile  # noqa: F401
    import soxr  # noqa: F401
    import transformers.models.hubert.modeling_hubert
    import transformers.models.wav2vec2.feature_extraction_wav2vec2
    import transformers.models.wav2vec2.tokenization_wav2vec2
    import transformers.trainer  # noqa: F401
    from stopped_runs import build_table_of_names

    import finetune.metrics  # noqa: F401

    build_table_of_names()
    gc.freeze()  # what a fork inherits it need not look through again
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(answer(Path(folder), **json.loads(line))), flush=True)


def answer(folder: Path, arguments: list[str], cwd: str, env: dict[str, str]) -> dict:
    child = os.fork()
    if child == 0:
        os._exit(run(folder, arguments, cwd, env))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"status": status, **{name: (folder / name).read_text() for name in ("out", "err")}}


def run(folder: Path, arguments: list[str], cwd: str, env: dict[str, str]) -> int:
    """`-m MODULE …` or `-c CODE`; the exit status."""
    files = [os.open(folder / name, os.O_WRONLY | os.O_CREAT) for name in ("out", "err")]
    for place, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *files]):
        os.dup2(descriptor, place)
    os.environ.clear()
    os.environ |= env
    os.chdir(cwd)
    sys.path[:0] = [cwd]
    option, what, *rest = arguments
    sys.argv = [what, *rest]
    try:
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<code>", "exec"), {"__name__": "__main__"})  # noqa: S102
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    serve()
