"""The documentation: what is on the site, what notebooks show, how long sentences are.

Nothing is built here; see `make docs`."""

import importlib.util
import json
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / 'nbs').rglob('*.ipynb'))
PROGRESS = re.compile(r'\d+%\||\d+ examples \[')
MOST_WORDS = 60  # of a sentence

# What these notebooks show is a warning itself.
SHOWN_WARNINGS = {'01_your_own_pictures.ipynb'}


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The module docs/build.py, whose pages are laid out in a folder of the tests."
    spec = importlib.util.spec_from_file_location('docs_build', ROOT / 'docs' / 'build.py')
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    build.PAGES = tmp_path_factory.mktemp('pages')
    build.stage()
    return build


def test_every_notebook_has_one_place_in_the_sidebar(site):
    listed = [page for pages in site.chapters().values() for page in pages]
    wanted = [*NOTEBOOKS, *(ROOT / 'data' / 'results').glob('*.ipynb'), *(ROOT / 'data').glob('*/README.md')]
    assert len(listed) == len(set(listed)), 'a page stands in two chapters'
    assert {p.relative_to(ROOT).as_posix() for p in wanted if '.ipynb_checkpoints' not in p.parts} <= set(listed)
    assert all((site.PAGES / page).is_file() for page in listed)


def test_every_module_has_a_page(site):
    names = {name for wing in site.modules().values() for name in wing}
    assert names == {p.stem for p in (site.PAGES / 'api').glob('seed_story.*.md')} and 'seed_story.cli' in names


def test_what_is_for_nbdev_is_not_on_the_site(site):
    cells = [
        dict(cell_type='raw', source='---'),
        dict(cell_type='code', source='#| hide\nimport os', outputs=[]),
        dict(cell_type='code', source=['#| export\n', 'def f(): ...'], outputs=[]),
        dict(cell_type='markdown', source='text'),
    ]
    assert [c['source'] for c in site.shown(dict(cells=cells))['cells']] == ['def f(): ...', 'text']


def test_links_of_pages(site):
    def relink(text):
        return site.relink(text, 'nbs/index.ipynb', {'nbs/cli.ipynb', 'nbs/repro/a.ipynb'})

    assert relink('[a](cli.ipynb#Two-Words)') == '[a](cli.ipynb#two-words)'
    assert relink('[a](https://x.org/A)') == '[a](https://x.org/A)'
    assert relink('[a](repro)') == '[a](repro/a.ipynb)'
    assert relink('[a](../data/labels)').startswith('[a](../data/labels/'), 'a folder of files alone: its first'
    assert relink('[a](../LICENSE)') == '[a](../LICENSE)' and (site.PAGES / 'LICENSE').is_file()


def test_wide_tables_are_shown_in_blocks(site):
    rows = [[f'{name}{column}' for column in range(9)] for name in 'hxy']
    lines = ['|'.join(['', *row, '']) for row in (rows[0], ['---'] * 9, *rows[1:])]
    assert site.narrowed('\n'.join(lines)) == (
        '|h0|h1|h2|h3|h4|\n|---|---|---|---|---|\n|x0|x1|x2|x3|x4|\n|y0|y1|y2|y3|y4|\n\n'
        '|h0|h5|h6|h7|h8|\n|---|---|---|---|---|\n|x0|x5|x6|x7|x8|\n|y0|y5|y6|y7|y8|\n'
    )
    rows[2][0] = rows[1][0]  # one column does not tell the rows apart: two are repeated
    lines[3] = '|'.join(['', *rows[2], ''])
    assert site.narrowed('\n'.join(lines)).count('|x0|y1|') == 2
    for kept in ('| a | b |\n|---|---|\n| 1 | 2 |\n', 'a | b', '|a|'):
        assert site.narrowed(kept) == kept


def test_dead_links_are_found(site, tmp_path):
    (tmp_path / 'a.html').write_text('<a href="b.html#here">b</a> <a href="c.html">c</a> <a href="https://x.org">x</a>')
    (tmp_path / 'b.html').write_text(
        '<p id="there">.</p><script src="https://x.org/s.js"></script><a href="a.ipynb">a</a>'
    )
    site.link_pages(tmp_path)
    assert site.dead_links(tmp_path) == [
        'a.html: b.html#here',
        'a.html: c.html',
        'b.html: https://x.org/s.js comes from elsewhere',
    ]


