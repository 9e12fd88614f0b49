"""Model folders on the Hugging Face Hub: ``hf://OWNER/NAME[@REVISION]``.

Of a repository only the files of a model folder are downloaded, and they are checked against their manifest before
anything is loaded; whatever else it holds is neither fetched nor run. The package ``huggingface_hub`` moves the bytes,
keeps them in its cache and finds the token; ``HF_ENDPOINT`` names another server, ``HF_HUB_OFFLINE=1`` asks none.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noumena.artifact.card import hub_card
from noumena.artifact.manifest import FILES, MANIFEST, verify
from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError, NoumenaError

log = logging.getLogger("noumena")

# A pathlib.Path, as the command line makes of its arguments, has one of the slashes.
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILES = (MANIFEST, *FILES)
_LIBRARIES = {"httpx", "httpcore", "httpx2", "httpcore2", "requests", "urllib3"}

# Where this process has put what it fetched, so that one command reads one revision throughout.
_fetched: dict[str, Path] = {}


@dataclass(frozen=True)
class Address:
    """A repository and a revision of it: a branch, a tag or a commit; ``None`` is the newest of the main branch."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repo}" + ("" if self.revision is None else f"@{self.revision}")


@dataclass(frozen=True)
class Pushed:
    """What :func:`push` made.

    Attributes:
        repo, commit: the repository and the commit, by which exactly this model is loaded again.
        url: of the commit.
    """

    repo: str
    commit: str
    url: str

    @property
    def address(self) -> str:
        """What :func:`noumena.load` takes."""
        return str(Address(self.repo, self.commit))


def is_address(path: str | Path) -> bool:
    """Whether ``path`` means a repository on the Hub."""
    return _plain(path).startswith("hf:/")


def parse(path: str | Path) -> Address:
    """The parts of ``hf://OWNER/NAME[@REVISION]``.

    Raises:
        ConfigError: it is not of that form.
    """
    found = _ADDRESS.fullmatch(_plain(path))
    if found is None or ".." in found[0]:
        raise ConfigError(f"'{_plain(path)}': expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION.")
    return Address(found["repo"], found["revision"])


def _plain(path: str | Path) -> str:
    return path.as_posix() if isinstance(path, Path) else path


def fetched(path: str | Path) -> Path:
    """The folder that :func:`fetch` gave for this address in this process; it is fetched if there is none."""
    return _fetched.get(str(parse(path))) or fetch(path)


def fetch(path: str | Path) -> Path:
    """Download the model folder at ``hf://OWNER/NAME[@REVISION]``, or what of it is not in the cache, and check it.

    Without a network the newest copy of the revision in the cache is used, with a warning. A commit in the cache is
    used without asking anybody, since it cannot change.

    Raises:
        ConfigError: no such form of address.
        NotSupportedError: huggingface_hub is not installed.
        ArtifactError: no such repository or revision, no access, no network and no copy, or the files are damaged.
    """
    address = parse(path)
    hub = _library()
    with _in_words(str(address)):
        folder = Path(_cached(hub, address) or _downloaded(hub, address))
    try:
        verify(folder)
    except ArtifactError as error:
        raise ArtifactError(
            f"{address} is not loaded: {error} The copy is in {folder.parents[1]}; delete that folder to download it "
            "again. If that does not help, the repository itself holds no whole model: push it again."
        ) from error
    _fetched[str(address)] = folder
    return folder


def _cached(hub: Any, address: Address) -> str | None:
    """The folder of a commit that is in the cache already."""
    if address.revision is None or not _COMMIT.fullmatch(address.revision):
        return None
    return _copy(hub, address)


