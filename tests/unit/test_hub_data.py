"""Data sets of a hub that runs here: parquet files of one commit, one at a time, the commit recorded."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pyarrow as pa
import pytest
from corpora import chinese, content, english, prepare, texts
from huggingface_hub import constants, utils
from pyarrow import parquet

from hanlin import hub as hubs
from hanlin.data.pipeline import remote
from hanlin.errors import ConfigError, HubError

OLD, NEW = "a" * 40, "b" * 40


def table(rows):
    """Return a parquet file."""
    file = io.BytesIO()
    parquet.write_table(pa.table({"id": list(range(len(rows))), "text": rows}), file)
    return file.getvalue()


FILES = {
    "README.md": b"# a set",
    "en/train-00000.parquet": table([english(n) for n in range(30)]),
    "en/train-00001.parquet": table([english(n) for n in range(30, 50)]),
    "zh/train-00000.parquet": table([chinese(n) for n in range(20)]),
}


class Hub(ThreadingHTTPServer):
    """The routes that are asked for, over one data set org/set."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.commits = {OLD: FILES, NEW: {**FILES, "zh/train-00000.parquet": table([chinese(99)])}}
        self.names, self.asked, self.down = {"main": OLD, "v2": NEW}, [], set()


class Answer(BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, *_):
        """Say nothing."""

    def do_HEAD(self):
        """Answer without a body."""
        self.do_GET()

    def do_GET(self):
        """Find the route."""
        path = unquote(urlsplit(self.path).path)
        parts = path.split("/")
        if path.startswith("/api/datasets/org/set"):
            revision = "/".join(parts[6:]) or "main"
            commit = self.server.names.get(revision, revision)
            if commit not in self.server.commits:
                self.answer(b"", 404, {"X-Error-Code": "RevisionNotFound"})
                return
            listed = [{"rfilename": f, "size": len(b)} for f, b in self.server.commits[commit].items()]
            self.answer(json.dumps({"id": "org/set", "sha": commit, "siblings": listed}).encode(), 200, {})
        elif path.startswith("/datasets/org/set/resolve/"):
            commit, name = parts[5], "/".join(parts[6:])
            self.server.asked.append((self.command, commit, name))
            if name in self.server.down:
                self.answer(b"", 503, {})
                return
            body = self.server.commits[commit][name]
            self.answer(body, 200, {"X-Repo-Commit": commit, "ETag": f'"{hash(body)}"'})
        else:
            self.answer(b"", 404, {"X-Error-Code": "RepoNotFound"})

    def answer(self, body, status, headers):
        """Send it."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running hub, asked in place of the real one."""
    server = Hub()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("dataset", "download"):
        monkeypatch.setitem(getattr(hubs, name).__kwdefaults__, "endpoint", endpoint)
    utils.disable_progress_bars()
    huggingface_hub.close_session()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    huggingface_hub.close_session()
    utils.enable_progress_bars()
    server.shutdown()
    thread.join()
    server.server_close()


def test_all_parquet_of_one_commit_in_order(hub):
    """Guards against rows that are lost, read twice, or of another commit than the report says."""
    manifest = prepare(source="hub:org/set", valid_fraction=0)
    assert texts("out") == [english(n) for n in range(50)] + [chinese(n) for n in range(20)]
    report = json.loads(Path("out/report.json").read_text())
    assert report["hub"] == {"org/set": OLD}
    assert report["asked"]["source"] == "hub:org/set"
    assert {name for _, _, name in hub.asked} == {name for name in FILES if name.endswith(".parquet")}
    assert {commit for _, commit, _ in hub.asked} == {OLD}
    assert manifest.report["read"] == 70
    assert not [each for each in Path().iterdir() if each.name != "out"]  # nothing that was fetched is left


def test_a_folder_at_a_revision(hub):
    """Guards against the whole set where a part was asked for, and main where a tag was."""
    prepare(source="hub:org/set/zh@v2", valid_fraction=0)
    assert texts("out") == [chinese(99)]
    assert json.loads(Path("out/report.json").read_text())["hub"] == {"org/set": NEW}


def test_one_file_on_the_disk_at_a_time(hub, monkeypatch):
    """Guards against a data set that must fit the disk."""
    held, real = [], remote.hub.download

    def counted(*given):
        there = real(*given)
        held.append(len(list(Path(".out.work").rglob("*.parquet"))))
        return there

    monkeypatch.setattr(remote.hub, "download", counted)
    prepare(source="hub:org/set")
    assert held == [1, 1, 1]


def test_broken_off_and_gone_on(hub, monkeypatch):
    """Guards against a lost connection that costs what was read, and half a file taken for a whole one."""
    monkeypatch.setattr("hanlin.data.pipeline.parts.cut.__defaults__", (1000,))
    prepare("fresh", source="hub:org/set")
    hub.down = {"zh/train-00000.parquet"}
    monkeypatch.setattr(utils._http.time, "sleep", lambda _: None)
    with pytest.raises(HubError, match="could not be fetched") as caught:
        prepare(source="hub:org/set")
    assert len(caught.value.problems) == 1
    hub.down, hub.asked = set(), []
    prepare(source="hub:org/set")
    assert {name for _, _, name in hub.asked} == {"zh/train-00000.parquet"}
    assert content("out") == content("fresh")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("hub:org/none", "no such repository"),
        ("hub:org/set@v9", "no such revision"),
        ("hub:set", "not a data set's name"),
        ("hub:org/set/fr", "no .parquet among its 0 files; name another folder"),
    ],
)
def test_what_is_not_there_is_one_line(hub, source, line):
    """Guards against a traceback of the hub's client."""
    with pytest.raises(HubError) as caught:
        prepare(source=source)
    assert line in str(caught.value)
    assert len(caught.value.problems) == 1
    assert not Path("out").exists()


def test_a_set_without_parquet_says_where_to_look(hub):
    """Guards against "nothing to read" for a set that the hub has converted."""
    hub.commits[OLD] = {"README.md": b""}
    with pytest.raises(HubError, match="try hub:org/set@refs/convert/parquet"):
        prepare(source="hub:org/set")


def test_no_limit_and_a_set(hub):
    """Guards against a limit that nobody heeds."""
    with pytest.raises(ConfigError, match="limit_bytes: hub:org/set"):
        prepare(source="hub:org/set", limit_bytes=10)
