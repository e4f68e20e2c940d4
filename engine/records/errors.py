"""Every error that saescope raises on purpose. Each says what happened and what to do about it.

    SaescopeError
    ├── UsageError        the request itself makes no sense (exit code 2)
    │   ├── EditError     an edit that cannot be applied: unknown feature, bad strength
    │   └── HookError     a hook point this model does not have
    ├── ModelError        the language model cannot be loaded or run
    ├── SaeError          the SAE's files are missing, broken or of an unknown kind
    │   └── MismatchError the SAE does not fit the model
    ├── SessionError      a session file that cannot be read or written
    │   └── NewerSessionError a session that a newer saescope wrote: nothing is wrong with it
    ├── NotesError        notes on features, or explanations of features, that cannot be read or written
    └── EngineFault       an unexpected failure inside the engine; the log has the details

Prompt sets are a package of their own, which raises `prompts.PromptSetError`.
"""

from __future__ import annotations


class SaescopeError(Exception):
    """Base class: `message` says what happened, `remedy` what the user can do ("" if nothing is known)."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(SaescopeError):
    """The request itself makes no sense."""

    exit_code = 2


class EditError(UsageError):
    """An edit that cannot be applied."""


class HookError(UsageError):
    """A hook point this model does not have."""


class ModelError(SaescopeError):
    """The language model cannot be loaded or run."""


class SaeError(SaescopeError):
    """The SAE's files are missing, broken or of an unknown kind."""


class MismatchError(SaeError):
    """The SAE does not fit the model."""


class SessionError(SaescopeError):
    """A session file that cannot be read or written."""


class NewerSessionError(SessionError):
    """A session that a newer saescope wrote: nothing is wrong with it."""


class NotesError(SaescopeError):
    """Notes on features, or explanations of features, that cannot be read or written."""


class EngineFault(SaescopeError):
    """An unexpected failure inside the engine."""
