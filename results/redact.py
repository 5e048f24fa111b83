"""Words without the secrets in them: what a person types or a library says may reach a record that is published.

Standard library only.
"""

from __future__ import annotations

import os
import re

__all__ = ["redacted"]

_HIDDEN = "***"
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s/@]\S*@")
"""`scheme://user:password@`; with one slash where a path was made of it."""
_KINDS = r"(?:api[_-]?key|access[_-]?key|token|passw(?:or)?d|secret)s?"
_NAMED = re.compile(rf"({_KINDS}=|--[\w-]*{_KINDS}\s+(?!-))[^\s&,;]+", re.IGNORECASE)
"""`access_token=X`, `WANDB_API_KEY=X`, `--api-key X`."""
_SECRET = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PWD|CREDENTIALS?)$", re.IGNORECASE)
"""How environment variables that hold secrets are called: WANDB_API_KEY, MLFLOW_TRACKING_TOKEN, ..."""
_SHORTEST = 8
"""Characters of a value that is looked for (ours): a shorter one is found in innocent words."""


def redacted(text: str) -> str:
    """The text with `***` for logins in URLs, for values named as secrets, and for the environment's secrets."""
    for name, value in os.environ.items():
        if _SECRET.search(name) and name not in ("PWD", "OLDPWD") and len(value.strip()) >= _SHORTEST:
            text = text.replace(value.strip(), _HIDDEN)
    text = _LOGIN.sub(rf"\1{_HIDDEN}@", text)
    return _NAMED.sub(rf"\1{_HIDDEN}", text)
