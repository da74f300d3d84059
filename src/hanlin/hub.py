"""From a name to the files of a model: a folder as it is, or a hub repository pinned to one commit.

    runs/x, /models/gpt2     ─> that folder                         commit None
    org/name[@revision]      ─> the hub's cache: snapshots/<commit> commit abc123…

Only weights in safetensors and text files are ever fetched: no pickle, no code. A repository whose weights are
pickles is refused before anything is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hanlin.errors import HubError, nearest, problem

WANTED = [
    *("config.json", "generation_config.json", "preprocessor_config.json", "hanlin.json", "README.md", "LICENSE*"),
    *("*.safetensors", "*.safetensors.index.json"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "*.jinja"),
    *("modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
]
UNWANTED = ["*/*.safetensors", "consolidated*"]  # the same weights a second time, in other formats
TEXTS = [f"*.{kind}{packed}" for kind in ("jsonl", "csv", "tsv", "txt") for packed in ("", ".gz", ".zst")] + [
    "*.parquet"
]
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A model's files, and where they came from; `commit` is None for a folder of the person's own."""

    folder: Path
    name: str
    commit: str | None = None


def fetch(
    name: str | Path,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
    offline: bool | None = None,
) -> Fetched:
    """Return the files that a folder or a hub repository (`org/name`, `org/name@revision`) holds.

    A revision is a branch, a tag or a commit. It is resolved once: all files are of one commit, which `Fetched`
    carries. `offline` (default: what HF_HUB_OFFLINE says) takes the copy in the cache and asks nobody.
    HubError, one line, says what is not there and what to do.
    """
    given = os.path.expanduser(name)
    repository, _, inline = given.partition("@")
    if os.path.isdir(given):
        if revision:
            raise HubError(problem(given, f"revision '{revision}'", "a folder has no revisions"))
        return Fetched(folder=Path(given), name=str(name))
    if isinstance(name, Path) or _is_path(repository, pinned=bool(revision or inline)):
        raise HubError(_no_folder(Path(given)))
    if revision and inline and revision != inline:
        raise HubError(
            problem(given, f"revision '{inline}' in the name and '{revision}' beside it", "only one of them")
        )
    return _from_hub(repository, revision or inline or None, cache, endpoint, offline)


def fetch_data(
    name: str, files: Sequence[str] = (), *, cache: Path | None = None, endpoint: str | None = None
) -> Fetched:
    """Return the text files of a public data set, `org/name` or `org/name@revision`; `files` are patterns of names.

    Without patterns all parquet, JSON-lines, CSV and text files are taken. HubError, one line, says what is not there.
    """
    from huggingface_hub import constants, snapshot_download

    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision or None,
            cache_dir=cache,
            endpoint=endpoint,
            allow_patterns=list(files) or TEXTS,
        )
    except Exception as error:  # as in _from_hub
        raise HubError(_explain(error, name, endpoint or constants.ENDPOINT, constants.HF_HUB_OFFLINE)) from error
    if not any(path.is_file() for path in Path(folder).rglob("*")):
        raise HubError(problem(name, "has no such files", f"looked for: {', '.join(files or TEXTS)}"))
    return Fetched(folder=Path(folder), name=repository, commit=Path(folder).name)


def _is_path(name: str, *, pinned: bool) -> bool:
    """Return whether a name that is no folder was meant as one: only `org/name` can be a repository.

    `runs/y` beside a folder `runs` is a mistyped path, not a stranger's repository; a revision says otherwise.
    """
    org, _, rest = name.partition("/")
    if name.startswith((".", "~")) or not (org and rest) or "/" in rest or os.sep in name.replace("/", ""):
        return True
    return os.path.isdir(org) and not pinned


def _no_folder(folder: Path) -> str:
    """Return the problem line of a folder that is not there, with the nearest one that is."""
    if os.path.isfile(folder):
        return problem(str(folder), "a file", "expected a folder, or a hub repository org/name")
    at = folder
    while not os.path.isdir(at.parent):
        at = at.parent
    try:
        near = nearest(at.name, sorted(each.name for each in at.parent.iterdir() if os.path.isdir(each)))
    except OSError:  # a folder that may not be listed
        near = None
    do = "" if near else "a hub repository is written org/name or org/name@revision"
    return problem(str(folder), "no such folder", near=str(at.parent / near) if near else None, do=do)


