"""A report as one HTML page that needs no network.

The page contains Bokeh's JavaScript, the figures and all data as JSON. Names come from files of
others: the template escapes every text, "<" does not occur in the JSON, and a policy forbids the
page to load anything.
"""

from __future__ import annotations

import json
from typing import Any

from rltransfer.errors import InputError
from rltransfer.reports.data import ReportData
from rltransfer.reports.sections import sections

MARK = '<meta name="generator" content="rltransfer report">'
"""A line of every report, by which an earlier one is known."""

MISSING = (
    "A report as HTML needs the package {name}: run `pip install 'rltransfer[report]'`, or use a "
    "name that ends with .md."
)

TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
MARK
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
 script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Transfer report</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1400px; margin: 2em auto;
       padding: 0 1em; }
h2 { border-bottom: 1px solid #ccc; margin-top: 2em; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5em 0; }
th, td { padding: 0.25em 0.7em; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #888; }
td { border-bottom: 1px solid #ddd; }
.numbers { font-size: 14px; }
.warns { background: #fff6dd; border-left: 4px solid #e0a800; padding: 0.5em 0.5em 0.5em 2em; }
.figure { min-height: 380px; }
ul { margin: 0.5em 0; padding-left: 1.4em; }
</style>
</head>
<body>
<h1>Transfer report</h1>
<p>Runs in {{ folders | join(", ") }}.</p>
<noscript><p class="warns">Figures need JavaScript; the tables have their numbers.</p></noscript>
{%- for section in sections %}
<h{{ section.level }}>{{ section.title }}</h{{ section.level }}>
{%- if section.notes %}
<ul{% if section.warns %} class="warns"{% endif %}>
{%- for note in section.notes %}
<li>{{ note }}</li>
{%- endfor %}
</ul>
{%- endif %}
{%- if section.figure in figures %}
<div class="figure" id="{{ section.figure }}"></div>
{%- endif %}
{%- if section.table %}
<div class="table{% if section.table.numbers %} numbers{% endif %}"><table>
<tr>{% for cell in section.table.head %}<th>{{ cell }}</th>{% endfor %}</tr>
{%- for row in section.table.rows %}
<tr>{% for cell in row %}<td>{{ cell | whole }}</td>{% endfor %}</tr>
{%- endfor %}
</table></div>
{%- endif %}
{%- endfor %}
<script type="application/json" id="report">{{ report | json }}</script>
<script type="application/json" id="figures">{{ figures | json }}</script>
{{ bokeh }}
<script>
"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
Promise.all(Object.entries(figures).map(([id, item]) => Bokeh.embed.embed_item(item, id)))
  .then(() => { document.documentElement.dataset.drawn = Object.keys(figures).length; });
</script>
</body>
</html>
""".replace("MARK", MARK)


def html(report: ReportData) -> str:
    """A report as a page of HTML.

    Raises:
        InputError: Bokeh or Jinja is not installed.
    """
    try:
        import jinja2
        import markupsafe
        from bokeh.embed import json_item
        from bokeh.resources import Resources
    except ImportError as error:
        raise InputError(MISSING.format(name=error.name)) from error
    from rltransfer.reports.figures import figures

    def as_json(value: Any) -> markupsafe.Markup:
        # Within a script only "</script" and "<!--" are read: without "<" there is neither.
        return markupsafe.Markup(json.dumps(value, allow_nan=False).replace("<", "\\u003c"))

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["json"] = as_json
    environment.filters["whole"] = _whole
    drawn = {name: json_item(figure) for name, figure in figures(report).items()}
    scripts = Resources(mode="inline", components=["bokeh"]).render_js()
    return environment.from_string(TEMPLATE).render(
        folders=report.folders,
        sections=[section for section in sections(report) if not section.only_text],
        figures=drawn,
        report=report.to_json(),
        bokeh=markupsafe.Markup(scripts),
    )


def _whole(text: str) -> str:
    """A cell whose lines break before an interval, not within it."""
    return text.replace(" to ", "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}")
