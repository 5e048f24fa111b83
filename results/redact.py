"""Words without the secrets in them: what a person types or a library says may reach a record that is published.

Standard library only. Every pattern is linear in the length of the text: names begin where no letter stands before
them, and what was matched once is not given back (`++`).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

__all__ = ["redacted", "redacted_words"]

_HIDDEN = "***"
_LOGIN = re.compile(r"(?<![\w+.-])([\w+.-]++:/{1,2})(?![\s/@])(\S++)")
"""`scheme://user:password@`; with one slash where a path was made of it."""

_KINDS = "key|token|password|passwd|passphrase|pwd|secret|credential|authorization"
_LAST = rf"(?i:{_KINDS})(?i:s?)(?![\w-])"
_PART = rf"(?:{_LAST}|(?i:{_KINDS})(?=[_\-\d])|(?i:{_KINDS})(?<=[a-z])(?=[A-Z]))"
"""In a name: at its end, or before another of its words (`key_id`, `TOKEN-2`, `privateKeyFile`), not in `keyboard`."""
_NAMES = rf"(?=[\w-]*?{_PART})(?!\w*(?:Error|Exception|Warning)\b)[\w-]++"
_ENDING = rf"(?=[\w-]*?{_LAST})[\w-]++"

_QUOTED = r"""\\{1,9}(?P<mark>["']).*?\\{1,9}(?P=mark)|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+(?:'"'"'[^'\n]*+)*+'?"""
"""A value in quotes: with escaped ones (JSON in JSON); in double ones; in single ones, as a shell joins them."""
_BARE = r"""(?:[^\s&,;]|,(?!\s|[\w.-]*=))*[^\s&,;"')\]}]"""
"""A value without quotes: up to a blank, `&`, `;`, or a comma before the next name."""
_VALUE = rf"(?:(?i:bearer|basic|digest|token)[ \t]+)?(?:{_QUOTED}|{_BARE})"

_WORD = re.compile(rf"""(["'])(-*{_NAMES}=)(?!["'\\])(?:(?!\1)[^\n])++""")
"""`'password=my secret pass'`: one word of a shell, quoted whole."""
_MARK = r"""\\{0,9}["']"""
_EQUALS = rf"(?:(?:{_MARK})?[ \t]{{0,4}}=[ \t]{{0,4}}|{_MARK}[ \t]{{0,4}}:\s{{0,4}})"
_ASSIGNED = re.compile(rf"(?<![\w-])(?!(?:OLD)?PWD=/)({_NAMES}{_EQUALS}){_VALUE}")
"""`access_token=X`, `WANDB_KEY="X Y"`, `{'api_key': 'X'}`, but for the shell's own `PWD=/folder`."""
_TOLD = re.compile(rf"(?<![\w./\\-])({_ENDING}:[ \t]{{1,4}}|(?=--){_ENDING}\s{{1,4}}(?!-)){_VALUE}")
"""`X-Api-Key: X`, `Authorization: Bearer X`, `--api-key X`; a colon after the name of a file is none of these."""
_SCHEME = re.compile(r"\b((?i:bearer)\s{1,4}(?=[\w.~+/=-])|(?i:basic)\s{1,4}(?=[a-z+/]{0,80}[A-Z0-9=]))[\w.~+/=-]{6,}+")
"""`Bearer X`, `Basic X` of a header; a plain word after `basic` is none."""
_OPTION = re.compile(rf"--?{_ENDING}")
_BLANK_LOGIN = re.compile(r"(://)[^/@\n]*+@")
_SECRET = re.compile(_PART)
"""How environment variables that hold secrets are called: WANDB_API_KEY, MLFLOW_TRACKING_TOKEN, ..."""
_SHORTEST = 8
"""Characters of a value that is looked for (ours): a shorter one is found in innocent words."""


def redacted(text: str) -> str:
    """The text with `***` for logins in URLs, for values named as secrets, and for the environment's secrets."""
    for name, value in os.environ.items():
        if _SECRET.search(name) and name not in ("PWD", "OLDPWD") and len(value.strip()) >= _SHORTEST:
            text = text.replace(value.strip(), _HIDDEN)
    text = _LOGIN.sub(_without_login, text)
    text = _WORD.sub(rf"\1\2{_HIDDEN}", text)
    for pattern in (_ASSIGNED, _TOLD, _SCHEME):
        text = pattern.sub(rf"\1{_HIDDEN}", text)
    return text


def redacted_words(words: Sequence[str]) -> str:
    """The words of a command as a shell would take them, without secrets.

    Of a word with blanks, which somebody put in quotes, all is hidden from where a secret's value begins: where it ends
    only that person knows. So is the word after an option that is called as a secret.
    """
    found, before = [], ""
    for word in words:
        if _OPTION.fullmatch(before) and not word.startswith("-"):
            found.append(_HIDDEN)
        elif word.split() != [word]:
            starts = [match.end(1) for pattern in (_ASSIGNED, _TOLD, _SCHEME) if (match := pattern.search(word))]
            cut = word[: min(starts)] + _HIDDEN if starts else word
            found.append(redacted(_BLANK_LOGIN.sub(rf"\1{_HIDDEN}@", cut)))
        else:
            found.append(redacted(word))
        before = word
    return " ".join(_HIDDEN if word == _HIDDEN else shlex.quote(word) for word in found)


def _without_login(match: re.Match[str]) -> str:
    """An address, without what stands before its last `@`."""
    login, at, place = match[2].rpartition("@")
    return f"{match[1]}{_HIDDEN}@{place}" if at and login else match[0]
