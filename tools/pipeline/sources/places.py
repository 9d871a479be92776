# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Base URLs and URLs as people may write them: split without surprises, shown without secrets."""

import re
import urllib.parse

SCHEMES = ("http", "https", "file")
# RFC 3986: user information ends at the last '@' of the authority, which ends at '/', '?', '#'. Also in the
# middle of somebody else's sentence, so quotes and blanks end it too.
_USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*:/{2,})[^\s/?#'\"<>]*@")


def mask(text: str) -> str:
    """The text with *** in place of each user and password in a URL."""
    return _USER.sub(r"\g<scheme>***@", text)


def split(url: str) -> urllib.parse.SplitResult | None:
    """The parts of a base URL that this program can use; None for anything else.

    urlsplit raises ValueError for some, and only at a look at `port` for others.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    # file:///path has no host, the others need one.
    good = parts.scheme in SCHEMES and (parts.scheme == "file") == (not parts.netloc) and port != 0
    return parts if good and (parts.scheme == "file" or parts.hostname) else None
