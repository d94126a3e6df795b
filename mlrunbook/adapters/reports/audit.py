"""An audit as one HTML page that needs nothing else: a summary on one page of A4, then every section with its charts and evidence."""

from __future__ import annotations

import re
from itertools import groupby

from mlrunbook.adapters.reports.charts import draw, escape
from mlrunbook.domain.audits.section import Audit, Section, Table, Verdict

MEDIA_TYPE = "text/html; charset=utf-8"
MOST_WORDS = 150  # characters of a sentence in the summary, which must stay one page; the section has it whole
MOST_ROWS = 200
UNBROKEN = 14  # characters of a cell that stays on one line: a figure cut in two reads as two

_STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --muted: #57606a; --rule: #d8dee4; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #fff; margin: 0 auto;
  max-width: 960px; padding: 24px; }
h1 { font-size: 26px; margin: 0; line-height: 1.25; } h2 { font-size: 20px; margin: 36px 0 8px; } h3 { font-size: 17px; margin: 0; }
p { margin: 6px 0; } .muted { color: var(--muted); }
.head { border-bottom: 2px solid var(--ink); padding-bottom: 12px; margin-bottom: 14px; }
.verdict { display: inline-block; padding: 1px 9px; border-radius: 4px; font-weight: 600; white-space: nowrap; border: 1px solid; }
.pass { color: #116329; background: #dafbe1; border-color: #86c995; } .fail { color: #a40e26; background: #ffebe9; border-color: #e8a3a9; }
.not_enough_data { color: #5c4400; background: #fff3cd; border-color: #d9bf6b; }
.overall { font-size: 17px; margin: 12px 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
caption { text-align: left; font-weight: 600; padding: 10px 0 4px; }
th, td { text-align: left; vertical-align: top; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--rule); overflow-wrap: anywhere; }
th { color: var(--muted); font-weight: 600; overflow-wrap: normal; } td.key { white-space: nowrap; }
td.key, td.line { overflow-wrap: normal; }
tr.group th { color: var(--ink); padding-top: 12px; font-size: 15px; }
section { border-top: 1px solid var(--rule); padding: 18px 0 6px; }
section header { display: flex; gap: 12px; align-items: baseline; flex-wrap: wrap; }
figure { margin: 14px 0 4px; } figcaption { font-weight: 600; font-size: 14px; }
svg { width: 100%; max-width: 720px; height: auto; display: block; }
svg text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
.scroll { overflow-x: auto; } a { color: #0b5cad; } footer { margin-top: 30px; font-size: 13px; color: var(--muted); }
@page { size: A4; margin: 14mm; }
@media print {
  body { padding: 0; max-width: none; font-size: 9.5pt; line-height: 1.35; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h1 { font-size: 17pt; } h2 { font-size: 13pt; margin-top: 14pt; } h3 { font-size: 11pt; } .overall { font-size: 11pt; }
  .summary { break-after: page; } .summary table { font-size: 8pt; line-height: 1.25; } .summary td, .summary th { padding: 2pt 6pt 2pt 0; }
  table { font-size: 8pt; } svg { max-width: 560px; } figure, tr { break-inside: avoid; } section header, caption { break-after: avoid; }
  .scroll { overflow: visible; } a { color: inherit; text-decoration: none; }
}
"""


def render(audit: Audit) -> bytes:
    """The page, UTF-8. Every text of it is escaped."""
    title = f"{audit.period.kind.words}: {audit.model}, {audit.period.name}"
    page = [
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<main>{_summary(audit)}<h2>Evidence</h2>",
        *(_section(one) for one in audit.sections),
        f"</main><footer>Written by mlrunbook at {audit.at:%Y-%m-%d %H:%M} UTC. Not enough data is no failure: nobody can tell yet. ",
        "Intervals are Wilson's; times are UTC.</footer></body></html>",
    ]
    return "".join(page).encode()


def _summary(audit: Audit) -> str:
    facts = "".join(f" · {escape(name)} {escape(value)}" for name, value in audit.facts.items())
    first = "The first audit of its kind: nothing to compare with"
    last = first if audit.before is None else f"Compared with {escape(audit.before_name)}"
    rows = []
    for group, sections in groupby(audit.sections, key=lambda s: s.group):
        if group:
            rows.append(f'<tr class="group"><th colspan="4" scope="colgroup">{escape(group)}</th></tr>')
        for one in sections:
            change = audit.change(one)
            rows.append(
                f'<tr><td class="key">{_badge(one.verdict)}</td><td class="line"><a href="#{escape(one.key)}">{escape(one.title)}</a></td>'
                f"<td>{_text(_cut(one.sentence))}{_came_of(one)}</td><td>{escape(change) or '-'}</td></tr>"
            )
    return (
        f'<div class="summary"><div class="head"><h1>{escape(audit.period.kind.words)}</h1>'
        f'<p>{escape(audit.model)} · {escape(audit.period.name)} <span class="muted">({escape(audit.period.words)})</span>{facts}</p></div>'
        f'<p class="overall">{_badge(audit.verdict)} {escape(audit.sentence)}.</p><p class="muted">{last}.</p>'
        '<table><thead><tr><th scope="col">Verdict</th><th scope="col">Line</th><th scope="col">What was found</th>'
        f'<th scope="col">Since the last</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _section(one: Section) -> str:
    charts = "".join(f"<figure><figcaption>{escape(chart.title)}</figcaption>{draw(chart)}</figure>" for chart in one.charts)
    return (
        f'<section id="{escape(one.key)}"><header><h3>{escape(one.title)}</h3>{_badge(one.verdict)}</header>'
        f"<p>{_text(_capital(one.sentence))}.{_came_of(one)}</p>{charts}{''.join(map(_table, one.tables))}</section>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows[:MOST_ROWS])
    left = len(table.rows) - MOST_ROWS
    more = f'<p class="muted">and {left} more</p>' if left > 0 else ""
    return (
        f'<div class="scroll"><table><caption>{escape(table.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"{more}</div>"
    )


def _cell(words: str) -> str:
    return f"<td{' class=key' if len(words) <= UNBROKEN else ''}>{escape(words)}</td>"


def _badge(verdict: Verdict) -> str:
    return f'<span class="verdict {verdict.value}">{verdict.words}</span>'


def _came_of(one: Section) -> str:
    said = f"Handled as {one.incident_id}. {one.note}" if one.incident_id else one.note
    return f" <strong>{escape(said.strip())}</strong>" if said.strip() else ""


def _text(words: str) -> str:
    """Escaped, with `commands` set as such."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))


def _capital(sentence: str) -> str:
    """Begun with a capital, unless a path or a figure begins it."""
    return sentence[:1].upper() + sentence[1:] if sentence.split(" ", 1)[0].rstrip(":,").isalpha() else sentence


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= MOST_WORDS else f"{sentence[: MOST_WORDS - 1].rstrip()}…"
