"""A fitted net's module as a file that needs neither mtlsk nor skorch: .pt2 or .onnx."""

from __future__ import annotations

import copy
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtlsk.estimators.statefile import write

ROWS = 3
"""Rows of the example that is traced: 0 and 1 are taken for constants."""

NEEDS = ("onnx", "onnxscript")
"""What torch's ONNX exporter needs."""

INPUT, OUTPUT = "X", "y"


class Predictor(nn.Module):
    """A module, and what turns its outputs into predictions.

    Parameters
    ----------
    module : torch module
        Where it returns a tuple the first is the prediction, as in skorch.
    link : torch module or None
        From outputs to predictions (probabilities of classes); None leaves them as they are.
    """

    def __init__(self, module: nn.Module, link: nn.Module | None = None) -> None:
        super().__init__()
        self.module = module
        self.link = link

    def forward(self, X: Tensor) -> Tensor:
        """Return the predictions of rows (n, d)."""
        outputs = self.module(X)
        found: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
        return found if self.link is None else self.link(found)


class Link(nn.Module):
    """From the outputs (n, W) of several tasks to numbers and probabilities, side by side.

    Parameters
    ----------
    tasks : list of (kind, slice of the outputs)

    Attributes
    ----------
    columns : list of slices
        Where each task's predictions are: one number, or a probability a class.
    """

    def __init__(self, tasks: list[tuple[str, slice]]) -> None:
        super().__init__()
        self.tasks = tasks
        self.columns: list[slice] = []
        first = 0
        for kind, outputs in tasks:
            width = 2 if kind == "binary" else outputs.stop - outputs.start
            self.columns.append(slice(first, first + width))
            first += width

    def forward(self, outputs: Tensor) -> Tensor:
        """Return the predictions."""
        parts = []
        for kind, columns in self.tasks:
            part = outputs[:, columns]
            if kind == "binary":
                part = torch.cat([-part / 2, part / 2], dim=1)
            parts.append(part if kind == "regression" else part.softmax(1))
        return torch.cat(parts, dim=1)


def export_module(
    module: nn.Module,
    path: Any,
    *,
    n_features: int,
    facts: dict[str, Any],
    link: nn.Module | None = None,
) -> None:
    """Write a module for prediction, for any number of rows, on the CPU; the format by the suffix.

    Parameters
    ----------
    module : torch module
        It is copied: neither its mode nor its device changes.
    path : path ending in .pt2 or .onnx
    n_features : int
    facts : dict
        What goes along with it as JSON: ``mtlsk.json`` of a .pt2, metadata ``mtlsk`` of an .onnx.
    link : torch module or None
        See :class:`Predictor`.

    Raises
    ------
    ValueError
        In one line, for another suffix, and for a module that cannot be exported or whose export
        predicts something else.
    ImportError
        For .onnx without the extra.
    """
    path = Path(path)
    formats: dict[str, Callable[..., bytes]] = {".pt2": _pt2, ".onnx": _onnx}
    if path.suffix not in formats:
        raise ValueError(f"export({str(path)!r}): the suffix must be {' or '.join(formats)}")
    missing = [name for name in NEEDS if find_spec(name) is None]
    if path.suffix == ".onnx" and missing:
        raise ImportError(
            f"export to .onnx needs {' and '.join(missing)}: pip install 'mtlsk[onnx]'"
        )
    name = type(module).__name__
    compiled = getattr(module, "_orig_mod", module)  # by torch.compile
    predictor = Predictor(copy.deepcopy(compiled).cpu(), link).eval()
    dtype = next((p.dtype for p in predictor.parameters()), torch.float32)
    # a module that does not take any numbers, such as one of codes, brings rows that it takes
    example_rows = getattr(compiled, "example_rows", None)
    count = 2 * ROWS
    rows = torch.linspace(-1, 1, count * n_features, dtype=dtype).reshape(count, n_features)
    rows = rows if example_rows is None else example_rows(count).to(rows)
    try:
        with quiet(), torch.no_grad():
            shapes = {INPUT: {0: torch.export.Dim("rows")}}
            program = torch.export.export(predictor, (rows[:ROWS],), dynamic_shapes=shapes)
            content = formats[path.suffix](program, rows[:ROWS], facts)
            found = predicted(path.suffix, program, content, rows)
            if not torch.allclose(found, predictor(rows), 1e-5, 1e-6, equal_nan=True):
                raise ValueError("what it is exported to predicts something else")
    except Exception as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"the module {name} cannot be exported to {path.suffix} ({why}); its forward must be "
            "torch operations on (n, d) rows, the same for any n"
        ) from error
    write(path, content)


def export_net(net: Any, path: Any) -> None:
    """Write the module of a fitted net, its link and what its outputs mean to a file."""
    features = [str(name) for name in getattr(net, "feature_names_in_", ())] or None
    link = Link([(task.kind, task.slice) for task in net.tasks_])
    tasks = [
        {"name": task.name, "columns": [columns.start, columns.stop]}
        | ({} if task.classes is None else {"classes": task.classes.tolist()})
        for task, columns in zip(net.tasks_, link.columns, strict=True)
    ]
    plain = all(task.classes is None for task in net.tasks_)
    export_module(
        net.module_,
        path,
        n_features=net.n_features_in_,
        facts={"tasks": tasks, "features": features},
        link=None if plain else link,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters say to themselves from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def predicted(suffix: str, program: Any, content: bytes, rows: Tensor) -> Tensor:
    """Return what was exported predicts for rows; ONNX only where its runtime is installed."""
    found: Tensor
    if suffix == ".onnx" and find_spec("onnxruntime") is not None:
        runtime: Any = importlib.import_module("onnxruntime")
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {INPUT: rows.numpy()})[0])
    else:
        found = program.module()(rows)
    return found


def _pt2(program: Any, rows: Tensor, facts: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"mtlsk.json": json.dumps(facts)})
    return buffer.getvalue()


def _onnx(program: Any, rows: Tensor, facts: dict[str, Any]) -> bytes:
    exported: Any = torch.onnx.export(
        program,
        (rows,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    model = exported.model_proto
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if symbol and dimension.dim_param == symbol:
                dimension.dim_param = "rows"
    entry = model.metadata_props.add()
    entry.key, entry.value = "mtlsk", json.dumps(facts)
    content: bytes = model.SerializeToString()
    return content