def _copy(hub: Any, address: Address) -> str | None:
    """The folder of the newest copy in the cache; asks nobody."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(hub, address, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def _downloaded(hub: Any, address: Address) -> str:
    try:
        # Asked for itself: the download below takes an older copy for any answer it does not like, without a word.
        hub.HfApi().repo_info(address.repo, revision=address.revision)
    except Exception as error:
        if not _is_unreachable(error) or (folder := _copy(hub, address)) is None:
            raise
        log.warning("%s: the Hub cannot be reached; using commit %s from the cache", address, Path(folder).name)
        return folder
    return _snapshot(hub, address, local_files_only=False)


def _snapshot(hub: Any, address: Address, *, local_files_only: bool) -> str:
    return hub.snapshot_download(
        address.repo, revision=address.revision, allow_patterns=list(_FILES), local_files_only=local_files_only
    )


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    endpoint: str | None = None,
) -> Pushed:
    """Upload a model folder as one commit: its files, and its card as ``README.md``. Other files there stay.

    Args:
        folder: a model folder, or a run folder that holds one.
        repo: ``OWNER/NAME``; made if it does not exist.
        private: make it private; an existing public one is refused.
        revision: a branch, made from the main one if it does not exist. Default: the main branch.
        message: of the commit.
        licence: an identifier such as ``apache-2.0``, for the card; nobody else can know it.
        endpoint: address of the server; ``HF_ENDPOINT`` or the public one when missing.

    Raises:
        ConfigError: ``repo`` has another form, or is public where ``private`` is asked for.
        ArtifactError: the folder is damaged, there is no token, or the server refuses or cannot be reached.
        NotSupportedError: huggingface_hub is not installed.
    """
    from noumena.artifact.store import model_folder

    if is_address(folder):
        raise ConfigError(f"{parse(folder)} is on the Hub already; give a run folder or a model folder.")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ConfigError(f"'{repo}': expected the name of a repository, OWNER/NAME.")
    if licence is not None and not re.fullmatch(r"[\w.+-]+", licence):
        raise ConfigError(f"license '{licence}': expected an identifier of the Hub, such as apache-2.0.")
    place = model_folder(folder)
    manifest = verify(place)
    hub = _library()
    api = hub.HfApi(endpoint=endpoint)
    if hub.get_token() is None:
        raise ArtifactError(
            f"{repo}: pushing needs an access token of the Hub with the right to write, and none is found. "
            "Log in with `hf auth login`, or set HF_TOKEN."
        )
    card = hub_card(str(Address(repo)), manifest.model, (place / "card.md").read_text(encoding="utf-8"), licence)
    files = [hub.CommitOperationAdd(name, str(place / name)) for name in _FILES]
    with _in_words(repo):
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise ConfigError(
                f"{repo} exists already and is public. Make it private in its settings, or push to another name."
            )
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        made = api.create_commit(
            repo,
            [*files, hub.CommitOperationAdd("README.md", card.encode())],
            commit_message=message or f"{manifest.model}, saved by noumena {manifest.versions.get('noumena', '')}",
            revision=revision,
        )
    return Pushed(repo, made.oid, made.commit_url)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise NotSupportedError("the Hub needs the package 'huggingface_hub': pip install 'noumena[hub]'") from error
    return huggingface_hub


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """What huggingface_hub raises, said once and with what to do."""
    try:
        yield
    except NoumenaError:
        raise
    except Exception as error:
        if (words := _explained(error)) is None:
            raise
        raise ArtifactError(f"{what}: {words}") from error


def _explained(error: Exception) -> str | None:
    """What went wrong and what to do; ``None`` if the error is none of the Hub, the network or the disk."""
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return _explained(error.__cause__)  # the upload of one file, by a thread of its own
    if isinstance(error, errors.HFValidationError):
        return f"no name of a repository: {_first_line(error)}"
    if isinstance(error, errors.GatedRepoError):
        return "its owner grants access on request. Ask for it on the page of the repository, and log in."
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision. Give a branch, a tag or a commit that its page lists."
    # The Hub answers 401 alike for a repository that is not there and for one that the caller may not see.
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"no such repository, or no access to it (HTTP {status}). Check the name; if it is private, log in with "
            "`hf auth login`, or set HF_TOKEN to a token that may read it."
        )
    if status in (401, 403):
        return (
            f"the access token is not accepted (HTTP {status}). Make one in the settings of your account, for "
            "pushing one that may write, then `hf auth login`, or set HF_TOKEN."
        )
    if status is not None:
        return f"the Hub answered HTTP {status}: {_first_line(error)} Try again later."
    if _is_unreachable(error):
        return (
            f"the Hub cannot be reached ({type(error).__name__}: {_first_line(error)}). Check the network, HF_ENDPOINT "
            "and HF_HUB_OFFLINE, or give a model folder on this machine."
        )
    if isinstance(error, OSError):
        return f"the files cannot be moved ({_first_line(error)}). Check the free space, then try again."
    return None


def _is_unreachable(error: Exception) -> bool:
    """Whether no answer came, or that of a server in trouble, whichever library asked the network."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, errors.OfflineModeIsEnabled | ConnectionError | TimeoutError) or (
        type(error).__module__.partition(".")[0] in _LIBRARIES
    )


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if line.endswith(".") else f"{line}."
