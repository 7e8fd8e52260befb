"""Self-contained HTML pages: one file, no network, light and dark mode, readable without JavaScript.

These are pure functions from values to strings. Each function escapes its text arguments, so results can be joined
safely. Only arguments named ``body`` or ``cells`` are already HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from septa.report.templating import render_fragment, replace_unprintable

Color = tuple[str, str]
"""A CSS colour for light pages and one for dark pages."""

BLUE: Color = ("#0a6ea8", "#5ab4ea")
ORANGE: Color = ("#c4560a", "#f7a35c")
GREEN: Color = ("#0b8262", "#3ecf9f")
INK: Color = ("#17212b", "#e5ebf1")

_MAX_NOTES = 12


def escape_html(value: object) -> str:
    """Escape a value for HTML, between tags and in quoted attributes.

    Control characters, lone surrogates (from undecodable file names) and marks that reverse the writing direction
    become U+FFFD, so a hostile name can neither break the page nor disguise itself.

    Examples
    --------
    >>> print(escape_html('<b>"x".png'))
    &lt;b&gt;&quot;x&quot;.png
    """
    return html.escape(replace_unprintable(str(value)), quote=True)


def format_number(value: float) -> str:
    """Format a number with four significant digits and separated thousands; ``–`` for NaN and infinities.

    Examples
    --------
    >>> format_number(0.91234), format_number(1e-5), format_number(2000.0) == "2\u202f000", format_number(float("nan"))
    ('0.9123', '1e-5', True, '–')
    """
    if not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-3 <= abs(value) < 1e7:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.4g}"


def adapt_color(rgb: tuple[int, int, int]) -> Color:
    """Darken or lighten an RGB colour (0..255) until it is legible as a line on a light and on a dark page.

    Examples
    --------
    >>> adapt_color((0, 90, 160))[0], adapt_color((240, 228, 66))[1]
    ('#005aa0', '#f0e442')
    """
    light, dark = (float(rgb[0]), float(rgb[1]), float(rgb[2])), (float(rgb[0]), float(rgb[1]), float(rgb[2]))
    while _luminance(light) > 0.30:
        light = (light[0] * 0.95, light[1] * 0.95, light[2] * 0.95)
    while _luminance(dark) < 0.18:
        dark = (dark[0] + (255 - dark[0]) * 0.08, dark[1] + (255 - dark[1]) * 0.08, dark[2] + (255 - dark[2]) * 0.08)
    return _hex(light), _hex(dark)


def render_swatch(rgb: tuple[int, int, int]) -> str:
    """Return a small square of exactly this RGB colour (0..255), for legends of images."""
    return f'<span class="swatch" style="background:{_hex(rgb)}"></span>'


def render_png(png: bytes, alt: str, width: int, height: int) -> Markup:
    """Return an ``<img>`` with an embedded PNG file; small images are enlarged without smoothing.

    Parameters
    ----------
    png
        Contents of a PNG file.
    alt
        Description of the image for screen readers, plain text.
    width, height
        Size in pixels. Very long images are framed rather than stretched.
    """
    shape = min(max(width / height, 0.6), 3.0)
    return render_fragment(
        "image.html",
        small=max(width, height) < 160,
        data=base64.b64encode(png).decode("ascii"),
        alt=alt,
        width=width,
        height=height,
        shape=f"{shape:.3f}",
    )


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> str:
    """Return a table.

    Parameters
    ----------
    head
        Column titles, plain text.
    rows
        HTML of the cells, one sequence per row, as long as ``head``.
    names
        Number of columns from the left that hold words. The others hold numbers and are right-aligned.
    """
    marked = [[Markup(cell) for cell in cells] for cells in rows]
    if any(len(cells) != len(head) for cells in marked):
        raise ValueError(f"every row must have {len(head)} cells")
    return str(render_fragment("table.html", head=head, rows=marked, names=names))


def render_cards(entries: Sequence[tuple[str, str, str]]) -> str:
    """Return a row of cards with the first one emphasised; empty without entries.

    Parameters
    ----------
    entries
        Plain text of each card: its title, its value in large type, and a line below.
    """
    return str(render_fragment("cards.html", entries=entries)) if entries else ""


def render_notes(lines: Sequence[str], *, hints: bool = False) -> str:
    """Return a list of remarks, collapsed after the twelfth; empty without lines.

    Parameters
    ----------
    lines
        Plain text.
    hints
        True to highlight them.
    """
    return str(render_fragment("notes.html", lines=lines, hints=hints, most=_MAX_NOTES)) if lines else ""


def render_sections(title: str, lead: str, top: Sequence[str], parts: Mapping[str, str]) -> str:
    """Return the body of a page: a heading with links, an introduction, and titled sections.

    Parameters
    ----------
    title, lead
        Plain text of the heading and of the line below it.
    top
        HTML between the heading and the sections.
    parts
        Title of each section, plain text, to its HTML. The first words of titles differ. Empty sections are omitted.
    """
    shown = [(name, name.split()[0].lower(), Markup(content)) for name, content in parts.items() if content]
    return str(
        render_fragment("sections.html", title=title, lead=lead, top=[Markup(part) for part in top], shown=shown)
    )


def render_page(title: str, body: str, *, tooltips: bool = True) -> str:
    """Return a complete HTML document with the shared style.

    A content security policy in the page forbids every connection, so the page never loads anything.

    Parameters
    ----------
    title
        Plain text.
    body
        HTML of the ``<main>`` element.
    tooltips
        True to add the script that shows chart values at the pointer. Without it, no script can run.
    """
    policy, script = "default-src 'none'; img-src data:; style-src 'unsafe-inline'", ""
    if tooltips:
        digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
        policy, script = f"{policy}; script-src 'sha256-{digest}'", _SCRIPT
    page = render_fragment(
        "page.html",
        title=title,
        body=Markup(body),
        policy=Markup(policy),
        style=Markup(_STYLE),
        script=Markup(script),
    )
    return f"{page}\n"


def _hex(rgb: Sequence[float]) -> str:
    return "#" + "".join(f"{min(max(round(value), 0), 255):02x}" for value in rgb)


def _luminance(rgb: Sequence[float]) -> float:
    """Compute the relative luminance of an sRGB colour, 0 to 1 (WCAG 2)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (value / 255 for value in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


_STYLE = """
:root{--page:#f4f6f8;--card:#fff;--ink:#17212b;--soft:#5a6876;--line:#e2e7ec;--accent:#0a6ea8;--code:#f7f9fa;
--warn:#8a5a00;--warnbg:#fff6e0;--bad:#b3261e;--good:#22693f;
--shadow:0 1px 2px #0f1e2d12,0 2px 10px #0f1e2d0a}
@media (prefers-color-scheme:dark){:root{--page:#0e1318;--card:#161d25;--ink:#e5ebf1;--soft:#95a3b2;--line:#27313c;
--accent:#5ab4ea;--code:#10161c;--warn:#f2c66d;--warnbg:#2b2413;--bad:#ff8a80;--good:#7fd09b;
--shadow:none}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1160px;margin:0 auto;padding:36px 20px 60px}
header{display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-end;justify-content:space-between;margin-bottom:22px}
h1{font-size:27px;line-height:1.2;margin:0;font-weight:650;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{font-size:18px;margin:38px 0 12px;font-weight:650;letter-spacing:-.01em}
p{margin:6px 0}.soft,header p,figcaption i{color:var(--soft)}figcaption i{font-size:12px}
nav{font-size:14px;display:flex;flex-wrap:wrap;gap:2px 16px}a{color:var(--accent);text-decoration:none}
a:hover{text-decoration:underline}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px}
.card,.chart,.panel,.box{background:var(--card);border:1px solid var(--line);border-radius:10px;
box-shadow:var(--shadow)}
.card{padding:13px 16px}.card p{margin:0;font-size:13px;color:var(--soft)}
.card .big{font-size:25px;line-height:1.3;font-weight:650;color:var(--ink);letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.card.first{border-color:var(--accent);box-shadow:inset 3px 0 var(--accent)}.card.first .big{color:var(--accent)}
.notes{list-style:none;margin:14px 0 0;padding:9px 16px;border-left:3px solid var(--line);color:var(--soft);
font-size:14px}
.hints{background:var(--warnbg);color:var(--warn);border-color:var(--warn);border-radius:0 8px 8px 0}
.notes li{margin:3px 0;overflow-wrap:anywhere}
.error{color:var(--bad)}.warning{color:var(--warn)}.fine{color:var(--good)}
.verdict{margin:0 0 14px;padding:7px 16px;border-left:3px solid;border-radius:0 8px 8px 0;background:var(--card);
font-weight:600}
.mark{border:1px solid;border-radius:99px;padding:0 8px;font-size:12px;font-weight:600}
.path{min-width:13rem;overflow-wrap:anywhere;font:12.8px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.charts{display:grid;grid-template-columns:repeat(6,1fr);gap:12px}.chart{grid-column:span 2}
.chart.half,.half>.chart{grid-column:span 3}.half,.third{display:contents}
figure{margin:0}.chart{padding:12px 14px 8px;min-width:0}.chart svg{display:block;width:100%;height:auto;margin-top:4px}
.chart figcaption{display:flex;flex-wrap:wrap;gap:2px 12px;align-items:baseline;font-size:14px}
.chart figcaption>span{display:flex;flex-wrap:wrap;gap:0 13px;font-size:12.5px;color:var(--soft);margin-left:auto}
.chart figcaption>span b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.c{--c:var(--l)}@media (prefers-color-scheme:dark){.c{--c:var(--d)}}
.key::before{content:"";display:inline-block;width:14px;height:3px;border-radius:2px;background:var(--c);
margin-right:6px;vertical-align:middle}
svg text{font-size:11px;fill:var(--soft);font-variant-numeric:tabular-nums}
svg .y,svg .end{text-anchor:end}svg .x{text-anchor:middle}svg .x.end{text-anchor:end}
svg .grid{stroke:var(--line);stroke-width:1}
svg polyline{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
svg .faint polyline{stroke-width:1;opacity:.32}svg .dot{fill:var(--c)}
svg .ring{fill:none;stroke:var(--ink);stroke-width:1.3}
.at rect{fill:transparent}.at line{stroke:var(--soft);stroke-width:1}.at line,.at .dot{opacity:0;pointer-events:none}
.at:hover line{opacity:.5}.at:hover .dot{opacity:1;stroke:var(--card);stroke-width:1}
.tip{position:fixed;z-index:9;pointer-events:none;white-space:pre;background:var(--ink);color:var(--card);
font-size:12.5px;line-height:1.45;padding:5px 9px;border-radius:6px;font-variant-numeric:tabular-nums}
.box{padding:6px 16px}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{padding:7px 14px 7px 0;text-align:left;vertical-align:top}
th{font-weight:600;font-size:13px;color:var(--soft);white-space:nowrap}
tbody tr{border-top:1px solid var(--line)}td:first-child{overflow-wrap:anywhere;min-width:110px}
td.n,th.n{text-align:right;padding:7px 0 7px 18px;font-variant-numeric:tabular-nums;white-space:nowrap}
td small{color:var(--soft);font-size:12.5px;margin-left:5px}
.span{display:inline-block;position:relative;width:110px;height:10px;margin-right:10px;border-radius:5px;
background:var(--line);vertical-align:middle;overflow:hidden}
.span i,.span b{position:absolute;top:0;bottom:0}.span i{background:var(--accent);opacity:.4;border-radius:5px}
.share i{left:0;opacity:1}
.span b{width:3px;margin-left:-1.5px;background:var(--accent)}
.swatch{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px;
box-shadow:inset 0 0 0 1px #8885}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:13.5px;color:var(--soft);margin-bottom:6px}
.legend b{font-weight:600;min-width:70px}.legend+.panel{margin-top:10px}
.panel{padding:10px 14px 14px;margin-bottom:12px;break-inside:avoid}
.panel h3{display:flex;flex-wrap:wrap;gap:2px 12px;margin:0 0 8px;font-size:14px;font-weight:600;overflow-wrap:anywhere}
.panel h3 span{color:var(--soft);font-weight:400;margin-left:auto;font-variant-numeric:tabular-nums}
.four{display:grid;grid-template-columns:repeat(4,1fr);gap:10px}
.four figcaption{font-size:12.5px;color:var(--soft);margin-top:3px}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:14px}
.tiles .panel{margin:0;padding:10px}.tiles img{height:190px}
.tiles figcaption{display:flex;flex-wrap:wrap;gap:2px 8px;align-items:center;margin-top:7px;font-size:13px}
.tiles figcaption b{font-weight:600;overflow-wrap:anywhere}.side{margin-left:auto;font-size:12px;color:var(--soft)}
.blank{display:grid;place-items:center;height:190px;border-radius:5px;background:var(--code);color:var(--soft)}
img{display:block;width:100%;height:auto;object-fit:contain;border-radius:5px;background:var(--code)}
.pixels{image-rendering:pixelated}
pre{margin:0;padding:14px 16px;overflow-x:auto;font:12.8px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
background:var(--code);border:1px solid var(--line);border-radius:10px;tab-size:2}
pre.wrap{white-space:pre-wrap;overflow-wrap:anywhere}pre .why{color:var(--soft)}pre .top{color:var(--accent)}
details{margin-top:12px}summary{cursor:pointer;color:var(--accent);font-size:14px}
details[open] summary{margin-bottom:8px}
.two{display:grid;grid-template-columns:2fr 1fr;gap:12px 24px;align-items:start}.two>*{min-width:0}
.two td{overflow-wrap:anywhere}
footer{margin-top:40px;color:var(--soft);font-size:13px}
@media (max-width:820px){.chart,.half>.chart{grid-column:1/-1}.two{grid-template-columns:1fr}
.four{grid-template-columns:1fr 1fr}main{padding-top:22px}}
@media print{body{background:#fff}nav,.at{display:none}}
"""

_SCRIPT = """(()=>{const tip=document.createElement("div");
tip.className="tip";tip.hidden=true;document.body.append(tip);
for(const g of document.querySelectorAll(".at")){const title=g.querySelector("title"),words=title.textContent;
title.remove();g.addEventListener("pointermove",e=>{tip.textContent=words;tip.hidden=false;
const w=tip.offsetWidth,h=tip.offsetHeight;
tip.style.left=(e.clientX+16+w>innerWidth?e.clientX-w-12:e.clientX+16)+"px";
tip.style.top=Math.max(4,Math.min(e.clientY-h/2,innerHeight-h-4))+"px"});
g.addEventListener("pointerleave",()=>{tip.hidden=true})}})()"""
