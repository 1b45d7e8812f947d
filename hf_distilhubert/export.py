"""A recogniser or student as a file for other runtimes and for the browser: `distilhubert export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_distilhubert.config import argument_parser
from hf_distilhubert.errors import UserError

if TYPE_CHECKING:
    from hf_distilhubert.export_check import Deviation
    from hf_distilhubert.export_int8 import Cost
    from hf_distilhubert.export_model import Exportable
    from hf_distilhubert.text_rules import Normaliser

# Which file each format has; the names in onnx/ are those that transformers.js looks for.
FILES = {
    "onnx": "onnx/model.onnx",
    "onnx-int8": "onnx/model_quantized.onnx",
    "openvino": "openvino/openvino_model.xml",
}
EXAMPLES = """\
  distilhubert export --model runs/recogniser --output runs/onnx
  distilhubert export --model runs/recogniser --output runs/int8 --format onnx-int8 --data recordings
  distilhubert export --model ntu-spml/distilhubert --output runs/features --format openvino"""


@dataclass(frozen=True)
class Report:
    """What was exported.

    Attributes:
        file: the new file.
        size: of it (and its weights), in bytes.
        deviation: from PyTorch.
        cost: of 8 bits in words; None where there was no speech to measure it by.
    """

    file: Path
    size: int
    deviation: Deviation
    cost: Cost | None


def export(
    model: str | Path,
    output: str | Path,
    file_format: str = "onnx",
    *,
    data: str | Path | None = None,
    split: str = "test",
    text: str | Normaliser | None = None,
    overwrite: bool = False,
) -> Report:
    """Write a model as one file that takes `input_values` and `attention_mask`, and check it.

    The file computes what PyTorch does with `mask_group_norm`: in float32 a clip gives the same alone and in
    any padded batch. Outputs are `logits` (CTC) or `last_hidden_state`, and `frame_lengths`. Beside it lie
    the files that transformers.js reads, and `export.json` with the figures.

    Args:
        model: folder or repository of a model of the HuBERT or wav2vec2 kind, with a CTC head or none.
        output: the new folder.
        file_format: `onnx`, `onnx-int8` (linear layers in 8 bits) or `openvino`.
        data: speech with transcripts to measure by what 8 bits cost.
        split: which of its clips; `all` takes every one.
        text: normalise the transcripts with `basic`, `english`, `none` or a function in place of what the
            model was trained with.
        overwrite: replace a folder that an earlier export left.

    Raises:
        UserError: the model cannot be exported, a package is missing, the check fails, or the output folder
            exists; nothing is left behind then.
    """
    from hf_distilhubert.export_runners import need_packages
    from hf_distilhubert.folders import check_new, new_folder
    from hf_distilhubert.provenance import short_name

    if file_format not in FILES:
        raise UserError(f"there is no format {file_format!r}; give one of {', '.join(FILES)}")
    if data is not None and file_format != "onnx-int8":
        raise UserError("speech is there to measure what 8 bits cost; give onnx-int8, or leave the data out")
    need_packages("onnx", "onnx", "onnxscript", "onnxruntime")
    if file_format == "openvino":
        need_packages("openvino", "openvino")
    check_new(output, overwrite=overwrite, keep=[model, data])
    from hf_distilhubert.export_model import load_exportable, speech_with_texts

    exportable = load_exportable(model)
    speech = None if data is None else speech_with_texts(exportable, data, split, text)
    with new_folder(output, overwrite=overwrite) as folder:
        file = folder / FILES[file_format]
        file.parent.mkdir()
        deviation, cost = _write(exportable, file, file_format, speech)
        exportable.save(folder, dtype="q8" if file_format == "onnx-int8" else "fp32")
        size = sum(part.stat().st_size for part in file.parent.iterdir())
        report = Report(Path(output) / FILES[file_format], size, deviation, cost)
        measured = {} if data is None else {"data": short_name(data), "split": split}
        _record(folder, exportable, report, file_format, measured)
    return report


def _write(
    exportable: Exportable, file: Path, file_format: str, speech: tuple[Any, Any] | None
) -> tuple[Deviation, Cost | None]:
    """Write the file by way of the float32 graph, each checked before the next is made of it."""
    from hf_distilhubert.export_check import check, deviation
    from hf_distilhubert.export_graph import write_onnx
    from hf_distilhubert.export_runners import onnx_runner, openvino_runner

    normal = exportable.do_normalize
    graph = file if file_format == "onnx" else file.with_name("float32.onnx")
    write_onnx(exportable.module, graph, exportable.metadata())
    whole = onnx_runner(graph)
    found, cost = check(whole, exportable.module, graph, do_normalize=normal), None
    if file_format == "openvino":
        _convert(graph, file, exportable.metadata())
        found = check(openvino_runner(file), exportable.module, file, do_normalize=normal)
    if file_format == "onnx-int8":
        from hf_distilhubert import export_int8

        export_int8.quantise(graph, file)
        small = onnx_runner(file)
        found = deviation(small, exportable.module, do_normalize=normal)
        if speech is not None:
            cost = export_int8.cost({"float32": whole, "int8": small}, exportable.processor, *speech)
    if graph != file:
        graph.unlink()
    return found, cost


def _convert(graph: Path, file: Path, metadata: dict[str, str]) -> None:
    import openvino

    model = openvino.convert_model(str(graph))
    for name, value in metadata.items():
        model.set_rt_info(value, ["hf_distilhubert", name])
    # Half precision would be its default.
    openvino.save_model(model, str(file), compress_to_fp16=False)


def _record(
    folder: Path, exportable: Exportable, report: Report, file_format: str, measured: dict[str, str | None]
) -> None:
    from hf_distilhubert.export_check import TOLERANCE
    from hf_distilhubert.machine import command_line
    from hf_distilhubert.provenance import read_lineage, short_name, versions, write_json

    exact = {} if file_format == "onnx-int8" else {"allowed": TOLERANCE}
    figures = {
        "stage": "export",
        "model": short_name(exportable.source),
        "format": file_format,
        "file": FILES[file_format],
        "bytes": report.size,
        "deviation": asdict(report.deviation) | exact,
        "metadata": exportable.metadata(),
        "versions": versions(),
        "lineage": read_lineage(exportable.source),
    }
    if report.cost is not None:
        figures["cost"] = asdict(report.cost) | {"points": report.cost.points} | measured
    if command := command_line():
        figures["command"] = command
    write_json(folder / "export.json", figures)


def main(argv: Sequence[str] | None = None, prog: str = "distilhubert export") -> Report:
    """Read the command line, export, and say how exact the file is."""
    parser = argument_parser(
        prog, "Write a model as a file for ONNX Runtime, OpenVINO or a browser.", EXAMPLES
    )
    parser.add_argument("--model", required=True, help="folder or Hub repository of a recogniser or student")
    parser.add_argument("--output", required=True, help="new folder")
    parser.add_argument(
        "--format",
        choices=FILES,
        default="onnx",
        help="onnx: float32; onnx-int8: linear layers in 8 bits; openvino (default: onnx)",
    )
    parser.add_argument("--data", help="speech with transcripts, to measure what 8 bits cost (onnx-int8)")
    parser.add_argument("--split", default="test", help="which of its clips, or all (default: test)")
    parser.add_argument(
        "--text",
        help="normal form of the transcripts: basic, english, none (default: as it was trained with)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    arguments = vars(parser.parse_args(argv))
    file_format = arguments.pop("format")
    report = export(arguments.pop("model"), arguments.pop("output"), file_format, **arguments)
    print(f"{report.file}: {report.size / 1e6:.1f} MB")
    print(
        f"off from PyTorch by {max(report.deviation.alone.values()):.1e} for clips alone, "
        f"by {report.deviation.batch:.1e} in a padded batch"
    )
    if report.cost is not None:
        print(report.cost)
    elif file_format == "onnx-int8":
        print("what 8 bits cost in words was not measured; give --data with transcripts")
    return report
