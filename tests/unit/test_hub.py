"""Fetching from a hub that runs here: what is asked for, what is pinned, what is refused, what a broken line leaves."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

from hanlin.errors import HubError
from hanlin.hub import Fetched, fetch

OLD, NEW = "a" * 40, "b" * 40
WANTED = {
    "config.json": b'{"model_type": "toy"}',
    "model.safetensors": b"weights" * 1000,
    "tokenizer.json": b"{}",
    "README.md": b"# a toy",
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
}
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "model.pt": b"pickle",
    "modeling_toy.py": b"raise SystemExit('ran')",
    "onnx/model.safetensors": b"again",
    "consolidated.safetensors": b"again",
    "tf_model.h5": b"other",
}


class Hub(ThreadingHTTPServer):
    """The routes of a hub that the client really calls, over one repository org/toy."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.commits = {OLD: {**WANTED, **UNWANTED}, NEW: {**WANTED, **UNWANTED, "config.json": b'{"new": true}'}}
        self.names = {"main": OLD, "v1": OLD}
        self.faults = {}  # file -> what goes wrong when it is fetched
        self.refusal = None  # (status, X-Error-Code) of every answer
        self.moves = None  # what main becomes once its commit was given out
        self.asked = []

    @property
    def endpoint(self):
        """Return the address."""
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self):
        """Return the files whose contents were asked for, and the commits they were asked of."""
        paths = [path.replace("/org/toy/resolve/", "/elsewhere/") for method, path in self.asked if method == "GET"]
        parts = [path.split("/") for path in paths if path.startswith("/elsewhere/")]
        return {"/".join(part[3:]) for part in parts}, {part[2] for part in parts}


class Answer(BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, *_):
        """Say nothing."""

    def do_HEAD(self):
        """Answer without a body."""
        self.do_GET()

    def do_GET(self):
        """Find the route."""
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path))
        parts = path.split("/")
        if hub.refusal:
            self.answer(b"", hub.refusal[0], {"X-Error-Code": hub.refusal[1]})
        elif path.startswith("/api/models/org/toy"):
            self.about("/".join(parts[6:]) or "main", tree=parts[5:6] == ["tree"])
        elif path.startswith("/org/toy/resolve/"):
            self.file(parts[4], "/".join(parts[5:]), moved=False)
        elif path.startswith("/elsewhere/"):
            self.file(parts[2], "/".join(parts[3:]), moved=True)
        else:
            self.answer(b"", 404, {"X-Error-Code": "RepoNotFound"})

    def about(self, revision, *, tree):
        """Answer with the commit, or with the list of its files."""
        hub = self.server
        commit = hub.names.get(revision, revision)
        if commit not in hub.commits:
            self.answer(b"", 404, {"X-Error-Code": "RevisionNotFound"})
            return
        files = hub.commits[commit]
        if tree:
            listed = [{"type": "file", "path": f, "size": len(b), "oid": sha(b)} for f, b in files.items()]
        else:
            listed = {"id": "org/toy", "sha": commit, "siblings": [{"rfilename": file} for file in files]}
            hub.names["main"] = hub.moves or hub.names["main"]
        self.answer(json.dumps(listed).encode(), 200, {"Content-Type": "application/json"})

    def file(self, commit, name, *, moved):
        """Answer with a file; weights lie elsewhere, as they do on the real hub."""
        body, fault = self.server.commits[commit][name], self.server.faults.get(name)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{sha(body)}"'}
        if fault in {"GatedRepo", "EntryNotFound"}:
            self.answer(b"", 403, {"X-Error-Code": fault})
        elif name.endswith(".safetensors") and not moved:
            headers |= {"X-Linked-Size": str(len(body)), "X-Linked-ETag": headers["ETag"]}
            self.answer(b"", 302, {**headers, "Location": f"{self.server.endpoint}/elsewhere/{commit}/{name}"})
        elif fault == "down":
            self.answer(b"", 503, {})
        elif fault == "cut" and self.command == "GET":
            self.server.faults[name] = "down"
            self.answer(body, 200, headers, send=len(body) // 2)
        elif fault == "short" and self.command == "GET":
            self.answer(body[:-1], 200, headers)
        else:
            self.answer(body, 200, headers)

    def answer(self, body, status, headers, send=None):
        """Send status, headers and `send` bytes of the body (all)."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:send])


def sha(body):
    """Return the name a blob has in the cache."""
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def hub(monkeypatch):
    """A running hub; the client starts afresh, online, without waiting between its tries."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.utils.disable_progress_bars()
    huggingface_hub.close_session()
    threads = set(threading.enumerate())
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    huggingface_hub.close_session()
    huggingface_hub.utils.enable_progress_bars()
    server.shutdown()
    thread.join()
    server.server_close()
    left = [each for each in set(threading.enumerate()) - threads if each.name != "tqdm_monitor"]  # tqdm's one daemon
    for each in left:
        each.join(timeout=1)
        assert not each.is_alive(), each


@pytest.fixture
def get(hub, tmp_path):
    """Fetch from the running hub into a cache of the test's own."""
    return lambda name, **more: fetch(name, cache=tmp_path / "cache", endpoint=hub.endpoint, **more)


def files(folder):
    """Return path -> contents of every file in a folder."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def said(call):
    """Return the one line that a call's HubError says."""
    with pytest.raises(HubError) as caught:
        call()
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_is_itself(tmp_path, monkeypatch):
    """Guards against a copy, a lookup or a commit where the person's own folder was named."""
    (tmp_path / "runs" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("runs/x", "./runs/x", "runs/x/", str(tmp_path / "runs/x"), "~/runs/x", Path("runs/x")):
        found = fetch(name)
        assert found.folder.samefile(tmp_path / "runs/x")
        assert found.commit is None
    assert fetch("runs/x") == Fetched(folder=Path("runs/x"), name="runs/x", commit=None)


def test_folder_needs_no_client():
    """Guards against a slow start: the hub's client is imported only when the hub is asked."""
    code = "import sys; from hanlin.hub import fetch; fetch('.'); print('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("./runs/tinny", "runs/tiny"),
        ("runs/tinny", "runs/tiny"),
        ("runs/tinny/", "runs/tiny"),
        ("rums/tiny/best", "runs"),
        ("rums/", "runs"),
        ("runs/tiny/best", None),
        ("~/nothing", None),
        ("gpt2", None),
        ("/nowhere/at/all", None),
        ("", None),
    ],
)
def test_mistyped_folder(get, hub, tmp_path, monkeypatch, name, near):
    """Guards against a path sent to the hub as somebody's repository, and against an error without the nearest name."""
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    line = said(lambda: get(name))
    assert "no such folder" in line
    assert (f"did you mean '{near}'?" in line) if near else ("org/name" in line)
    assert hub.asked == []
    assert "no such folder" in said(lambda: get(Path(name or "runs/y")))


