"""The files of a hub model, which come into the hub client's cache when they are asked for.

A branch or tag is asked for once, when the model is opened; a commit is never asked for while the cache has what is
wanted. If the hub cannot be reached, files come from the cache, with one warning.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Sequence

from onnxembed.errors import HubError, IntegrityError, ModelFilesError, NetworkError
from onnxembed.hub.cache import Repository
from onnxembed.hub.client import Client, UnreachableError, unknown_revision
from onnxembed.hub.damage import damage
from onnxembed.hub.model_files import ModelFiles
from onnxembed.hub.source import HubOptions, file_names, refuse_gaps
from onnxembed.warning import warn

# A snapshot with this file was made for sentence-transformers, which takes all that goes with it.
MODULES_FILE = "modules.json"
# Names of a warning that lists files.
SHOWN = 3


class HubFiles(ModelFiles):
    """The files of a hub model at one commit, in the hub client's cache.

    Raises HubError when the hub cannot be asked about a branch or tag that the cache does not have, or has no such
    revision.
    """

    def __init__(self, model: str | os.PathLike[str], hub: HubOptions) -> None:
        self._repository = Repository.of(model, hub)
        self._client = Client(self._repository, hub)
        self._listed: Collection[str] | None = None
        self._obstacle: UnreachableError | HubError | None = None
        self._refresh = hub.refresh
        self._downloaded: set[str] = set()
        self._renewed: set[str] = set()
        self._assumed = False
        self.commit = self._repository.commit or self._ask_revision()
        super().__init__(self._repository.model, self._repository.snapshot(self.commit), self.commit)

    def _ask_revision(self) -> str:
        """The commit of a branch or tag: the hub's, or, if it cannot be had, the cache's, which is said."""
        cached = None if self._refresh else self._repository.cached_commit()
        try:
            listing = self._client.ask(self._repository.revision, patient=cached is None)
        except UnreachableError as error:
            if cached is None:
                raise self._missing("fresh copy" if self._refresh else "copy", error) from error.__cause__
            self._use_cache(error)
            return cached
        except HubError as error:
            if cached is None or unknown_revision(error):
                raise
            self._use_cache(error)
            return cached
        self._listed = listing.names
        return listing.commit

    def _use_cache(self, obstacle: UnreachableError | HubError) -> None:
        """Use the cache from here on; warn once, unless the caller wanted it."""
        if self._obstacle is None and not (isinstance(obstacle, UnreachableError) and obstacle.wanted):
            warn(f"{obstacle}; using the cached copy of {self._repository.model}")
        self._obstacle = obstacle

    def _missing(self, files: str, obstacle: UnreachableError | HubError) -> HubError:
        """The error for files that are not in the cache."""
        if isinstance(obstacle, HubError):
            return obstacle
        repository, kind = self._repository, HubError if obstacle.wanted else NetworkError
        return kind(
            f"no folder {repository.model} here; {obstacle}, and the cache {repository.cache_dir} has no {files} of "
            f"{repository.model} at {repository.revision}: {obstacle.cure}, or give the cache that has it"
        )

    @property
    def can_ask(self) -> bool:
        """Whether the hub may be asked, and answered so far."""
        return self._client.ban is None and self._obstacle is None

    @property
    def listed(self) -> Collection[str] | None:
        """The names of all files of the commit, if they are known without a question to the hub."""
        if self._listed is None:
            self._listed = self._repository.listed(self.commit)
        return self._listed

    def look_up(self, missing: Sequence[str] = ()) -> Collection[str] | None:
        """The names of all files of the commit; None if the hub cannot tell, which is an error if files are `missing`.

        Raises HubError or NetworkError, which names the missing files.
        """
        if self.listed is not None:
            return self.listed
        needed = ", ".join(missing) or ("fresh copy" if self._refresh else "")
        obstacle = self._obstacle
        if obstacle is None or (needed and isinstance(obstacle, UnreachableError) and not obstacle.wanted):
            try:
                self._listed, self._obstacle = self._client.ask(self.commit, patient=bool(needed)).names, None
                return self._listed
            except (UnreachableError, HubError) as error:
                obstacle = error
        if needed:
            raise self._missing(needed, obstacle) from obstacle.__cause__
        self._use_cache(obstacle)
        return None

    @property
    def names(self) -> Collection[str]:
        """The names of all files of the commit; of those in the cache, if the hub cannot tell."""
        names = self.look_up()
        return file_names(self.folder) if names is None else names

    def knows(self, file: str) -> bool:
        """Whether the folder has the file, or the cache a note that the commit has none."""
        return self._has(file) or self._repository.absent(self.commit, file)

    def _has(self, file: str) -> bool:
        return (self.folder / file).is_file() and (not self._refresh or file in self._downloaded)

    def _is_entry(self, file: str) -> bool:
        """Whether the folder has an entry for the file, which may be a link to a copy that is gone."""
        return os.path.lexists(self.folder / file)

    def get(self, wanted: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Download what is missing; asks nothing of the hub if nothing is, and it is known what the model lacks."""
        wanted = list(wanted)
        unknown = [file for file in optional if not self.knows(file)]
        missing = [file for file in wanted if not self._has(file)] + [file for file in unknown if self._is_entry(file)]
        if not missing and not unknown:
            return
        names = self.look_up(missing)
        if names is None:
            self._assume_absent(unknown)
            return
        refuse_gaps([file for file in missing if file not in names], f"{self.model} at {self.commit}")
        self._download([file for file in (*unknown, *missing) if file in names])
        self._repository.note_absent(set(unknown) - set(names), self.commit)

    def _assume_absent(self, files: Sequence[str]) -> None:
        """Go on without files that the model may have, and say so once, unless a file shows that it has none."""
        if self._assumed or (self.folder / MODULES_FILE).is_file():
            return
        self._assumed = True
        more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
        warn(
            f"the cache does not say whether {self.model} has {', '.join(files[:SHOWN])}{more}; taken as absent until "
            "the hub can be asked"
        )

    def get_if_possible(self, pattern: re.Pattern[str]) -> None:
        """Download the files of these names that the model is known to have, if the hub gives them."""
        with contextlib.suppress(HubError, ModelFilesError):
            self._download([file for file in self.listed or () if pattern.fullmatch(file)])

    def first(self, candidates: Sequence[str]) -> str | None:
        """Download the first of `candidates` that the model has; asks nothing of the hub if the cache can tell."""
        for file in candidates:
            if not self.knows(file):
                names = self.look_up([file] if self._is_entry(file) else []) or ()
                self._download([file] if file in names else [])
                if names and file not in names:
                    self._repository.note_absent([file], self.commit)
            if self._has(file):
                return file
        return None

    def _download(self, files: Iterable[str], *, anew: bool = False) -> None:
        """Put files into the cache that the commit has; HubError if the hub must not or cannot be asked."""
        missing = [file for file in dict.fromkeys(files) if anew or not self._has(file)]
        if not missing:
            return
        self._obstacle = self._client.ban or self._obstacle
        if self._obstacle is not None:
            raise self._missing(", ".join(missing), self._obstacle)
        for file in missing:
            self._client.download(file, self.commit, anew=anew or self._refresh)
            self._downloaded.add(file)

    def renew(self, file: str, problem: IntegrityError) -> None:
        """Download a damaged file anew, once; IntegrityError if the hub cannot be asked, or that has not helped."""
        if file in self._renewed:
            raise problem
        self._renewed.add(file)
        damaged = f"{file} of {self.model} is damaged in the cache, and cannot be downloaded anew"
        if isinstance(obstacle := self._client.ban or self._obstacle, UnreachableError):
            raise IntegrityError(f"{damaged}: {obstacle}; {obstacle.cure}", file)
        try:
            self._download([file], anew=True)
        except HubError as error:
            raise IntegrityError(f"{damaged}: {error}", file) from error
        if (found := damage(self.folder / file)) is not None:
            came = f"{file} of {self.model} comes damaged from the hub ({found})"
            raise IntegrityError(f"{came}: run again later, or tell its owner", file)
        warn(f"{file} of {self.model} was damaged, and has been downloaded anew")

    def check(self, files: Iterable[str]) -> None:
        """Compare these files with what the cache knows of them, and download damaged ones anew."""
        for file in files:
            if (found := damage(self.folder / file)) is not None:
                self.renew(file, IntegrityError(f"{file} of {self.model} is damaged ({found})", file))

    def remember(self) -> None:
        """Let the revision's name stand for this commit in the cache."""
        self._repository.remember(self.commit)
