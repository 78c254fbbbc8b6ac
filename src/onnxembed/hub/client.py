"""What is asked of the Hugging Face hub: one question about a revision, and files.

huggingface_hub asks and downloads, so its settings hold (HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, ...). Added
here: patience with a hub that is busy, and errors that say what to do in one line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from onnxembed.errors import HubError, ModelFilesError, NetworkError, OnnxEmbedError, UsageError
from onnxembed.hub.cache import COMMIT, Repository
from onnxembed.hub.source import HubOptions
from onnxembed.warning import warn

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

# Seconds for an answer when a cached copy could serve instead: opening a model should not wait longer for its hub.
QUICK = 3.0
# Seconds before each further attempt when nothing could serve instead.
PAUSES = (1, 2, 4, 8)
# Seconds after which no attempt is made any more; a hub that asks for a longer wait is not waited for.
LONGEST = 60
BUSY = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Listing:
    """What the hub says of a revision."""

    commit: str
    names: list[str]


class UnreachableError(Exception):
    """The hub is busy or cannot be reached, or, if `wanted`, must not be asked; `cure` is what to do."""

    def __init__(self, message: str, cure: str, *, wanted: bool = False) -> None:
        super().__init__(message)
        self.cure, self.wanted = cure, wanted


@dataclass(frozen=True)
class Client:
    """Asks the hub about a repository."""

    repository: Repository
    hub: HubOptions

    @property
    def ban(self) -> UnreachableError | None:
        """What forbids to ask the hub, if anything does."""
        from huggingface_hub import constants

        if not (self.hub.local_files_only or constants.HF_HUB_OFFLINE):
            return None
        why = "local_files_only (--offline)" if self.hub.local_files_only else "HF_HUB_OFFLINE"
        return UnreachableError(f"{constants.ENDPOINT} is not asked ({why} is set)", "run once without it", wanted=True)

    def ask(self, revision: str, *, patient: bool) -> Listing:
        """The revision's commit and the names of its files; a busy hub is asked again if `patient`.

        Raises UnreachableError when the hub must not or cannot be asked, HubError when it says no.
        """
        if (ban := self.ban) is not None:
            raise ban
        started, pauses = time.monotonic(), iter(PAUSES if patient else ())
        while True:
            try:
                return _listing(self._info(revision, patient=patient))
            except Exception as error:
                asked = _asked_to_wait(error)
                wait = max(next(pauses, LONGEST), asked)
                if not _busy(error) or time.monotonic() - started + wait >= LONGEST:
                    raise self._no_answer(error) from error
                if asked:
                    warn(f"{self._no_answer(error)}; waiting")
                time.sleep(wait)

    def download(self, file: str, commit: str, *, anew: bool = False) -> None:
        """Put a file of a commit into the cache, unless it is there; `anew` replaces what is there."""
        from huggingface_hub import hf_hub_download

        repository, token = self.repository, self.hub.token
        try:
            hf_hub_download(
                repository.model,
                file,
                revision=commit,
                cache_dir=repository.cache_dir,
                token=token,
                force_download=anew,
            )
        except Exception as error:
            raise self._explained(error, file) from error

    def _info(self, revision: str, *, patient: bool) -> ModelInfo:
        from huggingface_hub import HfApi, constants

        # A limit that the user has set holds in any case.
        own = patient or constants.HF_HUB_ETAG_TIMEOUT != constants.DEFAULT_ETAG_TIMEOUT
        timeout = constants.HF_HUB_ETAG_TIMEOUT if own else QUICK
        api = HfApi(token=self.hub.token)
        return api.model_info(self.repository.model, revision=revision, timeout=timeout)

    def _no_answer(self, error: Exception) -> Exception:
        """Our error for one of `_info`."""
        from huggingface_hub import constants

        if not _unreachable(error):
            return self._explained(error)
        if _status(error) is None:
            return UnreachableError(f"could not reach {constants.ENDPOINT} ({_reason(error)})", "run with the network")
        return UnreachableError(f"{constants.ENDPOINT} is busy ({_answer(error)})", "run again later")

    def _explained(self, error: Exception, what: str = "list of files") -> OnnxEmbedError:
        """Our error for one of huggingface_hub's, or of its HTTP and xet clients, which it lets through."""
        from huggingface_hub import constants, errors

        hub, model = constants.ENDPOINT, self.repository.model
        log_in = "set HF_TOKEN or run `hf auth login`"
        status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
        if isinstance(error, errors.LocalTokenNotFoundError):
            return UsageError(f"token=True asks for the saved token, and there is none: {log_in}")
        if isinstance(error, errors.EntryNotFoundError) and status == 404:
            return ModelFilesError(f"{model} at {self.repository.revision} has no {what}")
        if isinstance(error, errors.RevisionNotFoundError):
            revision = self.repository.revision
            return HubError(f"{model} has no revision {revision!r} on {hub}; give a branch, a tag or a commit")
        # The hub also answers 401 to anonymous users for a missing model; huggingface_hub tells the two apart.
        unknown = isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError)
        if status in (401, 403) and not unknown:
            answer = _one_line(getattr(error, "server_message", None) or _reason(error))
            return HubError(
                f"{model} is gated or private ({answer}): {log_in}, and accept the model's terms at {hub}/{model}"
            )
        if unknown or status == 404:
            return HubError(
                f"no folder {model!r} here and no such model on {hub}; check the name, or, if it is private, {log_in}"
            )
        if isinstance(error, OSError) and error.errno:  # a full disk has an errno; xet's errors have nothing
            return HubError(
                f"could not put {what} of {model} into the cache {self.repository.cache_dir} ({error}): make room "
                "there, or give another cache with cache_dir (--cache-dir)"
            )
        kind = HubError if status is not None and not _unreachable(error) else NetworkError
        return kind(f"could not get the {what} of {model} from {hub} ({_reason(error)}); run again to get the rest")