def test_a_table_that_is_shown_as_text_is_found(site, tmp_path):
    (tmp_path / 'a.html').write_text('<pre>| a | b |\n| --- | --- |</pre><table><tr><td>a | b</td></tr></table>')
    assert site.tables_as_text(tmp_path) == []
    (tmp_path / 'b.html').write_text('<p>| <code>a</code> | b |\n| — | — |\n| 1 | 2 |</p>')
    assert site.tables_as_text(tmp_path) == ['b.html: a table is shown as text']


def test_reproductions_are_folded_on_the_site(site):
    cells = [
        dict(cell_type='markdown', metadata={}, source='# Length\n\n> What.\n\n- skip_exec: true\n\n**Claim**'),
        dict(cell_type='code', metadata=dict(tags=['parameters']), source='a = 1', outputs=[]),
    ]
    notebook = site.folded(dict(cells=cells), 'data/results/length.ipynb')
    assert notebook['cells'][0]['source'] == '# Length (committed run)\n\n> What.\n\n**Claim**'
    assert notebook['cells'][1]['metadata']['tags'] == ['parameters', 'hide-input']


def test_pages_are_opened_in_a_browser(site, tmp_path):
    "As `make docs` does with the built site; here with three small pages, so that Sphinx is not needed."
    if not (browser := site.find_chromium()):
        pytest.skip('there is no Chromium on the path')
    (tmp_path / 'a.html').write_text('<nav>aside</nav><p>Shown <b>here</b></p><script>var hidden</script>')
    (tmp_path / 'b.html').write_text('<p id="p"></p><script>p.textContent = "asked" + location.search</script>')
    pages = {'a.html': 'Shown here', 'b.html?q=sink': 'asked?q=sink', 'c.html': 'not there'}
    assert site.opened_wrongly(tmp_path, browser, pages) == [
        f'c.html: opened in {Path(browser).name} it does not show "not there"'
    ]


def test_bibliography_has_what_is_cited():
    listed = set(re.findall(r'\[(\d{4}\.\d{4,5})\]', (ROOT / 'docs' / 'bibliography.md').read_text(encoding='utf-8')))
    cited = {
        number
        for path in [*NOTEBOOKS, *ROOT.glob('*.md')]
        for number in re.findall(r'arxiv(?:\.org/abs/|:? ?)(\d{4}\.\d{4,5})', path.read_text(encoding='utf-8'), re.I)
    }
    assert len(cited) > 5 and cited <= listed, f'add to docs/bibliography.md: {sorted(cited - listed)}'


# ---- the front page ------------------------------------------------------------------------------

README = (ROOT / 'README.md').read_text(encoding='utf-8')


def test_front_page_is_short():
    assert README.count('\n') <= 150, 'what is too long goes to nbs/results.ipynb or to another notebook, and is linked'
    headings = re.findall('^## (.*)', README, re.M)
    assert headings == [
        'A story, told by the model',
        'How it works',
        'Two commands',
        'In Python',
        'What works with which weights',
        'Results',
        'From the paper to the notebooks',
        'Developing',
    ]


def test_diagram_names_notebooks():
    [diagram] = [block for block in re.findall('```\n(.*?)```', README, re.S) if '┌' in block]
    named = re.findall(r'\d+_\w+/\d+_\w+', diagram)
    assert len(named) >= 8 and [name for name in named if not (ROOT / 'nbs' / f'{name}.ipynb').is_file()] == []
    assert len({len(line) for line in diagram.split('\n') if line.startswith('┌')} | {1}) <= 4
    assert all('multimodal attention sink' in README and word in README for word in ('glossary', 'start_here'))


