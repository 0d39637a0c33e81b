"From pictures and video to a StoryStream folder: by hand, and by a model behind an address that answers badly."

import base64
import json
import os
import re
import threading
import time
import wave
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kills import contents, killed_at
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from seed_story import cli
from seed_story.building.asking import Malformed, ask_until_sound, read_page_texts
from seed_story.building.batches import Telling
from seed_story.building.build import BuildOptions, build_data
from seed_story.building.endpoint import Answer, Chat, Endpoint, EndpointError, Sender, read_completion
from seed_story.story.files import claim
from seed_story.story.format import read_stories

KEY = 'sk-toy-0123456789'


def draw(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        Image.new('RGB', (64, 48), (number * 9 % 256, 0, 99)).save(folder / f'{number}.png')
    return folder


# ---- by hand -------------------------------------------------------------------------------------


def test_pictures_and_texts_become_stories(tmp_path, capsys):
    drawings = draw(tmp_path / 'drawings', 12)
    texts = tmp_path / 'texts.txt'
    texts.write_text('\n'.join(f'Page {n}.' for n in range(1, 13)))
    built = ['data', 'build', str(drawings), '--out', str(tmp_path / 'data'), '--pages', '6']
    assert cli.run(built) == 0 and 'captions.html' in capsys.readouterr().out
    assert cli.run([*built, '--captions', str(texts)]) == 0
    assert cli.run(['data', 'check', str(tmp_path / 'data')]) == 0
    assert '2 stories are sound, 0 bad' in capsys.readouterr().out
    assert [[p.text for p in story][0] for story in read_stories(tmp_path / 'data')] == ['Page 1.', 'Page 7.']
    assert not list(tmp_path.rglob('*.lock')) and not list(tmp_path.rglob('*.part'))


def test_the_sheet_in_a_browser(browser, tmp_path):
    "It opens offline with every picture, keeps what is typed, and saves what --captions reads."
    drawings = draw(tmp_path / 'drawings', 6)
    build_data(drawings, tmp_path / 'data')
    sheet = (tmp_path / 'data' / 'work' / 'captions.html').as_uri()
    browser.open(sheet)
    browser.wait('[...document.images].every(i => (i.loading = "eager", i.complete) && i.naturalWidth === 48)')
    browser.eval("""for (const [k, f] of fields.entries()) { f.value = k ? 'Page <' + k + '>.' : ''; f.oninput() }""")
    browser.open(sheet)  # again
    assert browser.eval('document.getElementById("count").textContent') == '5 of 6 written'
    saved = browser.eval("""new Promise(done => {
        URL.createObjectURL = blob => { blob.text().then(done); return '#' }
        document.getElementById('save').click() })""")
    (tmp_path / 'captions.json').write_text(saved)
    report = build_data(drawings, tmp_path / 'data', captions=tmp_path / 'captions.json')
    assert [page.text for page in next(read_stories(report.path))] == [f'Page <{k}>.' for k in range(1, 6)]


def test_two_builds_do_not_share_a_folder(tmp_path, capsys):
    drawings = draw(tmp_path / 'drawings', 6)
    with claim(tmp_path / 'data' / 'work'):
        assert cli.run(['data', 'build', str(drawings), '--out', str(tmp_path / 'data')]) == 2
    assert 'is being written by process' in capsys.readouterr().err


def test_another_data_set_stays(tmp_path, capsys):
    drawings = draw(tmp_path / 'drawings', 6)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'stories.jsonl').write_text('of somebody')
    assert cli.run(['data', 'build', str(drawings), '--out', str(tmp_path / 'data')]) == 2
    assert 'not of this build' in capsys.readouterr().err and len(contents(tmp_path / 'data')) == 1