def _from_hub(
    repository: str, revision: str | None, cache: Path | None, endpoint: str | None, offline: bool | None
) -> Fetched:
    """Look at the list of a repository's files, then fetch what is wanted of them, all of one commit."""
    from huggingface_hub import HfApi, constants, snapshot_download

    where = f"{repository}@{revision}" if revision else repository
    offline = constants.HF_HUB_OFFLINE if offline is None else offline
    try:
        if not offline:
            api = HfApi(endpoint=endpoint)
            info = api.model_info(repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            _refuse_pickles(where, [each.rfilename for each in info.siblings or ()])
        folder = snapshot_download(
            repository,
            revision=revision,  # its name, not its commit: so the cache learns what the name stands for when offline
            cache_dir=cache,
            endpoint=endpoint,
            local_files_only=offline,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
        )
    except HubError:
        raise
    except Exception as error:  # the client's errors share no class: its own, its HTTP library's, OSError, ValueError
        raise HubError(_explain(error, where, endpoint or constants.ENDPOINT, offline)) from error
    return Fetched(folder=Path(folder), name=repository, commit=Path(folder).name)


def dataset(repository: str, revision: str | None, *, endpoint: str | None = None) -> tuple[str, dict[str, int]]:
    """Return the commit that a data set's revision stands for now, and its files with their sizes in bytes."""
    from huggingface_hub import HfApi, constants

    where = f"{repository}@{revision}" if revision else repository
    try:
        info = HfApi(endpoint=endpoint).dataset_info(
            repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except Exception as error:  # as in _from_hub
        raise HubError(_explain(error, where, endpoint or constants.ENDPOINT, constants.HF_HUB_OFFLINE)) from error
    return str(info.sha), {each.rfilename: each.size or 0 for each in info.siblings or ()}


def download(repository: str, commit: str, path: str, folder: Path, *, endpoint: str | None = None) -> Path:
    """Return one file of a data set, fetched into a folder; the client checks that it is whole."""
    from huggingface_hub import constants, hf_hub_download

    try:
        found = hf_hub_download(
            repository, path, repo_type="dataset", revision=commit, local_dir=folder, endpoint=endpoint
        )
    except OSError as error:
        if error.errno is not None:  # the disk, not the hub
            raise
        raise HubError(_explain(error, f"{repository}/{path}", endpoint or constants.ENDPOINT, False)) from error
    except Exception as error:  # as in _from_hub
        raise HubError(_explain(error, f"{repository}/{path}", endpoint or constants.ENDPOINT, False)) from error
    return Path(found)


def _refuse_pickles(where: str, files: list[str]) -> None:
    """Raise HubError when the only weights among the files are pickles: reading one runs whatever code it holds."""
    pickles = [file for file in files if file.endswith(PICKLES)]
    if pickles and not any(file.endswith(".safetensors") and "/" not in file for file in files):
        given = f"its weights are pickles ({pickles[0]}), which can run code and are refused"
        do = "look for a revision or a copy of it in safetensors"
        raise HubError(problem(where, given, "only safetensors are read", do=do))


def _explain(error: Exception, where: str, endpoint: str, offline: bool) -> str:
    """Return the client's error as one line that says what to do."""
    from huggingface_hub import errors

    login = "log in with: hf auth login"
    page = f"{endpoint}/{where.partition('@')[0]}"
    known = (  # the first that fits: what is gated is also not found
        (errors.GatedRepoError, "its owner asks to accept terms", f"accept them at {page}, then {login}"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one", f"check the name, or {login}"),
        (errors.RevisionNotFoundError, "no such revision", f"see its branches and tags at {page}"),
        (errors.HFValidationError, "not a repository's name", "write org/name or org/name@revision"),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set", "unset it, or take the copy in the cache"),
    )
    for kind, given, do in known:
        if isinstance(error, kind):
            return problem(where, given, do=do)
    if offline:
        part = "only in part " if isinstance(error, errors.IncompleteSnapshotError) else "not "
        return problem(where, f"{part}in the cache", do="fetch it once online: without offline and HF_HUB_OFFLINE")
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return problem(where, f"{endpoint} refuses this token, or asks for one", do=login)
    while isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "not in the cache either" is not the reason
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    do = "check the network and run again; HF_HUB_OFFLINE=1 takes the copy in the cache, if there is one"
    return problem(where, f"could not be fetched from {endpoint}: {reason}", do=do)
