"""HTML of the report: a few elements and one style sheet; what comes out is one file that loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import cv2

from shards.draw import Picture

_JPEG_QUALITY = 88

STYLE = """
:root { color-scheme: light; }
body { font: 14px/1.45 Georgia, 'Times New Roman', serif; color: #222; background: #fff; max-width: 1120px;
       margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.7em; margin-bottom: .2em; }
h2 { font-size: 1.25em; margin: 2em 0 .5em; border-bottom: 1px solid #bbb; padding-bottom: .15em; }
h3 { font-size: 1em; margin: 1.2em 0 .3em; }
p { margin: .4em 0; }
svg, table, .legend { font-family: 'Helvetica Neue', Arial, sans-serif; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 12.5px; margin: .5em 0; border-top: 1.5px solid #222;
        border-bottom: 1.5px solid #222; }
th, td { padding: .22em .65em; text-align: left; vertical-align: top; }
thead th { border-bottom: 1px solid #222; vertical-align: bottom; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
tr.group th { border-top: 1px solid #bbb; padding-top: .5em; font-size: 1.05em; }
tr.cost td, .soft { color: #666; font-size: 11.5px; }
tr.total td { border-top: 1px solid #bbb; }
.best { font-weight: bold; }
.caption { font-size: 13px; margin: 1em 0 .4em; }
.warning { background: #fff6e0; border-left: 4px solid #e69f00; padding: .3em .8em; margin: .3em 0; }
.row { display: flex; flex-wrap: wrap; gap: .6em 1.2em; align-items: flex-start; }
.pictures { table-layout: fixed; width: 100%; border: 0; }
.pictures td, .pictures th { padding: 2px; border: 0; text-align: center; font-size: 12px; vertical-align: bottom; }
.pictures img { width: 100%; display: block; }
.legend span { display: inline-block; margin-right: 1.1em; font-size: 12px; white-space: nowrap; }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .35em !important; vertical-align: -.1em;
          border: 1px solid #999; }
code { font-size: 12px; word-break: break-all; }
.pair svg { width: 49%; } .four svg { width: 23.5%; }
.pair, .four { flex-wrap: nowrap; }
@media print { body { margin: 0; padding: 0; max-width: none; font-size: 10px; } @page { margin: 12mm; }
               table { font-size: 8px; } th, td { padding: .2em .4em; } td:first-child { white-space: nowrap; }
               tr.cost td, .soft { font-size: 7.5px; } .caption { font-size: 9.5px; } .legend span { font-size: 9px; }
               .pictures th { font-size: 8px; } h2, .caption, tr.group { break-after: avoid; }
               tr, svg, .warning { break-inside: avoid; } * { print-color-adjust: exact; } }
"""


def document(title: str, sections: Sequence[str]) -> str:
    """The whole file."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A heading and what is under it; nothing where nothing is."""
    held = [part for part in parts if part]
    return f"<h2>{escape(heading)}</h2>\n" + "\n".join(held) if held else ""


def caption(label: str, text: str) -> str:
    """`Table 1.` in bold, and what it shows."""
    return f'<p class="caption"><b>{escape(label)}.</b> {escape(text)}</p>'


def paragraph(text: str, kind: str = "") -> str:
    """Plain text as a paragraph; nothing where there is none."""
    if not text:
        return ""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def cell(text: str, kind: str = "", *, head: bool = False, span: int = 1) -> str:
    """One cell of plain text; kinds are those of the style sheet, `n` for a number."""
    tag = "th" if head else "td"
    attributes = (f' class="{kind}"' if kind else "") + (f' colspan="{span}"' if span > 1 else "")
    return f"<{tag}{attributes}>{escape(text)}</{tag}>"


def row(cells: Sequence[str], kind: str = "") -> str:
    """A row of cells."""
    return f'<tr class="{kind}">{"".join(cells)}</tr>' if kind else f"<tr>{''.join(cells)}</tr>"


def table(head: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    """Head cells and rows."""
    start = f'<table class="{kind}">' if kind else "<table>"
    return f"{start}<thead>{row(head)}</thead><tbody>{''.join(rows)}</tbody></table>"


def image(picture: Picture, description: str) -> str:
    """(H, W, 3) uint8 RGB -> an image whose bytes are in the page."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    assert done, f"OpenCV could not encode a picture of {picture.shape}"
    encoded = base64.b64encode(data.tobytes()).decode()
    return f'<img alt="{escape(description)}" src="data:image/jpeg;base64,{encoded}">'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names with their colours, `#rrggbb` each."""
    spans = [
        f'<span><i class="swatch" style="background:{colour}"></i>{escape(name)}</span>' for name, colour in entries
    ]
    return f'<p class="legend">{"".join(spans)}</p>'
