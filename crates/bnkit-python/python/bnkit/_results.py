"""Results: the JSON that the command prints with ``--format json``, as a value that shows itself as a table."""

from __future__ import annotations

import html
import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from ._errors import FailedError

# A long result is cut in the middle when it is shown; to_frame has all of it.
_SHOWN = 60


def _show(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


class Result(Mapping[str, Any]):
    """What a job says of its work.

    It is a mapping: ``result["summary"]`` is what the command's JSON has under that key.
    """

    #: The key of the JSON that the table shows.
    _rows_key = ""
    #: Columns of the table: a heading, and where the value is in a row.
    _columns: Tuple[Tuple[str, str], ...] = ()

    def __init__(self, text: str, model: Optional[bytes] = None) -> None:
        self._text = text
        self._json: Optional[Dict[str, Any]] = None
        self._model = model

    @property
    def _data(self) -> Dict[str, Any]:
        if self._json is None:
            self._json = json.loads(self._text)
        return self._json

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __reduce__(self):
        return (type(self), (self._text, self._model))

    @property
    def failure(self) -> Optional[str]:
        """Why the answer is no, in one sentence; ``None`` if there is nothing to object to."""
        return self._data.get("failure")

    @property
    def ok(self) -> bool:
        """Whether there is nothing to object to: exit code 0 of the command."""
        return self.failure is None

    def raise_for_failure(self) -> "Result":
        """Raise :class:`FailedError` if the answer is no; else give this result."""
        if self.failure is not None:
            raise FailedError(self.failure, self)
        return self

    @property
    def warnings(self) -> List[Dict[str, str]]:
        """Things that a person should know: dicts with ``code`` and ``message``."""
        return self._data.get("warnings", [])

    def to_dict(self) -> Dict[str, Any]:
        """The JSON as a dict of the caller's own."""
        return json.loads(self._text)

    def to_json(self) -> str:
        """The JSON, as the command prints it."""
        return self._text

    def to_frame(self):
        """The table with all columns as a :class:`pandas.DataFrame` (pandas has to be installed)."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error
        return pandas.json_normalize(self._rows())

    def _rows(self) -> List[Dict[str, Any]]:
        return self._data.get(self._rows_key, [])

    def _table(self) -> Tuple[List[str], List[List[str]]]:
        def at(row: Any, path: str) -> Any:
            for key in path.split("."):
                row = row.get(key) if isinstance(row, dict) else None
            return row

        cells = [[_show(at(row, path)) for _, path in self._columns] for row in self._rows()]
        if len(cells) > _SHOWN:
            middle = [f"… {len(cells) - _SHOWN} more"] + [""] * (len(self._columns) - 1)
            cells = cells[: _SHOWN // 2] + [middle] + cells[-_SHOWN // 2 :]
        return [heading for heading, _ in self._columns], cells

    def _title(self) -> str:
        return self.failure or "ok"

    def __repr__(self) -> str:
        headings, cells = self._table()
        widths = [max(map(len, column)) for column in zip(headings, *cells)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
            for row in ([headings] + cells if cells else [])
        ]
        return "\n".join([f"<{type(self).__name__}: {self._title()}>", *lines])

    def _repr_html_(self) -> str:
        headings, cells = self._table()

        def row(kind: str, values: List[str]) -> str:
            return "<tr>" + "".join(f"<{kind}>{html.escape(value)}</{kind}>" for value in values) + "</tr>"

        head = f"<thead>{row('th', headings)}</thead>"
        body = "<tbody>" + "".join(row("td", values) for values in cells) + "</tbody>"
        return f"<p><b>{html.escape(self._title())}</b></p><table>{head}{body}</table>"


class _Writing(Result):
    """A result of a job that makes a model."""

    @property
    def model(self) -> Optional[bytes]:
        """The model as bytes, where no file was named to write it to; else ``None``."""
        return self._model

    @property
    def path(self) -> Optional[str]:
        """The file that was written; ``None`` if there is none."""
        output = self._data.get("output")
        return None if output is None or self._model is not None else output["path"]

    def to_model(self):
        """The model as an ``onnx.ModelProto`` (onnx has to be installed). Not for state dicts, which safetensors reads."""
        import onnx

        if self._model is not None:
            return onnx.load_model_from_string(self._model)
        if self.path is None:
            raise ValueError("no model was made")
        return onnx.load_model(self.path)


class InspectResult(Result):
    """What is in a checkpoint: ``bnkit.inspect/1``, of a state dict another schema."""

    _rows_key = "batch_norms"
    _columns = (
        ("BatchNorm", "node"),
        ("channels", "channels"),
        ("decision", "decision"),
        ("rule", "rule"),
        ("into", "into"),
        ("refusal", "refusal.code"),
    )

    def _title(self) -> str:
        source = self._data.get("input", {})
        return f"{source.get('path', '')}, {len(self._rows())} BatchNorms"


class FoldResult(_Writing):
    """What became of every BatchNorm, and the proof: ``bnkit.fold/1``."""

    _rows_key = "sites"
    _columns = InspectResult._columns

    @property
    def verdict(self) -> Optional[str]:
        """``equivalent``, ``equivalent-local``, ``not-equivalent`` or ``skipped``; ``None`` if nothing was proved."""
        proof = self._data.get("verification")
        return None if proof is None else proof["verdict"]

    def _title(self) -> str:
        summary = self._data["summary"]
        kept = f", {summary['kept']} kept" if summary["kept"] else ""
        said = self.failure or self.verdict or "nothing was proved"
        return f"{summary['folded']} of {summary['batch_norms']} BatchNorms folded{kept}; {said}"


class RecalibrateResult(_Writing):
    """The statistics of every layer before and after: ``bnkit.recalibrate/1``."""

    _rows_key = "layers"
    _columns = (
        ("BatchNorm", "node"),
        ("channels", "channels"),
        ("outcome", "outcome"),
        ("mean before", "change.mean_before.median"),
        ("mean after", "change.mean_after.median"),
        ("var before", "change.variance_before.median"),
        ("var after", "change.variance_after.median"),
        ("max shift/σ", "change.mean_shift.max"),
    )

    def _title(self) -> str:
        summary, data = self._data["summary"], self._data.get("data")
        seen = f", {data['samples']} samples in {data['batches']} batches" if data else ""
        return self.failure or f"{summary['updated']} of {summary['layers']} layers updated{seen}"


class MergeResult(RecalibrateResult):
    """As :class:`RecalibrateResult`, of the partial files of shards: ``bnkit.merge/1``."""


class ValidateResult(Result):
    """The stored against the observed statistics of every layer: ``bnkit.validate/1``."""

    _rows_key = "layers"
    _columns = (
        ("BatchNorm", "node"),
        ("channels", "channels"),
        ("drifted", "drifted"),
        ("max |Δμ|/σ", "mean_drift.max"),
        ("max |ln σ²|", "var_drift.max"),
        ("max KL", "kl.max"),
    )

    @property
    def valid(self) -> bool:
        """Whether the stored statistics describe the data."""
        return bool(self._data["valid"])

    def _title(self) -> str:
        return self.failure or "the stored statistics describe the data"


class VerifyResult(Result):
    """How far two models are apart: ``bnkit.verify/1``."""

    _columns = (
        ("output", "name"),
        ("max |Δ|", "max_abs"),
        ("accepted", "tolerance"),
        ("SNR dB", "snr_db"),
        ("argmax agrees", "argmax_agreement"),
        ("within", "within"),
    )

    def _rows(self) -> List[Dict[str, Any]]:
        return self._data["verification"]["outputs"]

    @property
    def verdict(self) -> str:
        """``equivalent``, ``equivalent-local``, ``not-equivalent`` or ``skipped``."""
        return self._data["verification"]["verdict"]

    def _title(self) -> str:
        return self.failure or self.verdict


class DiffResult(Result):
    """What changed between two checkpoints: ``bnkit.diff/1``."""

    _rows_key = "changed"
    _columns = (
        ("tensor", "name"),
        ("changed", "elements.changed"),
        ("max |Δ|", "elements.max_abs"),
        ("max relative", "elements.max_rel"),
    )

    def _title(self) -> str:
        summary = self._data["summary"]
        return f"{summary['changed']} tensors changed, {summary['unchanged']} unchanged"
