"""The stand-in for the Hugging Face hub, and how to make it the hub of the tests' process."""

from __future__ import annotations

import time

import pytest

from models import hub_server


class HubServer(hub_server.HubServer):
    """A stand-in hub that this process can be told to ask."""

    def answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make this server the hub of this process."""
        ask(self.url, monkeypatch)


def ask(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have huggingface_hub in this process ask the hub at `url`, without waits between attempts."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