def test_unlisted_folder(get, monkeypatch):
    """Guards against a traceback where the names around a missing folder may not be read."""

    def refuse(_):
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "/nowhere: no such folder; a hub repository is written" in said(lambda: get("/nowhere"))


def test_file_is_no_folder(get, tmp_path):
    """Guards against "no such folder" about a file that is there."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "model.safetensors: a file; expected a folder" in said(lambda: get(str(tmp_path / "model.safetensors")))


def test_only_safe_files(get, hub):
    """Guards against pickles and code on the disk: they are not even asked for."""
    found = get("org/toy")
    assert files(found.folder) == WANTED
    assert hub.fetched()[0] == set(WANTED)
    assert (found.name, found.commit, found.folder.name) == ("org/toy", OLD, OLD)


def test_second_time_from_the_cache(get, hub):
    """Guards against downloading again what is there."""
    first = get("org/toy")
    hub.asked.clear()
    assert get("org/toy") == first
    assert hub.fetched() == (set(), set())


def test_revisions(get, hub):
    """Guards against a revision that is ignored, and against yesterday's commit under today's name."""
    hub.names["main"] = NEW
    new = get("org/toy")
    assert (new.commit, files(new.folder)["config.json"]) == (NEW, b'{"new": true}')
    for old in (
        get("org/toy@v1"),
        get("org/toy", revision="v1"),
        get(f"org/toy@{OLD}"),
        get("org/toy@v1", revision="v1"),
    ):
        assert (old.commit, files(old.folder)["config.json"]) == (OLD, WANTED["config.json"])
    hub.names["main"] = OLD
    assert get("org/toy").commit == OLD


def test_one_commit_while_the_branch_moves(get, hub):
    """Guards against files of two commits in one folder when somebody pushes meanwhile."""
    hub.moves = NEW
    found = get("org/toy")
    assert hub.fetched()[1] == {found.commit}
    assert files(found.folder)["config.json"] == hub.commits[found.commit]["config.json"]


def test_revision_beside_a_folder_of_that_name(get, tmp_path, monkeypatch):
    """Guards against a folder `org` that hides every repository of the organisation `org`."""
    (tmp_path / "org").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "no such folder" in said(lambda: get("org/toy"))
    assert get("org/toy@main").commit == OLD


def test_contradicting_revisions(get, tmp_path):
    """Guards against one of two revisions winning silently, and against a revision of a folder passed over."""
    assert "'v1' in the name and 'main' beside it" in said(lambda: get("org/toy@v1", revision="main"))
    assert "a folder has no revisions" in said(lambda: get(str(tmp_path), revision="main"))


def test_only_pickles(get, hub, tmp_path):
    """Guards against a repository of pickles: refused before anything of it is fetched."""
    hub.commits[OLD] = {"config.json": b"{}", "pytorch_model.bin": b"pickle", "onnx/model.safetensors": b"again"}
    line = said(lambda: get("org/toy"))
    assert line.startswith("org/toy: its weights are pickles (pytorch_model.bin), which can run code and are refused")
    assert hub.fetched() == (set(), set())
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "refusal", "wanted"),
    [
        ("org/nothing", None, ("org/nothing: no such repository, or a private one", "hf auth login")),
        ("org/toy", (401, "RepoNotFound"), ("no such repository, or a private one", "hf auth login")),
        ("org/toy", (401, ""), ("refuses this token", "hf auth login")),
        ("org/toy", (403, "GatedRepo"), ("asks to accept terms", "/org/toy, then log in")),
        ("org/toy@v9", None, ("org/toy@v9: no such revision", "branches and tags at")),
        ("org/toy", (500, ""), ("could not be fetched", "500", "HF_HUB_OFFLINE=1")),
        ("org/to--y", None, ("not a repository's name", "org/name")),
    ],
)
def test_refusals(get, hub, name, refusal, wanted):
    """Guards against tracebacks and many-line messages: one line, what is wrong, what to do."""
    hub.refusal = refusal
    line = said(lambda: get(name))
    for part in wanted:
        assert part in line


def test_gate_before_the_files(get, hub):
    """Guards against a gated repository, whose list is public, ending in "check the network"."""
    hub.faults["config.json"] = "GatedRepo"
    assert "asks to accept terms" in said(lambda: get("org/toy"))


def test_hub_goes_down_before_the_files(get, hub):
    """Guards against the client's "not in the local cache" standing where the reason should."""
    hub.faults["config.json"] = "down"
    line = said(lambda: get("org/toy"))
    assert "Server error '503 Service Unavailable'" in line
    assert "local cache" not in line