LOCKED = zlib.decompress(
    base64.b85decode(  # a PDF of an empty page, with a password
        'c-oCo%Wm5+5WMp%_TpnhQhWn~4^3jAXp0z5+DnkbiVs(XAqBDwB>l-'
        'A`UmZgbgi_B5cg041jN~y+2zh+eX)8Y&lFqy{Pq0@lOUjPzOuSzd_DB(5c2?aZj`jbY79%ZT(aDyBd3~iZyxV6@HKApp7Hbk(2XD'
        '&f8VA(+=3?J2JU83bs{~-5qJHTJ$b;<dovU0fA(U0llT2$h@_wj(fP-mT726-'
        'P+M^(rX$7ExjUK<nMQl<Zf5SEp(0yQjDN`8cKiae@+1UZ1s$xb0+m<oZlt~N>k+$zLt^|2YLQJvRf8()?46D(7K}|UMoM%Fqt3Bv'
        'lD8(sq>{Fkvr-4?uqnx9O~ZeJ+IjRC(HL2bx2|cNjj_-rNhA#o(-'
        'fTzwQ$CxmR1WvcUww9A%&j@^f2VY1Xw1XKd{Cq0|lNjNspf@-3w;I2_~gK#jHEQDl1>Galm$$hiR|Z?YB&$@J-'
        '*3pr!!$yRP&g|NLK2WOYUtOY}O0Ch4Grh$us&Lo(jebF1b5P$=ljE)I|PBbdKQ??)WQX(8HKwpd(Vt=Ml~x5UQ'
    )
)


def archive(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr(name, b'no picture')
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def filmed(path: Path, scenes: list[int]) -> Path:
    "A video of five seconds a scene, each a still picture of its own; 0: black."
    av = pytest.importorskip('av')
    import numpy as np

    with av.open(str(path), 'w') as file:
        stream = file.add_stream('mpeg4', rate=2)
        stream.width, stream.height, stream.pix_fmt = 160, 120, 'yuv420p'
        for scene in scenes:
            blocks = np.random.default_rng(scene).integers(0, 255, (6, 8, 3)) * bool(scene)
            still = np.kron(blocks, np.ones((20, 20, 1))).astype(np.uint8)
            for _ in range(10):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(still, format='rgb24')))
        file.mux(stream.encode())
    return path