def unknown_revision(error: HubError) -> bool:
    """Whether the hub said that it has no such revision."""
    from huggingface_hub import errors

    return isinstance(error.__cause__, errors.RevisionNotFoundError)


def _listing(info: ModelInfo) -> Listing:
    if info.sha is None or not COMMIT.fullmatch(info.sha) or info.siblings is None:
        raise ValueError("the answer names no commit or no files")
    return Listing(info.sha, [file.rfilename for file in info.siblings])


def _status(error: Exception) -> int | None:
    from huggingface_hub import errors

    return error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None


def _unreachable(error: Exception) -> bool:
    """Whether an error means that the hub could not answer, rather than that it said no."""
    status = _status(error)
    # The HTTP client is httpx up to huggingface_hub 1, httpx2 from 2 on.
    return type(error).__module__.startswith("httpx") if status is None else status in (408, 429) or status >= 500


def _busy(error: Exception) -> bool:
    """Whether the hub may answer soon: it said so, was slow, or broke off. Without a network it never does."""
    status = _status(error)
    return (_unreachable(error) and "ConnectError" not in type(error).__name__) if status is None else status in BUSY


def _asked_to_wait(error: Exception) -> int:
    """The seconds that the hub asks to wait; 0 if it does not say."""
    from huggingface_hub import errors

    headers: Mapping[str, str] = error.response.headers if isinstance(error, errors.HfHubHTTPError) else {}
    after = headers.get("retry-after", "").strip()
    if after.isdigit():
        return int(after)
    if reset := re.search(r"\br\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("ratelimit", "")):
        return int(reset[1])
    try:
        return max(0, round(parsedate_to_datetime(after).timestamp() - time.time()))
    except ValueError:
        return 0


def _reason(error: Exception) -> str:
    if _status(error) is not None:
        return _answer(error)
    cause = error.__cause__  # huggingface_hub wraps what happened in paragraphs of advice
    if cause is None:
        return f"{type(error).__name__}: {_one_line(str(error))}"
    return _reason(cause) if isinstance(cause, Exception) else type(cause).__name__


def _answer(error: Exception) -> str:
    """What the hub answered: status, its name, and how long it asks to wait."""
    from huggingface_hub import errors

    assert isinstance(error, errors.HfHubHTTPError)
    asked = _asked_to_wait(error)
    wait = f"; it asks to wait {asked} seconds" if asked else ""
    return f"{error.response.status_code} {_one_line(error.response.reason_phrase)}{wait}"


def _one_line(text: str) -> str:
    """The first line of what a server said, without what a terminal would obey."""
    return "".join(letter for letter in text.partition("\n")[0] if letter.isprintable())
