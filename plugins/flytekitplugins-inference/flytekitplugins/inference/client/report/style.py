"""The page's style: calm, dense, readable at 360 pixels and on paper, in light and dark."""

from __future__ import annotations

__all__ = ["BODY_STYLE", "STYLE"]

# Contrast of text is 4.5 or more on its ground, of lines 3 or more; blue, orange and green-blue
# stay apart for all kinds of colour blindness, and no fact is told by colour alone.
_LIGHT = """
  --page: #ffffff; --panel: #f6f7f9; --ink: #1c2430; --muted: #566070; --grid: #dde1e7;
  --edge: #d3d8e0; --one: #1a5fb4; --two: #b3540b; --three: #00766c; --bad: #b3261e;
  --good: #1b6e3c; --warn: #8a5300; --bad-ground: #fdeeec; --warn-ground: #fdf4e3;
  --good-ground: #ecf6ef; --link: #1a5fb4;
"""
_DARK = """
  --page: #14181f; --panel: #1c222b; --ink: #e6e9ee; --muted: #a3adbb; --grid: #333c48;
  --edge: #3a4451; --one: #74b0f4; --two: #f0a35e; --three: #57c7b6; --bad: #ff9188;
  --good: #7fd49c; --warn: #f2bf66; --bad-ground: #33201f; --warn-ground: #30281a;
  --good-ground: #1a2c21; --link: #74b0f4;
"""

BODY_STYLE = """
body { margin: 0; background: #ffffff; }
@media (prefers-color-scheme: dark) { body { background: #14181f; } }
"""
"""Of a page that holds nothing else: the same ground below a short report."""