def test_no_network(hub, tmp_path):
    """Guards against a traceback, or a silent old copy, when the hub does not answer."""
    cache, gone = tmp_path / "cache", "http://127.0.0.1:9"
    fetch("org/toy", cache=cache, endpoint=hub.endpoint)
    line = said(lambda: fetch("org/toy", cache=cache, endpoint=gone))
    assert line.startswith(f"org/toy: could not be fetched from {gone}")
    assert line.endswith("HF_HUB_OFFLINE=1 takes the copy in the cache, if there is one")


def test_offline(get, hub, monkeypatch):
    """Guards against requests while offline, and against a cached model that cannot be used then."""
    line = said(lambda: get("org/toy", offline=True))
    assert line == "org/toy: not in the cache; fetch it once online: without offline and HF_HUB_OFFLINE"
    first = get("org/toy")
    hub.asked.clear()
    assert get("org/toy", offline=True) == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get("org/toy") == get(f"org/toy@{OLD}") == first
    assert "HF_HUB_OFFLINE is set" in said(lambda: get("org/toy", offline=False))
    assert "not in the cache" in said(lambda: get("org/toy@v1"))
    assert hub.asked == []


@pytest.mark.parametrize("fault", ["cut", "short"])
def test_broken_download(get, hub, tmp_path, fault):
    """Guards against half a file of weights that passes for a whole one, now or later offline."""
    hub.faults["model.safetensors"] = fault
    assert "org/toy: could not be fetched" in said(lambda: get("org/toy"))
    left = [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]
    assert all(each.name not in {"model.safetensors", sha(WANTED["model.safetensors"])} for each in left)
    assert not [each for each in left if each.name.endswith(".incomplete")]
    assert "only in part in the cache" in said(lambda: get("org/toy", offline=True))
    hub.faults.clear()
    assert files(get("org/toy").folder) == WANTED


def test_path_out_of_the_cache(get, hub, tmp_path):
    """Guards against a hub whose list of files leads out of the cache."""
    hub.commits[OLD]["../../../../evil.jinja"] = b"evil"
    assert "could not be fetched" in said(lambda: get("org/toy"))
    assert not [each for each in tmp_path.rglob("*evil*") if os.path.isfile(each)]
