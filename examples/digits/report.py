"""The Deck of `evaluate`: the held-out images with the labels they got, as HTML."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.metrics import confusion_matrix

Array = np.ndarray[Any, Any]

SHOWN = 100
INK, ALARM = "#1f2933", "#b3261e"

_STYLE = """
<style>
  .digits { max-width: 70rem; margin: 0 auto; color: #1f2933; line-height: 1.5;
            font-family: "Open Sans", "Helvetica Neue", Helvetica, Arial, sans-serif; }
  .digits h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
  .digits h2 { font-size: 1.1rem; margin: 1.5rem 0 .25rem; }
  .digits p { margin: 0 0 .75rem; }
  .digits .columns { display: flex; flex-wrap: wrap; gap: 0 4rem; }
  .digits .columns > * { flex: 1 1 24rem; }
  .digits img { width: 100%; height: auto; }
  .digits .wrong { color: #b3261e; font-weight: 700; }
  .digits table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  .digits th, .digits td { width: 2.4rem; height: 1.9rem; text-align: center; }
  .digits th { color: #52606d; font-weight: 600; }
  .digits td { border: 1px solid #e4e7eb; color: #9aa5b1; }
  .digits td.corner { border: none; }
  .digits td.right { background: #e6eefa; color: #1f2933; }
  .digits td.wrong { background: #fdecea; }
</style>
"""


def predictions_report(images: Array, labels: Array, predicted: Array) -> str:
    """Return the report's HTML.

    Args:
        images: Grey values from 0 to 16, of shape (images, 64).
        labels: What the images show, of shape (images,).
        predicted: What the server said, of shape (images,).
    """
    wrong = labels != predicted
    mistakes = int(wrong.sum())
    first = slice(None, SHOWN)
    parts = [
        _STYLE,
        '<div class="digits">',
        "<h1>Handwritten digits, read by the model server</h1>",
        f"<p>Of {len(labels)} held-out images, {len(labels) - mistakes} got the right label: an "
        "accuracy of "
        f"<strong>{1 - mistakes / len(labels):.1%}</strong>.</p>",
        f"<h2>The first {len(labels[first])}</h2>",
        "<p>Below each image stands the label it got. A wrong one is framed and reads "
        '<span class="wrong">✗ given (right)</span>.</p>',
        _grid(images[first], labels[first], predicted[first], columns=20),
        '<div class="columns">',
    ]
    if mistakes:
        grid = _grid(images[wrong], labels[wrong], predicted[wrong], columns=7)
        parts += [
            f"<section><h2>All {mistakes} mistakes</h2>",
            "<p>In the same order.</p>",
            grid,
            "</section>",
        ]
    parts += [
        "<section><h2>Which digit was taken for which</h2>",
        "<p>A row for what it is, a column for what it was read as.</p>",
        _confusion(labels, predicted),
        "</section></div></div>",
    ]
    return "\n".join(parts)


def _grid(images: Array, labels: Array, predicted: Array, *, columns: int) -> str:
    """Return the images in rows as an embedded PNG, whose alternative text says the same."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns * 0.56, rows * 0.78), dpi=200)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for index, (image, label, given) in enumerate(zip(images, labels, predicted, strict=True)):
        row, column = divmod(index, columns)
        left, top = column, row * 1.4 + 0.08
        axes.imshow(
            image.reshape(8, 8),
            cmap="gray_r",
            vmin=0,
            vmax=16,
            extent=(left, left + 0.8, top + 0.8, top),
        )
        right = label == given
        edge, width = ("#cbd2d9", 0.6) if right else (ALARM, 1.8)
        axes.add_patch(
            Rectangle((left, top), 0.8, 0.8, fill=False, edgecolor=edge, linewidth=width)
        )
        text = str(given) if right else f"✗ {given} ({label})"
        axes.text(
            left + 0.4,
            top + 0.86,
            text,
            ha="center",
            va="top",
            fontsize=9.5,
            color=INK if right else ALARM,
            weight="normal" if right else "bold",
        )
    axes.set(xlim=(-0.1, columns - 0.1), ylim=(rows * 1.4, 0), aspect="auto")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    alt = html.escape(
        f"{len(images)} images of handwritten digits. {_in_words(labels, predicted)}", quote=True
    )
    return (
        f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'
    )


def _in_words(labels: Array, predicted: Array) -> str:
    pairs = enumerate(zip(labels, predicted, strict=True), 1)
    wrong = [
        f"image {index}: {label} read as {given}"
        for index, (label, given) in pairs
        if label != given
    ]
    return "Wrong are " + ", ".join(wrong) + "." if wrong else "All have the right label."


def _confusion(labels: Array, predicted: Array) -> str:
    """Return how often each digit got each label, as a table."""
    digits = range(10)
    counts = confusion_matrix(labels, predicted, labels=list(digits))
    header = "".join(f'<th scope="col">{digit}</th>' for digit in digits)
    rows = [f'<tr><td class="corner"></td>{header}</tr>']
    for digit in digits:
        cells = "".join(
            _cell(count, right=digit == column) for column, count in enumerate(counts[digit])
        )
        rows.append(f'<tr><th scope="row">{digit}</th>{cells}</tr>')
    return f"<table>{''.join(rows)}</table>"


def _cell(count: int, *, right: bool) -> str:
    if right:
        return f'<td class="right">{count}</td>'
    return f'<td class="wrong">✗ {count}</td>' if count else "<td>·</td>"
