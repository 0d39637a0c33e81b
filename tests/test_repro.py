"Every notebook of nbs/repro runs to its end, as small as it can be run."

from seed_story.cli import run


def test_every_reproduction_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')  # of each of the two that run at a time
    code = run(['repro', '--all', '--smallest', '--jobs', '2', '--out', str(tmp_path / 'out')])
    told = capsys.readouterr().out
    assert code == 0 and 'FAILED' not in told, told
    assert run(['repro', '--smallest']) == 2 and '--all' in capsys.readouterr().err
