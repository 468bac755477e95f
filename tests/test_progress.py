"""Tests of dreamjax.progress."""

import io
import json

from dreamjax import progress


class Terminal(io.TextIOWrapper):

  def isatty(self):
    return True


def test_a_log_gets_plain_lines(monkeypatch):
  clock = iter([0.0, 5.0, 20.0, 21.0, 22.0])
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
  out = io.StringIO()
  bar = progress.Progress(total=50, start=10, file=out)
  for step in (15, 30, 40, 50):  # at 5 s, 20 s, 21 s and 22 s
    bar.update(step, {"opacity": 0.25})
  bar.close()
  first, last = out.getvalue().splitlines()  # not each update, but the end
  assert first == "step 30/50, 1.00 s/step, 00:20 left, opacity 0.25"
  assert last.startswith("step 50/50, ")


def test_a_terminal_gets_a_bar():
  raw = io.BytesIO()
  out = Terminal(raw, encoding="ascii")
  bar = progress.Progress(total=50, start=10, file=out)
  bar.update(50, {"opacity": 0.25})
  bar.close()
  out.flush()
  text = raw.getvalue().decode("ascii")
  assert "50/50" in text and "opacity 0.25" in text


def test_metrics_are_json_lines(tmp_path):
  log = progress.MetricsLog(tmp_path / "metrics.jsonl", start=0)
  log.write(20, {"opacity": 0.5})
  log.write(40, {"opacity": float("nan")})
  log.close()
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
      {"step": 20, "opacity": 0.5},
      {"step": 40, "opacity": None},
  ]


def test_a_restarted_run_overwrites_what_it_repeats(tmp_path):
  path = tmp_path / "metrics.jsonl"
  # Killed while it wrote the third line.
  path.write_text('{"step": 20}\n{"step": 40}\n{"step": 60, "opa')
  log = progress.MetricsLog(path, start=20)
  log.write(40, {"x": 1})
  log.close()
  steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
  assert steps == [20, 40]