@lru_cache
def made_tables(name: str) -> tuple[list[tuple[str, str]], dict]:
    """(as committed, made anew from the records) for each table that a notebook shows with `Markdown(NAME)`, and all
    that its cells define."""
    path = ROOT / 'nbs' / f'{name}.ipynb'
    cells = [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    found, names = [], {}
    for cell in cells:
        text = ''.join(cell['source'])
        if shown := re.match(r'Markdown\((\w+)\)', text):
            [output] = cell['outputs']
            found.append((''.join(output['data']['text/markdown']), names[shown[1]]))
        elif not re.search(r'\bpipe\b|contact_sheet', text):
            exec(compile(text, f'{path.name}, {cell["id"]}', 'exec'), names)
    return found, names


@pytest.mark.parametrize('name, tables', [('index', 2), ('results', 7)])
def test_numbers_of_tables_are_those_of_records(name, tables):
    "README's tables are the index notebook's, see `test_readme_is_the_index_notebook`."
    found, _ = made_tables(name)
    assert len(found) == tables
    for committed, now in found:
        assert committed.count('\n') >= 5 and len(re.findall(r'\d', committed)) > 20
        assert committed == now, f'run nbs/{name}.ipynb, then make readme: a record has other numbers'


def test_a_figure_that_no_record_holds_is_refused():
    of = made_tables('index')[1]['of']
    assert re.fullmatch(r'\d+\.\d % \[.*\]¹?', of('ending/tiny/known_25', 'looks/pages 11-25'))
    assert of('stage3/tiny/before', 'regressed/FID', '').startswith('0.')
    assert of('ending_positions/480/known_25', 'looks/pages 11-25').endswith('¹'), 'measured with earlier weights'
    assert not of('lengths/tiny/visualise/dense', 'features FID, last', '').endswith('¹')
    with pytest.raises(ValueError, match='holds no figure luck'):
        of('ending/tiny/known_25', 'luck')


def table_below(heading: str) -> list[list[str]]:
    "The cells of README's table below a heading, without its first two lines."
    [part] = re.findall(rf'^## {heading}\n(.*?)(?=^## |\Z)', README, re.M | re.S)
    lines = [line for line in part.split('\n') if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines[2:]]


def test_results_have_a_verdict_and_an_experiment():
    rows = table_below('Results')
    assert [row[0] for row in rows if row[0]] == ['**reproduced**', '**not reproduced**', '**new**']
    assert [row for row in rows if 'ipynb' not in row[-1] and not row[-2].startswith('not tried')] == []


def test_the_map_has_all_of_the_paper():
    "Each section with a subject, figure and table of `paper_contents.json` stands in README's map, with a notebook."
    paper = json.loads((ROOT / 'tests' / 'paper_contents.json').read_text(encoding='utf-8'))
    rows = table_below('From the paper to the notebooks')
    named = ' '.join(row[0] for row in rows)
    for kind in ('section', 'appendix', 'figure', 'table'):
        wanted = [number for number in paper[kind] if kind != 'section' or '.' in number]
        found = [n for group in re.findall(rf'{kind}s? ([\w.]+(?: and [\w.]+)*)', named) for n in group.split(' and ')]
        assert wanted and sorted(wanted) == sorted(set(found)), f'{kind}: the map names {sorted(set(found))}'
    assert all(len(row) == 4 and row[3] and '.ipynb' in row[1] and 'repro/' in row[2] for row in rows)


def test_glossary_is_reached_and_defines_each_word_once():
    text = (ROOT / 'nbs' / 'glossary.ipynb').read_text(encoding='utf-8')
    terms = re.findall(r'"\| \*\*(.*?)\*\* \| (.*?) \| \[\w+\]\(\w', text)
    names = [name.strip() for term, _ in terms for name in term.replace('*', '').split(',')]
    assert len(terms) > 50 and len(set(names)) == len(names)
    needed = {'looks kept', 'gap', 'told', 'given', 'plain', 'max_distance', 'anchor', 'slot', 'oracle', 'evict'}
    assert needed <= set(names)
    for page in ('index', 'start_here'):
        assert '(glossary.ipynb)' in (ROOT / 'nbs' / f'{page}.ipynb').read_text(encoding='utf-8')


# ---- sentences and outputs -----------------------------------------------------------------------


def long_sentences(text: str) -> list[str]:
    "The sentences of Markdown that have too many words; code, formulas, tables and link targets are not counted."
    text = re.sub(r'```.*?```|\$\$.*?\$\$', '\n\n', text, flags=re.S)
    text = re.sub(r'^\s*[|#].*$', '', text, flags=re.M)
    text = re.sub(r'\]\([^)]*\)', ']', text)
    blocks = re.split(r'\n\s*\n|\n(?=\s*(?:[-*>]|\d+\.) )', text)
    sentences = [s for block in blocks for s in re.split(r'(?<=[.!?])["”)\]*]*\s+', block)]
    return [s for s in sentences if len(re.findall(r"\w[\w'’-]*", s)) > MOST_WORDS]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / 'nbs').as_posix())
