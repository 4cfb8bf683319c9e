from tensorwright.base import trace
from tensorwright.driver.pipeline import PIPELINE, run_pipeline, stages
from tensorwright.ir.printer import to_text
from tensorwright.target.host import host
from tests.tools.modules import mlp

NAMES = [name for name, _ in PIPELINE]


def test_names_are_unique():
    assert len(set(NAMES)) == len(NAMES)


def test_observe_sees_every_pass_in_order():
    seen = []
    final = run_pipeline(mlp(), host(), observe=lambda name, m: seen.append((name, m)))
    assert [name for name, _ in seen] == NAMES
    assert seen[-1][1] is final


def test_stages_go_on_from_a_pass():
    m = mlp()
    whole = dict(stages(m, host()))
    for k, name in enumerate(NAMES[:-1]):
        rest = dict(stages(whole[name], host(), name))
        assert list(rest) == NAMES[k + 1 :]
    assert to_text(rest[NAMES[-1]]) == to_text(whole[NAMES[-1]])


def test_stages_are_lazy():
    with trace.recording() as t:
        next(stages(mlp(), host()))
    assert [x.name for x in t.root.inner] == NAMES[:1]


def test_verified():
    run_pipeline(mlp(), host(), verify=True)
