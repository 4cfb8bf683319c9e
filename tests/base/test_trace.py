"""Recording of passes, rules, decisions, and dumps."""

from tensorwright.base import config, trace


def test_nothing_is_recorded_outside():
    trace.fired("rule", "node")
    trace.decision("fuse", "x", "no")
    assert trace.current() is None


def test_report():
    with trace.recording() as t:
        with trace.running("outer"), trace.running("inner") as timing:
            trace.fired("a-rule", "x")
            trace.fired("a-rule", "y")
            trace.decision("fuse", "x", "no", "reduction consumed twice")
            timing.changed = False
        assert t.pass_ == ""
    assert t.counts() == {("inner", "a-rule"): 2}
    assert t.decisions[0].pass_ == "inner"
    text = t.report()
    assert "inner  (no change)" in text
    assert "inner: a-rule fired 2 times" in text
    assert "fuse: x: no: reduction consumed twice" in text


def test_log(capsys):
    with config.options(log=("fuse",)):
        trace.decision("fuse", "x", "yes", "same loops")
        trace.decision("tune", "x", "yes")
    assert capsys.readouterr().err == "fuse: x: yes: same loops\n"


def test_fuel():
    with config.options(fuel=2), trace.recording():
        assert [trace.burn() for _ in range(3)] == [True, True, False]
    assert trace.burn()


def test_dump(tmp_path):
    with config.options(dump=str(tmp_path)), trace.recording():
        trace.dump("first", "a")
        assert trace.dump("same", "a") is None
        trace.dump("second", "b")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["000_first.py", "001_second.py"]
    assert trace.dump("nowhere", "c") is None