def test_sentences_are_short(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    found = [s for c in cells if c['cell_type'] == 'markdown' for s in long_sentences(''.join(c['source']))]
    assert not found, f'more than {MOST_WORDS} words: {found[-1][:120]} …'


def test_what_a_long_sentence_is():
    long = 'word ' * 61
    assert long_sentences(f'Short one. {long}. And ```python\n{long}``` more.\n\n| {long} |\n# {long}') == [f'{long}.']
    assert long_sentences('word ' * 60) == [] and long_sentences(f'{"word " * 40}\n- {"word " * 40}') == []


def test_findings_are_what_the_records_say():
    "Tables that notebooks and executed copies make of committed records."
    done = subprocess.run([sys.executable, 'docs/findings.py', '--check'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def noise(notebook: dict) -> list[str]:
    "Progress bars and warnings among the outputs of a notebook."
    outputs = [o for c in notebook['cells'] for o in c.get('outputs', []) if o['output_type'] == 'stream']
    texts = [(o['name'], ''.join(o['text'])) for o in outputs]
    return [text for name, text in texts if name == 'stderr' or PROGRESS.search(text)]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / 'nbs').as_posix())
def test_no_warning_and_no_progress_bar_is_committed(path):
    found = noise(json.loads(path.read_text(encoding='utf-8')))
    assert not found or path.name in SHOWN_WARNINGS, f'clear these outputs: {found[0][:80]!r}'


def test_what_noise_is():
    def one(name, text):
        return dict(cells=[dict(outputs=[dict(output_type='stream', name=name, text=[text])])])

    assert (
        noise(one('stderr', 'UserWarning'))
        and noise(one('stdout', 'Loading:  50%|###'))
        and not noise(one('stdout', '50 %'))
    )


# Notebooks that show a value after their definitions; one that does is entered here, and none leaves.
SHOWING = {
    '10_building/01_needs.ipynb',
    '10_building/03_likeness.ipynb',
    '10_building/05_subtitles.ipynb',
    '10_building/06_material.ipynb',
    '10_building/07_endpoint.ipynb',
    '10_building/08_asking.ipynb',
    '10_building/09_captions.ipynb',
    '10_building/10_writing.ipynb',
    '10_building/11_batches.ipynb',
    '10_building/12_build.ipynb',
    '10_building/13_plan.ipynb',
    '1_story/01_format.ipynb',
    '1_story/02_storybook.ipynb',
    '1_story/03_book.ipynb',
    '1_story/04_files.ipynb',
    '1_story/05_packed.ipynb',
    '1_story/06_values.ipynb',
    '1_story/07_weights.ipynb',
    '1_story/08_arguments.ipynb',
    '1_story/09_processes.ipynb',
    '1_story/10_pictures.ipynb',
    '1_story/11_lines.ipynb',
    '1_story/12_sources.ipynb',
    '2_storyland/01_cast.ipynb',
    '2_storyland/02_plot.ipynb',
    '2_storyland/03_art.ipynb',
    '2_storyland/04_world.ipynb',
    '2_storyland/05_oracle.ipynb',
    '2_storyland/drawing/01_canvas.ipynb',
    '2_storyland/drawing/02_props.ipynb',
    '2_storyland/drawing/03_figures.ipynb',
    '2_storyland/drawing/04_faces.ipynb',
    '2_storyland/drawing/05_creatures.ipynb',
    '2_storyland/drawing/06_scenery.ipynb',
    '2_storyland/drawing/07_outdoors.ipynb',
    '2_storyland/drawing/08_places.ipynb',
    '2_storyland/writing/00_names.ipynb',
    '2_storyland/writing/01_words.ipynb',
    '2_storyland/writing/02_moods.ipynb',
    '2_storyland/writing/03_events.ipynb',
    '2_storyland/writing/04_troubles.ipynb',
    '2_storyland/writing/05_together.ipynb',
    '2_storyland/writing/06_uses.ipynb',
    '2_storyland/writing/07_things.ipynb',
    '2_storyland/writing/08_facts.ipynb',
    '2_storyland/writing/09_outline.ipynb',
    '2_storyland/writing/10_plan.ipynb',
    '2_storyland/writing/11_prose.ipynb',
    '2_storyland/writing/12_reader.ipynb',
    '2_storyland/writing/13_pages.ipynb',
    '2_storyland/writing/14_acts.ipynb',
    '3_models/01_sequence.ipynb',
    '3_models/02_resampler.ipynb',
    '3_models/03_visual_tokenizer.ipynb',
    '3_models/04_attention.ipynb',
    '3_models/05_losses.ipynb',
    '3_models/06_lora.ipynb',
    '3_models/07_mllm.ipynb',
    '3_models/08_devices.ipynb',
    '3_models/09_detokenizer.ipynb',
    '3_models/10_features.ipynb',
    '3_models/11_backbone.ipynb',
    '3_models/12_fetch.ipynb',
    '3_models/13_adapter.ipynb',
    '3_models/14_presets.ipynb',
    '3_models/15_fingerprints.ipynb',
    '3_models/16_components.ipynb',
    '3_models/17_kernels.ipynb',
    '4_sinks/01_policies.ipynb',
    '4_sinks/02_rotary.ipynb',
    '4_sinks/03_cache_names.ipynb',
    '4_sinks/04_ledger.ipynb',
    '4_sinks/05_cache.ipynb',
    '4_sinks/06_static_cache.ipynb',
    '4_sinks/07_memory.ipynb',
    '4_sinks/08_internals.ipynb',
    '4_sinks/09_calls.ipynb',
    '4_sinks/10_survey.ipynb',
    '5_pipeline/01_sampling.ipynb',
    '5_pipeline/02_narrate.ipynb',
    '5_pipeline/03_reading.ipynb',
    '5_pipeline/04_words_first.ipynb',
    '5_pipeline/05_folders.ipynb',
    '5_pipeline/06_story_pipeline.ipynb',
    '5_pipeline/07_loading.ipynb',
    '5_pipeline/08_tell.ipynb',
    '5_pipeline/09_openings.ipynb',
    '5_pipeline/10_graphs.ipynb',
    '5_pipeline/11_adapters.ipynb',
    '5_pipeline/12_many_stories.ipynb',
    '5_pipeline/13_books.ipynb',
    '5_pipeline/14_imports.ipynb',
    '6_training/00_options.ipynb',
    '6_training/01_loop.ipynb',
    '6_training/02_checkpoints.ipynb',
    '6_training/03_sharding.ipynb',
    '6_training/04_watching.ipynb',
    '6_training/05_page_store.ipynb',
    '6_training/06_story_stream.ipynb',
    '6_training/07_eviction.ipynb',
    '6_training/08_stages.ipynb',
    '6_training/09_runs.ipynb',
    '6_training/10_footprint.ipynb',
    '7_evaluation/01_metrics.ipynb',
    '7_evaluation/02_generate.ipynb',
    '7_evaluation/03_lengths.ipynb',
    '7_evaluation/04_attention_maps.ipynb',
    '7_evaluation/05_perplexity.ipynb',
    '7_evaluation/06_sweeps.ipynb',
    '7_evaluation/07_ablations.ipynb',
    '7_evaluation/08_pictures.ipynb',
    '7_evaluation/09_texts.ipynb',
    '8_records/01_estimates.ipynb',
    '8_records/02_record.ipynb',
    '8_records/03_reports.ipynb',
    '8_records/04_executed.ipynb',
    '8_records/05_reproduce.ipynb',
    '9_released/00_files.ipynb',
    '9_released/01_names.ipynb',
    '9_released/02_convert.ipynb',
    'cli.ipynb',
    'start_here.ipynb',
}


def visible(notebook: dict) -> int:
    "How many cells of a notebook show something; hidden cells are not counted."
    code = [c for c in notebook['cells'] if c['cell_type'] == 'code']
    return sum(bool(c['outputs']) for c in code if not ''.join(c['source']).startswith('#| hide'))


def test_notebooks_show_what_they_define():
    counts = {p.relative_to(ROOT / 'nbs').as_posix(): visible(json.loads(p.read_text('utf-8'))) for p in NOTEBOOKS}
    assert {name: counts[name] for name in SHOWING if counts[name] < 8} == {}, 'at least eight cells show something'
    assert sum(counts.values()) > 1_150, 'fewer values are shown than before'
