"""Sphinx's settings for the site: notebooks as they are committed, API from docstrings, all of it offline."""

import re
import sys
from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from fastcore.docments import docments
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(ROOT / 'settings.ini', encoding='utf-8')
settings = ini['DEFAULT']

project = settings['title']
author = settings['author']
copyright = settings['copyright']
release = settings['version']
extensions = ['myst_nb', 'sphinx.ext.autodoc']
html_theme = 'furo'
html_title = f'{project} {release}'
html_static_path = ['static']
html_css_files = ['wide.css']
html_show_sourcelink = False
html_copy_source = False
nb_execution_mode = 'off'  # outputs are those that are committed
nb_ipywidgets_js: dict = {}  # no script from elsewhere
nb_merge_streams = True
nb_render_markdown_format = 'myst'  # tables that cells show; the default, CommonMark, has none
myst_enable_extensions = ['dollarmath', 'amsmath']
myst_heading_anchors = 4
autodoc_typehints = 'signature'
autodoc_member_order = 'bysource'
python_use_unqualified_type_names = True
html_math_renderer = 'mathml'
suppress_warnings = [
    'mystnb.unknown_mime_type',
    'myst.header',  # a notebook may go from a title to a third heading
    'misc.highlighting_failure',
    'ref.python',  # two classes with a field of the same name
]


def as_rst(line: str) -> str:
    "A line of Markdown with its code spans as reStructuredText has them."
    parts = line.split('`')
    if len(parts) % 2 == 0:  # a span goes on in the next line
        parts.append('')
    spans = [f'``{part.strip()}``\\ ' if k % 2 and part.strip() else part for k, part in enumerate(parts)]
    return ''.join(part if k % 2 else part.replace('*', r'\*') for k, part in enumerate(spans))


def markdown_to_rst(app, what, name, obj, options, lines: list[str]) -> None:
    "Docstrings have Markdown's code spans; each parameter's comment becomes a line of the parameter list."
    lines[:] = [as_rst(line) for line in lines]
    if what not in ('function', 'method', 'class') or not callable(obj):
        return
    try:
        comments = docments(obj)
    except (TypeError, ValueError, OSError, AttributeError):  # no source, or a class without parameters
        return
    told = {k: comment for k, comment in comments.items() if comment and k != 'self' and 'type: ignore' not in comment}
    if told:
        lines.append('')
    for parameter, comment in told.items():
        text = as_rst(' '.join(comment.split()))
        lines.append(f':returns: {text}' if parameter == 'return' else f':param {parameter}: {text}')


def visit_math(self, node: nodes.Element) -> None:
    "A formula as MathML, which browsers draw without a script."
    display = 'block' if isinstance(node, nodes.math_block) else 'inline'
    text = node.astext()
    self.body.append(convert(re.sub(r'\\\\\s*$', '', text), display=display))
    raise nodes.SkipNode


def setup(app) -> None:
    "Adds the two functions above."
    app.connect('autodoc-process-docstring', markdown_to_rst)
    app.add_html_math_renderer('mathml', inline_renderers=(visit_math, None), block_renderers=(visit_math, None))
