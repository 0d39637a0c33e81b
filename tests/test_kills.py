"What keeps a run of the tests from waiting for ever: a forked job has a limit, and a full disk is named."

import signal
import time

import pytest
from conftest import LEAST_FREE, refuse_full_disk
from kills import killed_at, run_forked


def test_a_forked_job_ends_in_every_way(capfd, tmp_path):
    assert run_forked(lambda: 3) == 3 and run_forked(lambda: None) == 0
    assert run_forked(lambda: signal.raise_signal(signal.SIGKILL)) == -signal.SIGKILL
    assert run_forked(lambda: 1 / 0) == 1 and 'ZeroDivisionError' in capfd.readouterr().err
    assert run_forked(lambda: time.sleep(30), 0.2) == -signal.SIGABRT and 'in <lambda>' in capfd.readouterr().err
    with pytest.raises(AssertionError, match='ended with 1 when it was to be killed at step 4'):
        killed_at(4, lambda: 1 / 0)
    assert killed_at(0, (tmp_path / 'made').mkdir) and not (tmp_path / 'made').exists()


def test_a_full_disk_is_named_before_a_test_begins():
    refuse_full_disk(LEAST_FREE)
    with pytest.raises(pytest.fail.Exception, match=r'^5 MB are free in .*, 300 are needed: make room$'):
        refuse_full_disk(5_000_000)
