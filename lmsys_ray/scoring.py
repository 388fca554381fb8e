"""The main job: ingest, the members' passes side by side, join, submission. What is done already is not done again."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import yaml

from lmsys_ray import __version__
from lmsys_ray.arrivals import Arrivals
from lmsys_ray.blend import aligned, blend, normalised, with_prior
from lmsys_ray.cluster import Resources, ray_cluster
from lmsys_ray.config import LightGBMSettings, Settings
from lmsys_ray.errors import DamagedError, RunError
from lmsys_ray.identity import check_same_run, identity
from lmsys_ray.ingest import ingest
from lmsys_ray.ingest_progress import Ingested
from lmsys_ray.lock import RunLock
from lmsys_ray.members.usage import Usage
from lmsys_ray.occupancy import Occupancy
from lmsys_ray.passes import ScoredShard, read_files, run_pass
from lmsys_ray.pools import Pool, pool
from lmsys_ray.progress import Display
from lmsys_ray.rejects import refusal, too_many, unscorable
from lmsys_ray.run import RunDirectory, ahead, read_table
from lmsys_ray.scores import failed_set_aside
from lmsys_ray.storage import path_of
from lmsys_ray.submission import write_submission
from lmsys_ray.watchdog import Watchdog


@dataclass
class Report:
    """How one start of a run went."""

    ingested: Ingested = field(default_factory=Ingested)
    scored: dict[str, int] = field(default_factory=dict)
    """Rows that each member scored in this start."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Real tokens that each Llama member scored in this start."""
    usage: dict[str, Usage] = field(default_factory=dict)
    """What each Llama member's replicas computed in this start: padding, and how full micro-batches were."""
    unscorable: list[dict[str, Any]] = field(default_factory=list)
    """Rows that ingest took and a member could not score, as they stand in the list of rejects."""
    nodes: dict[str, Counter[str]] = field(default_factory=dict)
    """How many shards each node of the cluster scored in this start, for each member."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each member's scorer found of its model when it was loaded."""
    idle: dict[str, float] = field(default_factory=dict)
    """The share of the time that a member's replicas were held and did not compute, 0 to 1."""
    deaths: Counter[str] = field(default_factory=Counter)
    """Processes of each member that died in this start, or were ended because they hung."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds of each stage, and of each member's pass; passes run side by side."""

    @property
    def rejects(self) -> int:
        """Input rows without a score of their own: those that ingest rejected, and those that could not be scored."""
        return self.ingested.rejects + len({row["id"] for row in self.unscorable})


def score(settings: Settings, display: Display) -> Report:
    """Does what is missing in the run directory `settings.output` and writes its submission.

    Raises `RunError` with one sentence where the job cannot go on; what was done until then stays, and the same
    command goes on from there.
    """
    run = RunDirectory(path_of(settings.output).absolute())
    with RunLock(run) as lock:
        return _Start(settings, display, run, lock).work()


