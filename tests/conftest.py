"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# An example may take as long as a busy machine makes it: pytest-timeout bounds the test, and time is no property here.
settings.register_profile("meshagent", deadline=None)
settings.load_profile("meshagent")