STYLE = f"""
.inference-report {{{_LIGHT}
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color-scheme: light dark; background: var(--page); color: var(--ink);
  font: 15px/1.5 var(--font); text-align: start; overflow-wrap: anywhere; border-radius: 8px;
}}
@media (prefers-color-scheme: dark) {{ .inference-report {{{_DARK}}} }}
.inference-report *, .inference-report *::before {{ box-sizing: border-box; }}
.inference-report main {{ max-width: 76rem; margin: 0 auto;
  padding: 1.5rem clamp(0.75rem, 3vw, 2rem) 2rem; }}
.inference-report header {{ display: flex; flex-wrap: wrap; align-items: baseline;
  gap: 0.25rem 0.9rem; }}
.inference-report h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0; letter-spacing: -0.01em; }}
.inference-report h2, .inference-report h3 {{ font-size: 1.1rem; line-height: 1.3;
  margin: 2rem 0 0.5rem; }}
.inference-report h2.server {{ font-size: 1.35rem; margin-top: 2.5rem; padding-top: 1.25rem;
  border-top: 1px solid var(--edge); }}
.inference-report p {{ margin: 0 0 0.5rem; }}
.inference-report .state {{ font-size: 0.85rem; color: var(--muted); }}
.inference-report .state.running::before {{ content: "●"; color: var(--three);
  margin-right: 0.35em; }}
.inference-report .state.failed {{ color: var(--bad); font-weight: 600; }}
.inference-report .error {{ flex-basis: 100%; margin: 0.5rem 0; padding: 0.6rem 0.8rem;
  border-radius: 6px; background: var(--bad-ground); color: var(--bad);
  font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 0.85rem; }}
.inference-report .subtitle {{ color: var(--muted); margin: 0.15rem 0 1.1rem; }}
.inference-report .answers {{ display: grid; gap: 0.75rem; margin: 0;
  grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); }}
.inference-report .card {{ background: var(--panel); border: 1px solid var(--edge);
  border-radius: 8px; padding: 0.8rem 0.95rem; }}
.inference-report dt {{ font-size: 0.85rem; color: var(--muted); }}
.inference-report dd {{ margin: 0; }}
.inference-report dd strong {{ display: block; font-size: 1.45rem; line-height: 1.3;
  letter-spacing: -0.01em; font-variant-numeric: tabular-nums; }}
.inference-report dd span {{ display: block; font-size: 0.85rem; line-height: 1.4; }}
.inference-report .card.bad strong {{ color: var(--bad); }}
.inference-report .card.warn strong {{ color: var(--warn); }}
.inference-report .card.good strong {{ color: var(--good); }}
.inference-report .card.unknown strong {{ color: var(--muted); }}
.inference-report ol.advice {{ list-style: none; margin: 0; padding: 0; columns: 28rem 2;
  column-gap: 0.75rem; }}
.inference-report .advice li {{ break-inside: avoid; margin: 0 0 0.6rem; padding: 0.65rem 0.95rem;
  border-radius: 8px; background: var(--panel);
  border: 1px solid var(--edge); }}
.inference-report .advice li.bad {{ background: var(--bad-ground); }}
.inference-report .advice li.warn {{ background: var(--warn-ground); }}
.inference-report .advice p {{ margin: 0; max-width: 60rem; }}
.inference-report .advice .evidence {{ color: var(--ink); font-size: 0.9rem; margin: 0.1rem 0; }}
.inference-report .tag {{ font-size: 0.72rem; font-weight: 700; text-transform: uppercase;
  letter-spacing: 0.04em; color: var(--muted); margin-right: 0.35rem; }}
.inference-report .bad .tag {{ color: var(--bad); }}
.inference-report .warn .tag {{ color: var(--warn); }}
.inference-report .figures {{ display: grid; gap: 0 2.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); }}
.inference-report .figure {{ min-width: 0; }}
.inference-report .drawing svg {{ display: block; width: 100%; height: auto; max-width: 42rem; }}
.inference-report .drawing svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}
.inference-report .drawing svg text {{ font-family: var(--font);
  font-variant-numeric: tabular-nums; }}
.inference-report .drawing svg.narrow {{ display: none; }}
.inference-report .note, .inference-report footer {{ color: var(--muted); font-size: 0.82rem; }}
.inference-report .missing {{ color: var(--ink); }}
.inference-report details {{ margin: 0.25rem 0 0.5rem; }}
.inference-report summary {{ cursor: pointer; color: var(--link); font-size: 0.85rem;
  padding: 0.25rem 0; width: fit-content; }}
.inference-report .scroll {{ overflow-x: auto; max-height: 26rem; overflow-y: auto;
  margin: 0.25rem 0 1rem; }}
.inference-report :focus-visible {{ outline: 2px solid var(--link); outline-offset: 2px; }}
.inference-report table {{ border-collapse: collapse; font-size: 0.85rem;
  font-variant-numeric: tabular-nums; background: none; color: inherit; }}
.inference-report caption {{ text-align: left; font-weight: 600; padding: 0 0 0.3rem;
  color: var(--ink); }}
.inference-report th, .inference-report td {{ text-align: left; vertical-align: top;
  font-weight: 400; line-height: 1.4; padding: 0.25rem 1.1rem 0.25rem 0;
  border-bottom: 1px solid var(--grid); min-width: 4.5rem; color: var(--ink); }}
.inference-report thead th {{ color: var(--muted); }}
.inference-report th, .inference-report td {{ overflow-wrap: break-word; max-width: 36rem; }}
.inference-report td:last-child {{ padding-right: 0; }}
.inference-report .tables {{ display: flex; flex-wrap: wrap; gap: 0 3rem; }}
.inference-report .tables > * {{ max-width: 100%; }}
.inference-report footer {{ margin-top: 2rem; padding-top: 0.75rem;
  border-top: 1px solid var(--edge); }}
@media (max-width: 40rem) {{
  .inference-report .drawing svg.wide {{ display: none; }}
  .inference-report .drawing svg.narrow {{ display: block; }}
  .inference-report h1 {{ font-size: 1.35rem; }}
  .inference-report h2, .inference-report h3 {{ margin-top: 1.5rem; }}
}}
@media print {{ .inference-report .scroll {{ max-height: none; overflow: visible; }} }}
"""
