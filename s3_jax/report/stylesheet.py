"""The page's style sheet: one column, light and dark ground, wide tables that scroll inside their own frame."""

from __future__ import annotations

from s3_jax.report import theme


def stylesheet() -> str:
    """The CSS of the page, with the theme's colours as custom properties."""
    light = "".join(f"--{role}:{colours[0]};" for role, colours in theme.COLOURS.items())
    dark = "".join(f"--{role}:{colours[1]};" for role, colours in theme.COLOURS.items())
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{_RULES}"


_RULES = """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0.2rem 0 0.5rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3.25rem 0 0.5rem; padding-top: 1.1rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.9rem 0 0.5rem; }
p, ul { max-width: 46rem; margin: 0.5rem 0 0.9rem; }
ul { padding-left: 1.2rem; }
a { color: var(--accent); text-underline-offset: 0.15em; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.eyebrow { margin: 0; color: var(--muted); font-size: 0.875rem; }
.muted, figcaption, caption { color: var(--muted); }
.status { margin: 1rem 0; border-left: 3px solid var(--space-1); background: var(--surface); padding: 0.6rem 0.9rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1px; margin: 1.6rem 0 0;
  border: 1px solid var(--rule); border-radius: 6px; overflow: hidden; background: var(--rule); }
.facts:has(div:only-child) { max-width: 18rem; grid-template-columns: 1fr; }
.facts div { background: var(--ground); padding: 0.75rem 0.95rem 0.7rem; }
.facts dt { color: var(--muted); font-size: 0.8125rem; line-height: 1.35; }
.facts dd { margin: 0.1rem 0 0; font-size: 1.375rem; line-height: 1.3; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.facts dd small { font-size: 0.8125rem; font-weight: 400; color: var(--muted); }
.rows { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.15rem 1.4rem; margin: 1.5rem 0 0;
  font-size: 0.9375rem; }
.rows dt { color: var(--muted); }
.rows dd { margin: 0; max-width: 46rem; overflow-wrap: anywhere; }
nav { margin: 1.5rem 0 0; font-size: 0.9375rem; }
nav a { display: inline-block; margin: 0 1.1rem 0.2rem 0; }
figure { margin: 1.1rem 0 0.5rem; }
figcaption { max-width: 46rem; font-size: 0.9375rem; margin-top: 0.7rem; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-variant-numeric: tabular-nums; }
.narrow { display: none; }
.narrow svg + svg { margin-top: 1.5rem; }
.scroll { overflow-x: auto; margin: 0.9rem 0; }
table { border-collapse: collapse; font-size: 0.9375rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: 0.9375rem; padding-bottom: 0.4rem; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 1.15rem 0.4rem 0;
  border-bottom: 1px solid var(--rule); }
th { white-space: pre; font-weight: 600; font-size: 0.8125rem; line-height: 1.35; color: var(--muted);
  vertical-align: bottom; }
th:last-child, td:last-child { padding-right: 0.2rem; }
th.number, td.number { text-align: right; }
td.number { white-space: nowrap; }
tr.group td, tr.group th { border-top: 2px solid var(--rule); }
tr.strong td { font-weight: 600; background: var(--surface); }
tr.strong td:first-child { box-shadow: inset 3px 0 var(--accent); }
tr.strong td:first-child, .cards td:first-child, .cards th:first-child { padding-left: 0.7rem; }
.pairs { display: inline-grid; grid-auto-flow: column; grid-auto-columns: minmax(3.1rem, auto); column-gap: 0.7rem; }
.pairs span { text-align: right; line-height: 1.35; }
.pairs b { display: block; font-weight: 400; color: var(--muted); font-size: 0.8125rem; }
.tag { display: inline-block; font-size: 0.75rem; line-height: 1.35; padding: 0 0.4rem; border-radius: 3px;
  border: 1px solid var(--rule); color: var(--muted); font-weight: 400; white-space: nowrap; }
.dot { display: inline-block; width: 0.6rem; height: 0.6rem; border-radius: 50%; margin-right: 0.45rem; }
.stages { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 0.4rem 1.6rem; }
.stages h4 { margin: 0.7rem 0 0; font-size: 0.9375rem; }
.stages h4 span { font-weight: 400; color: var(--muted); }
.stages .scroll { margin: 0.2rem 0 0.6rem; }
.stages table { width: 100%; font-size: 0.875rem; }
.stages th, .stages td { padding: 0.16rem 0.3rem 0.16rem 0; text-align: right; }
.stages th { font-size: 0.75rem; }
details { margin: 0.7rem 0; }
summary { cursor: pointer; font-weight: 600; }
summary span { font-weight: 400; color: var(--muted); }
footer { margin-top: 3.25rem; padding-top: 1rem; border-top: 1px solid var(--rule); color: var(--muted);
  font-size: 0.9375rem; }
@media (max-width: 60rem) { .facts { grid-template-columns: 1fr 1fr; } }
@media (max-width: 44rem) {
  main { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.45rem; }
  h2 { margin-top: 2.5rem; }
  .wide { display: none; }
  .narrow { display: block; }
  .rows { grid-template-columns: 1fr; gap: 0; }
  .rows dd { margin-bottom: 0.45rem; }
  .facts div { padding: 0.6rem 0.75rem; }
  .facts dd { font-size: 1.0625rem; white-space: nowrap; }
  table { font-size: 0.875rem; }
  th, td { padding-right: 0.85rem; }
  .cards, .cards tbody, .cards tr, .cards td { display: block; width: 100%; }
  .cards thead { display: none; }
  .cards tr { padding: 0.5rem 0; border-bottom: 1px solid var(--rule); }
  .cards td, .cards td.number { display: flex; justify-content: space-between; gap: 1rem; text-align: right;
    border: 0; padding: 0.12rem 0.6rem; }
  .cards tr.strong { background: var(--surface); box-shadow: inset 3px 0 var(--accent); }
  .cards tr.strong td { background: none; box-shadow: none; }
  .cards td::before { content: attr(data-label); color: var(--muted); font-weight: 400; text-align: left; }
}
@media print {
  main { max-width: none; padding: 0; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
}
"""
