"""The page about a run that lies in a bucket."""

from pathlib import Path

from lmsys_ray.report.write import write_report
from lmsys_ray.run_directory.layout import RunDirectory
from tests.report.synthetic import make_run
from tests.storage.conftest import Bucket


def test_a_report_in_a_bucket(bucket: Bucket, tmp_path: Path) -> None:
    run = make_run(tmp_path / "today", rows=40, shard_rows=10)
    for file in sorted(file for file in run.path.rglob("*") if file.is_file()):
        bucket.put(f"runs/today/{file.relative_to(run.path)}", file.read_bytes())
    written = write_report(RunDirectory(f"{bucket.url}/runs/today"))
    assert str(written) == f"{bucket.url}/runs/today/report.html"
    text = bucket.get("runs/today/report.html").decode()
    assert "Finished: 40 rows, all with a score of their own." in text
    assert "Models and their strengths" in text
