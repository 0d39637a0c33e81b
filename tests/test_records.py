"""What committed records state: which weights they were measured with, and that the code which made them is committed.

Records of before the rule was made are marked in the report; those of later are refused here."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from seed_story.records.record import Record, check_one_model, read_records
from seed_story.story.files import same_weights

ROOT = Path(__file__).resolve().parent.parent
SINCE = '2026-11-30T01'  # the rules hold for records made from then on


@pytest.fixture(scope='module')
def records() -> dict[str, Record]:
    return read_records(ROOT / 'data' / 'results')


def faults(records: dict[str, Record], loading: set[str]) -> list[str]:
    "What is wrong with records made since the rules hold; `loading`: notebooks that load a trained model."
    found = []
    for name, record in records.items():
        if record.date < SINCE:
            continue
        words = record.command.split()
        notebook = words[2] if words[1:2] == ['repro'] and len(words) > 2 else ''
        if record.code.get('dirty') or not record.code.get('source'):
            found.append(f'{name}: the code that made it is not committed')
        if notebook in loading and record.settings.get('model') != 'Storyland' and not record.settings.get('weights'):
            found.append(f'{name}: it does not state the weights')
    return found


def notebooks_with_weights() -> set[str]:
    folder = ROOT / 'nbs' / 'repro'
    return {
        p.stem
        for p in folder.glob('*.ipynb')
        if re.search(r'weights=fingerprint\(|measure_policies\(', p.read_text('utf-8'))
    }


def test_new_records_name_weights_and_committed_code(records):
    loading = notebooks_with_weights()
    assert {'ending', 'tiny_report', 'compare_models', 'length'} <= loading
    assert faults(records, loading) == []


def test_what_a_fault_is():
    made = dict(name='a', command='seed-story repro ending', figures={}, n=1, seed=0, seconds=1.0, date='2027-01-01')
    fine = Record(**made, settings=dict(weights='abcd'), code=dict(dirty=False, source='1'))
    dirty = Record(**made, settings=dict(weights='abcd'), code=dict(dirty=True, source='1'))
    bare = Record(**made, code=dict(dirty=False, source='1'))
    assert faults(dict(fine=fine), {'ending'}) == []
    assert faults(dict(dirty=dirty, bare=bare), {'ending'}) == [
        'dirty: the code that made it is not committed',
        'bare: it does not state the weights',
    ]


def test_no_folder_has_a_model_with_two_weights(records):
    "Records of one folder and model stand in one table. Variants of a de-tokenizer are models of their own."
    groups = defaultdict(dict)
    for name, record in records.items():
        if not name.startswith(('stage3', 'vae', 'detokenizer')):
            groups[name.rpartition('/')[0], record.settings.get('model')][name] = record
    assert len(groups) > 40
    for group in groups.values():
        check_one_model(group)


def test_both_plain_counterparts_have_labels_of_their_own(records):
    from seed_story.records.reports import MODEL_LABELS, model_label

    plain = defaultdict(set)
    for record in records.values():
        if record.settings.get('model') in MODEL_LABELS:
            plain[model_label(record.settings['model'])].add(record.settings['weights'])
    same_age, younger = plain['plain, of the age of tiny before'], plain['plain, younger']
    assert same_age and younger and not any(same_weights(a, b) for a in same_age for b in younger)