def sound(path: Path) -> Path:
    "A file of silence."
    with wave.open(str(path), 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return path


def first_bytes(path: Path, size: int) -> Path:
    "The first bytes of a file."
    return written(path, path.read_bytes()[:size])


@pytest.mark.parametrize(
    'make, said, needs',
    [
        (lambda p: draw(p / 'few', 3), '3 pictures are too few for a story', 'json'),
        (lambda p: draw(p / 'empty', 0), 'holds no picture', 'json'),
        (lambda p: p / 'missing', 'no such file or folder', 'json'),
        (lambda p: archive(p / 'a.cbz', '../../out.png'), 'has a name that leaves the archive', 'json'),
        (lambda p: archive(p / 'b.cbz', 'page.png'), "'page.png' is not an image", 'json'),
        (lambda p: written(p / 'a.cbr', b'Rar!'), 'packed with RAR', 'json'),
        (lambda p: written(p / 'a.pdf', LOCKED), 'is locked with a password', 'pypdfium2'),
        (lambda p: written(p / 'a.mp4', b'no video ' * 99), 'is no video that can be read (Invalid data', 'av'),
        (lambda p: filmed(p / 'black.avi', [0]), 'shows nothing, all of it is of one colour', 'av'),
        (lambda p: filmed(p / 'still.avi', [5]), 'still.avi gives 1 different picture, a story has 5', 'av'),
        (lambda p: sound(p / 'sound.wav'), 'has no video stream, only sound', 'av'),
        (lambda p: first_bytes(filmed(p / 'cut.avi', [1, 2, 3]), 600), 'cut.avi is ', 'av'),
    ],
)
def test_bad_material_is_one_line(make, said, needs, tmp_path, capsys):
    pytest.importorskip(needs)
    source = make(tmp_path)
    assert cli.run(['data', 'build', str(source), '--out', str(tmp_path / 'data')]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count('\n') == 1
    assert not (tmp_path / 'data').exists() or not list((tmp_path / 'data').rglob('*.png'))


# ---- by a model ----------------------------------------------------------------------------------


def said(content, finish='stop', **more) -> dict:
    message = dict(role='assistant', content=content)
    return dict(model='toy', choices=[dict(message=message, finish_reason=finish)], usage=USAGE, **more)


USAGE = dict(prompt_tokens=100, completion_tokens=10)


def answer_to(body: dict) -> dict:
    "What a model would say: as many texts as it is asked for, or what a picture shows."
    words = body['messages'][0]['content'][0]['text']
    count = re.search(r'exactly (\d+) strings', words)
    texts = [f'Text {k} of this story.' for k in range(1, int(count[1]) + 1)] if count else []
    return said(json.dumps(texts) if count else 'A bear is at a river.')


class Server(ThreadingHTTPServer):
    "Answers with what `script` holds, one after the other, then as a model would; keeps what it was asked."

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.script = []
        self.bodies = []
        self.keys = set()
        self.url = f'http://127.0.0.1:{self.server_port}/v1'

    def handle_error(self, request, client_address):
        "A client that was killed is none."


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['content-length'])))
        self.server.bodies.append(body)
        self.server.keys.add(self.headers.get('authorization'))
        reply = self.server.script.pop(0) if self.server.script else answer_to(body)
        if callable(reply):
            return reply(self)
        status, headers, data = reply if isinstance(reply, tuple) else (200, {}, json.dumps(reply))
        self.send(status, headers, data.encode())

    def send(self, status, headers, data, length=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('content-length', str(length or len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        "Nothing."


@pytest.fixture
def server(monkeypatch):
    pytest.importorskip('httpx')
    monkeypatch.setenv('OPENAI_API_KEY', KEY)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setattr('seed_story.building.endpoint.random.uniform', lambda low, high: 0)  # no wait
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def cut(handler):
    "An answer of which half comes."
    handler.send(200, {}, json.dumps(said('A bear.')).encode()[:40], length=500)


def hang_up(handler):
    handler.connection.close()


def slowly(handler):
    time.sleep(1.2)
    handler.send(200, {}, json.dumps(said('["a text", "b text"]')).encode())


QUESTION = [dict(role='user', content=[dict(type='text', text='exactly 2 strings')])]
TWO = ['Text 1 of this story.', 'Text 2 of this story.']


def ask(server, folder, timeout=30.0) -> tuple[list[str], Chat]:
    sender = Sender(Endpoint(server.url, 'toy', timeout=timeout, tries=4))
    chat = Chat(folder, 'toy', sender)
    try:
        return ask_until_sound(chat, QUESTION, lambda answer: read_page_texts(answer, 2)), chat
    finally:
        sender.close()


@pytest.mark.parametrize(
    'reply',
    [
        (429, {}, 'busy'),
        (429, {'retry-after': '0.05'}, '{"error": {"message": "slower"}}'),
        (500, {}, '<html>oops'),
        (503, {'retry-after': '0'}, ''),
        (200, {}, '{"choices": [{"mess'),
        {'error': {'message': 'overloaded'}},
        cut,
        hang_up,
    ],
)
def test_a_busy_or_broken_server_is_asked_again(server, reply, tmp_path):
    server.script = [reply, reply]
    texts, chat = ask(server, tmp_path)
    assert texts == TWO and len(server.bodies) == 3 and chat.spending.asked == 1


@pytest.mark.parametrize(
    'reply, reason',
    [
        (dict(choices=[]), 'it was empty'),
        (said(None, 'content_filter'), 'content_filter'),
        (said('["Once there', 'length'), 'cut off'),
        (said('["Only one text."]'), 'it has 1 texts, there are 2 pages'),
        (said('["One text.", "Two texts.", "Three texts."]'), 'it has 3 texts'),
        (said('Once upon a time.'), 'no JSON'),
        (said('{"story": 3}'), '1 texts'),
        (said('["One text.", " "]'), "of page 2, a text is ' '"),
        ({'ok': True}, "it was no completion: it has ok, and no 'choices'"),
        ([], 'it has nothing'),
    ],
)
def test_an_answer_that_cannot_be_used_is_told_why(server, reply, reason, tmp_path):
    server.script = [reply]
    texts, chat = ask(server, tmp_path)
    assert texts == TWO and chat.spending.asked == 2
    assert reason in server.bodies[1]['messages'][-1]['content'] and len(server.bodies[1]['messages']) == 3
    server.script = [reply] * 3
    with pytest.raises(Malformed, match='3 answers could not be used'):
        ask(server, tmp_path / 'other')
    assert ask(server, tmp_path / 'other')[0] == TWO  # another build asks anew


@pytest.mark.parametrize(
    'reply, reason',
    [
        (
            (401, {}, json.dumps({'error': {'message': f'wrong key {KEY}'}})),
            'refuses the key of OPENAI_API_KEY (wrong key ***)',
        ),
        ((404, {}, '{"error": {"message": "no model toy"}}'), 'does not know this address or the model toy'),
        ((429, {}, '{"error": {"code": "insufficient_quota"}}'), 'account is used up'),
        ((429, {'retry-after': '3600'}, ''), 'asks to wait 3600 s'),
        ((302, {'location': 'https://elsewhere'}, ''), 'has moved'),
        ((200, {}, '<!DOCTYPE html><p>Welcome'), 'an HTML page'),
        ((400, {}, '{"error": "too many pictures"}'), 'too many pictures'),
    ],
)
def test_what_no_patience_mends_ends_it_at_once(server, reply, reason, tmp_path):
    server.script = [reply]
    with pytest.raises(EndpointError, match=re.escape(reason)) as caught:
        ask(server, tmp_path)
    assert len(server.bodies) == 1 and KEY not in str(caught.value)


KEYS = st.sampled_from(['choices', 'message', 'content', 'usage', 'prompt_tokens', 'finish_reason', 'model', 'text'])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | KEYS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.own
@given(JSON, st.text(max_size=80), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_is_an_answer_or_malformed(body, text, count):
    read_completion(body, '')
    for said in (text, json.dumps(body), f'Sure: ```{json.dumps(body)}'):
        try:
            texts = read_page_texts(Answer(said), count)
        except Malformed:
            continue
        assert len(texts) == count and all(isinstance(t, str) and t.strip() for t in texts)


def test_a_slow_answer_is_given_up(server, tmp_path):
    server.script = [slowly]
    assert ask(server, tmp_path, timeout=0.5)[0] == TWO


def test_the_whole_by_a_model(server, tmp_path, capsys):
    "Bad answers in between; nothing is asked twice, the key is nowhere, a liar is named."
    drawings = draw(tmp_path / 'drawings', 12)
    server.script = [(429, {}, ''), said('{}'), cut, dict(said('A fox sleeps.'), model='cheaper')]
    words = ['data', 'build', str(drawings), '--out', str(tmp_path / 'data'), '--pages', '6', '--workers', '2']
    words += ['--model', 'toy', '--endpoint', server.url, '--price', '1', '2', '--about', 'The bear is Bo.']
    assert cli.run(words) == 0
    out = capsys.readouterr().out
    assert len(server.bodies) == 12 + 2 + 3 and 'cheaper, not toy' in out
    assert re.search(r'cost +0\.00', out) and server.keys == {f'Bearer {KEY}'}
    stories = list(read_stories(tmp_path / 'data'))
    assert [len(s) for s in stories] == [6, 6] and stories[1][5].text == 'Text 6 of this story.'
    pictures = [p for b in server.bodies for p in b['messages'][0]['content'] if p['type'] == 'image_url']
    assert len(pictures) == 12 + 3 and all(
        p['image_url']['url'].startswith('data:image/jpeg;base64,') for p in pictures
    )
    assert not [p for p in tmp_path.rglob('*') if p.is_file() and KEY.encode() in p.read_bytes()]
    before = contents(tmp_path / 'data')
    assert cli.run(words) == 0 and len(server.bodies) == 12 + 2 + 3 and contents(tmp_path / 'data') == before


def test_ten_pictures_at_a_time(server, tmp_path):
    telling = Telling('toy', Endpoint(server.url, 'toy'), way='linked')
    report = build_data(draw(tmp_path / 'drawings', 12), tmp_path / 'data', BuildOptions(12), None, telling)
    assert report.path and len(server.bodies) == 3 and not report.problems
    assert [sum(p['type'] == 'image_url' for p in b['messages'][0]['content']) for b in server.bodies] == [10, 2, 0]


def test_a_page_that_no_model_describes_is_named(server, tmp_path, capsys):
    words = ['data', 'build', str(draw(tmp_path / 'drawings', 5)), '--out', str(tmp_path / 'data'), '--model', 'toy']
    words += ['--endpoint', server.url, '--workers', '1']
    server.script = [said('{}')] * 3
    assert cli.run(words) == 1
    err = capsys.readouterr().err
    assert err.startswith('seed-story: requests: 6, tokens asked: 1060, '), 'what will be asked is said before'
    assert '000001.png' in err and '(1.png)' in err and 'call again to ask again' in err and err.count('\n') == 2
    assert not (tmp_path / 'data' / 'stories.jsonl').exists() and len(server.bodies) == 3 + 4
    assert cli.run(words) == 0 and len(server.bodies) == 3 + 4 + 1 + 1


@pytest.mark.own
def test_killed_anywhere_it_goes_on(server, tmp_path):
    "Of what was answered before a kill, at most the one answer that was on its way is asked for again."
    drawings = draw(tmp_path / 'drawings', 5)
    telling = Telling('toy', Endpoint(server.url, 'toy'), workers=1)

    def build(name):
        return build_data(drawings, tmp_path / name, BuildOptions(5), None, telling)

    build('whole')
    whole = contents(tmp_path / 'whole')
    assert len(server.bodies) == 6
    killed = True
    step = 0
    while killed:
        server.bodies.clear()
        killed = killed_at(step, lambda: build(f'{step}'))
        asked = len(server.bodies)
        answers = tmp_path / f'{step}' / 'work' / 'answers'
        kept = len([p for p in answers.glob('*.json') if p.name[0] != '.']) if answers.exists() else 0
        assert asked - kept <= 1
        build(f'{step}')
        assert len(server.bodies) == 6 + asked - kept, step
        assert contents(tmp_path / f'{step}') == whole, step
        step += 7
    assert step > 40
    assert os.listdir(tmp_path / '0') == os.listdir(tmp_path / 'whole')


# ---- video ---------------------------------------------------------------------------------------


def test_video_becomes_stories(tmp_path, capsys):
    av = pytest.importorskip('av')
    pytest.importorskip('pysubs2')
    colours = ['red', 'lime', 'blue', 'yellow', 'purple', 'orange']
    with av.open(str(tmp_path / 'film.mkv'), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.width, stream.height = 160, 96
        stream.pix_fmt = 'yuv420p'
        for k, colour in enumerate(colours):
            picture = Image.new('RGB', (160, 96), colour)
            picture.paste('white', (20 * k, 20, 20 * k + 30, 60))
            for _ in range(10):
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    lines = [f'{k}\n00:00:0{k},200 --> 00:00:0{k},700\nLine {k}.\n' for k in range(6)]
    (tmp_path / 'film.srt').write_text('\n'.join(lines))
    build = ['data', 'build', str(tmp_path / 'film.mkv'), '--out', str(tmp_path / 'data')]
    assert cli.run([*build, '--until', 'frames']) == 0
    frames = json.loads((tmp_path / 'data' / 'work' / 'frames' / 'frames.json').read_text())
    assert [(round(f['start'], 1), f['subtitle']) for f in frames] == [(float(k), f'Line {k}.') for k in range(6)]
    assert cli.run([*build[:-1], str(tmp_path / 'said'), '--captions', 'subtitles']) == 0
    assert [page.text for page in next(read_stories(tmp_path / 'said'))] == [f'Line {k}.' for k in range(6)]
    (tmp_path / 'texts.txt').write_text('\n'.join(colours))
    assert cli.run([*build, '--captions', str(tmp_path / 'texts.txt')]) == 0
    [story] = read_stories(tmp_path / 'data')
    assert [page.text for page in story] == colours
    assert all(
        sum(
            abs(a - b)
            for a, b in zip(page.pil().getpixel((90, 5)), Image.new('RGB', (1, 1), page.text).getpixel((0, 0)))
        )
        < 40
        for page in story
    )