class _Start:
    """One start of a run: its settings, its directory, and what the report will say."""

    def __init__(self, settings: Settings, display: Display, run: RunDirectory, lock: RunLock) -> None:
        self._settings = settings
        self._display = display
        self._run = run
        self._lock = lock
        self._report = Report()
        self._began = time.perf_counter()
        self._failed: dict[str, Counter[str]] = {}
        """Why rows failed that each member could not score in this start."""
        self._said: set[str] = set()
        """What members' replicas had to say of their models, and was shown."""

    def work(self) -> Report:
        with self._timed("total"):
            self._say_weights()
            manifest = self._begin()
            try:
                self._finish(manifest)
            except DamagedError as damage:
                self._mend(manifest, damage)
                self._finish(manifest)
        report = self._report
        told = {"seconds": report.seconds, "scored": report.scored, "nodes": report.nodes, "idle": report.idle}
        manifest["last_start"] = {**told, "usage": {name: asdict(used) for name, used in report.usage.items()}}
        manifest["models"] = {**manifest.get("models", {}), **report.models}
        self._run.write_manifest(manifest)
        return self._report

    def _finish(self, manifest: dict[str, Any]) -> None:
        """Does what is missing, and the join, which takes seconds, in any case."""
        if "ingested" not in manifest or any(self._missing(manifest).values()):
            with ExitStack() as stack:
                with self._timed("start of Ray"):
                    cluster = stack.enter_context(ray_cluster())
                if "ingested" not in manifest:
                    manifest["ingested"] = self._ingest().as_dict()
                    self._run.write_manifest(manifest)
                self._report.ingested = Ingested(**manifest["ingested"])
                self._check_rejects()
                self._score(self._missing(manifest), cluster)
        self._report.ingested = Ingested(**manifest["ingested"])
        self._check_rejects()
        with self._timed("join"):
            self._join()

    def _mend(self, manifest: dict[str, Any], damage: DamagedError) -> None:
        """Takes away what is damaged, so that it is made again: scores by their pass, conversations by ingest."""
        if not self._run.read_manifest():
            raise RunError(f"{self._run.path} is gone; put it back and start the same command again") from None
        self._lock.check()
        self._display.say(f"{damage}; all shards are checked")
        damaged = self._run.remove_damaged()
        if "ingested" in manifest and self._run.missing_conversations(manifest["ingested"]["shards"]):
            del manifest["ingested"]
            self._run.write_manifest(manifest)
        self._display.say(f"{len(damaged)} damaged files are made again")

    def _say_weights(self) -> None:
        total = sum(member.weight for member in self._settings.members.values())
        if abs(total - 1) > 1e-9:
            shares = ", ".join(f"{name} {weight:.4g}" for name, weight in self._weights().items())
            self._display.say(f"the weights sum to {total:.4g}; normalised to sum to 1: {shares}")

    def _begin(self) -> dict[str, Any]:
        """Returns the manifest of a run that begins or goes on, after checking that it is the same run."""
        now = identity(self._settings)
        before = self._run.read_manifest()
        if before:
            check_same_run(before, now, self._run.path)
        self._run.prepare()
        members = {**before.get("members", {}), **now["members"]}
        manifest = {**before, "lmsys_ray": __version__, "ingest": now["ingest"], "members": members}
        self._run.write_manifest(manifest)
        settings = self._settings.model_dump(mode="json")
        self._run.write_settings(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        return manifest

    def _missing(self, manifest: dict[str, Any]) -> dict[str, list[int]]:
        """Returns the shards that each member has yet to score; one of weight 0 has none."""
        shards = manifest["ingested"]["shards"]
        return {name: self._run.missing(name, shards) for name in self._weights()}

    def _weights(self) -> dict[str, float]:
        return normalised({name: m.weight for name, m in self._settings.members.items() if m.weight > 0})

    def _ingest(self) -> Ingested:
        settings = self._settings
        made_from = self._run.read_manifest()["ingest"]
        files = [file["path"] for file in made_from["input"]]
        self._display.start("ingest", settings.limit)
        with self._timed("ingest"), Arrivals("ingest", "CPU", 1, self._display.say):
            ingested = ingest(
                read_files(files, settings.cells, settings.limit),
                self._run,
                made_from["shard_rows"],
                fail_on_reject=settings.on_bad_row == "fail",
                on_rows=lambda rows: self._display.advance("ingest", rows),
            )
        self._display.finish("ingest")
        return ingested

    def _score(self, missing: dict[str, list[int]], cluster: Resources) -> None:
        """Runs the passes: those of Llama members one after another, those of LightGBM members beside them.

        The first error ends the job; the other line of work stops at its next shard.
        """
        llama = [n for n in missing if not isinstance(self._settings.members[n], LightGBMSettings)]
        lines = [line for line in (llama, [n for n in missing if n not in llama]) if line]
        stop = threading.Event()
        with self._timed("passes"), Watchdog(self._settings.shard_seconds, self._display.say) as watchdog:
            pool = ThreadPoolExecutor(len(lines))
            work = [pool.submit(self._run_line, line, missing, cluster, watchdog, stop) for line in lines]
            try:
                for future in wait(work, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except DamagedError:
                stop.set()
                wait(work)  # What is missing is looked for once more, so that nothing may be under way.
                raise
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        self._report.deaths += watchdog.deaths

    def _run_line(
        self,
        names: list[str],
        missing: dict[str, list[int]],
        cluster: Resources,
        watchdog: Watchdog,
        stop: threading.Event,
    ) -> None:
        for name in (name for name in names if missing[name]):
            actors = pool(self._settings.members[name], len(missing[name]), cluster.now())
            self._display.start(name, self._rows(missing[name]))
            started, occupancy = time.perf_counter(), Occupancy()
            with self._timed(f"pass {name}"), self._arrivals(name, actors):
                shards = self._run.largest_first(missing[name])
                for shard in run_pass(self._run, self._settings, name, shards, actors, watchdog):
                    self._lock.check()
                    occupancy.add(shard.replica, shard.seconds, time.perf_counter())
                    self._report.idle[name] = round(occupancy.idle_share(time.perf_counter()), 4)
                    self._count(shard, time.perf_counter() - started)
                    self._check_failed(shard)
                    if stop.is_set():
                        return

    def _arrivals(self, name: str, actors: Pool) -> Arrivals:
        resource: Literal["CPU", "GPU"] = "GPU" if actors.gpus else "CPU"
        return Arrivals(name, resource, actors.gpus or actors.cpus, self._display.say)

    def _rows(self, shards: list[int]) -> int:
        """Scorable rows of some shards, as far as can be told without opening them."""
        ingested = self._report.ingested
        return (ingested.lines - ingested.unscored) * len(shards) // max(ingested.shards, 1)

    def _count(self, shard: ScoredShard, seconds: float) -> None:
        report = self._report
        report.seconds.setdefault("until a first shard", round(time.perf_counter() - self._began, 3))
        report.nodes.setdefault(shard.member, Counter())[shard.node] += 1
        scored = report.scored[shard.member] = report.scored.get(shard.member, 0) + shard.rows
        rate = f"{scored / seconds:,.0f} rows/s"
        if shard.tokens:
            report.usage.setdefault(shard.member, Usage()).include(Usage(**shard.usage))
            report.tokens[shard.member] = report.tokens.get(shard.member, 0) + shard.tokens
            rate += f", {report.tokens[shard.member] / seconds:,.0f} tokens/s"
        self._display.advance(shard.member, shard.rows, rate)
        self._note(shard)

    def _note(self, shard: ScoredShard) -> None:
        """Says what is to be known of a member's model, once, and keeps what the manifest records of it."""
        for note in shard.notes:
            sentence = f"members.{shard.member}: {note}"
            if sentence not in self._said:
                self._said.add(sentence)
                self._display.say(sentence)
        if shard.facts:
            self._report.models[shard.member] = shard.facts

    def _check_failed(self, shard: ScoredShard) -> None:
        """Stops a pass whose member fails at more rows than the settings let pass, before it has tried them all."""
        failed = self._failed.setdefault(shard.member, Counter())
        failed.update(shard.reasons)
        rows, share = self._report.ingested.rows, self._settings.max_error_rate
        if shard.reasons and too_many(failed.total(), rows, share):
            raise refusal(failed.total(), rows, share, failed, str(self._run.score(shard.member, shard.shard).parent))

    def _check_rejects(self) -> None:
        """Raises `RunError` where there are more rejects than the settings let pass."""
        rejects, rows = self._report.rejects, self._report.ingested.rows
        if rejects and self._settings.on_bad_row == "fail":
            remedy = "mend them, or go on without them by --set on_bad_row=reject"
            raise RunError(f"{self._run.rejects} lists {rejects} rows that cannot be used; {remedy}")
        share = self._settings.max_error_rate
        if too_many(rejects, rows, share):
            raise refusal(rejects, rows, share, self._run.reject_reasons(), str(self._run.rejects))

    def _join(self) -> None:
        """Writes the submission and names the rows that members could not score."""
        self._report.unscorable = []
        write_submission(self._run.submission, self._blended(), self._ids(), self._report.ingested.lines)

    def _blended(self) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
        """Yields the ids and probabilities [rows, 3] of each shard, then settles the rejects."""
        weights = self._weights()
        numbers = range(self._report.ingested.shards)
        for number, (shard, members) in zip(numbers, ahead(self._read_shard, numbers), strict=True):
            shard, members, failed = failed_set_aside(shard, members)
            self._report.unscorable += unscorable(shard, failed)
            probabilities = {
                n: aligned(shard, scores, str(self._run.score(n, number))) for n, scores in members.items()
            }
            blended = blend(probabilities, weights, self._settings.temperature)
            yield shard["id"], with_prior(shard, blended, self._settings.prior)
        self._run.write_unscorable(self._report.unscorable)
        self._check_rejects()

    def _read_shard(self, number: int) -> tuple[pa.Table, dict[str, pa.Table]]:
        shard = read_table(self._run.shard(number), ["row", "id", "rejected"])
        return shard, {name: read_table(self._run.score(name, number)) for name in self._weights()}

    def _ids(self) -> Iterator[pa.ChunkedArray]:
        for shard in ahead(lambda n: read_table(self._run.shard(n), ["id"]), range(self._report.ingested.shards)):
            yield shard["id"]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._report.seconds[stage] = round(time.perf_counter() - started, 3)
