"""Finds secrets and personal data in texts: patterns, and checksums where a number has one.

A finder takes a text and what to put in place of a found value, and gives the new text. Each
pattern starts only where a run of its characters starts, so that time grows with the text's length
and no faster.

Sources: ISO/IEC 7812 (cards), SWIFT's IBAN registry, ISO 7064 (check digits), E.164 (telephone),
and the authorities' own descriptions of the national ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

Finder: TypeAlias = Callable[[str, Callable[[str], str]], str]


def _pattern(expression: str, is_valid: Callable[[str], bool] = lambda _: True) -> Finder:
    """Finds what the expression matches, or its group `value`, where that is valid."""
    compiled = re.compile(expression)
    has_group = "value" in compiled.groupindex

    def find(text: str, name: Callable[[str], str]) -> str:
        def put(found: re.Match[str]) -> str:
            value = found["value"] if has_group else found[0]
            if not is_valid(value):
                return found[0]
            return found[0].replace(value, name(value)) if has_group else name(value)

        return compiled.sub(put, text)

    return find


def _each(*finders: Finder) -> Finder:
    def find(text: str, name: Callable[[str], str]) -> str:
        for one in finders:
            text = one(text, name)
        return text

    return find


def known(secrets: Sequence[str]) -> Finder:
    """Finds secrets that we know by heart, and by their pattern those that we do not."""
    ordered = sorted(secrets, key=len, reverse=True)
    ours = _pattern("|".join(map(re.escape, ordered)))

    def find(text: str, name: Callable[[str], str]) -> str:
        return ours(text, name) if any(secret in text for secret in ordered) else text

    return _each(find, SECRETS["secret"])


class Hints(NamedTuple):
    """What may be in a text, in lower case; as few of them as tell the same."""

    plain: Sequence[str]
    joined: Sequence[str]
    """Those with an underscore: most texts have none."""

    @classmethod
    def of(cls, hints: Iterable[str]) -> Hints:
        """What holds another one need not be looked for."""
        given = dict.fromkeys(hints)
        few = [one for one in given if not any(o in one for o in given if o != one)]
        return cls([one for one in few if "_" not in one], [one for one in few if "_" in one])


def has_one(text: str, hints: Hints) -> bool:
    """Whether one of these is in the text, in whatever case.

    Looked for one by one, as texts: one pattern of them all takes six times as long.
    """
    folded = text.casefold()
    if not text.isascii():
        # As `re` does: casefold leaves the first, and puts a dot above what it makes of the second.
        folded = folded.replace("\u0131", "i").replace("i\u0307", "i")
    if any(hint in folded for hint in hints.plain):
        return True
    return "_" in folded and any(hint in folded for hint in hints.joined)


def _hinted(hints: Hints, expression: str) -> Finder:
    """Finds what the expression matches; what it matches has one of the hints."""
    finder = _pattern(expression)

    def find(text: str, name: Callable[[str], str]) -> str:
        return finder(text, name) if has_one(text, hints) else text

    return find


# ---------------------------------------------------------------- secrets

_PRIVATE_KEY = r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_KEYS = (
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, Stripe
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[abeprs]-[\w-]{10,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}"
    r"|(?:hf|npm)_[A-Za-z0-9]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON Web Token
    r")"
)
_BEARER = r"(?i:(?<![a-z])(?:bearer|basic)\s{1,4})(?P<value>(?=[^\s\d]{0,200}\d)[\w.~+/=-]{12,})"
_ASSIGNED = (
    r"(?i:(?<![a-z<])(?:api[_-]?key|access[_-]?key|secret(?:[_-]key)?|password|passwd"
    r"|(?:auth|access|refresh)[_-]?token|authorization))"
    r"[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?P<value>[^\s\"',;<>{}\[\]\\]{8,})"
)
_URL = r"://[^/\s:@]{0,100}:(?P<value>[^@/\s<>]{1,200})@"

_BY_HINT = {
    ("private key",): _PRIVATE_KEY,
    (
        *("sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "akia", "asia", "xox", "aiza", "ya29", "eyj"),
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "hf_", "npm_"),
    ): _KEYS,
    ("bearer", "basic"): _BEARER,
    (
        *("apikey", "api_key", "api-key", "accesskey", "access_key", "access-key", "secret"),
        *("password", "passwd", "token", "authorization"),
    ): _ASSIGNED,
    ("://",): _URL,
}
HINTS = tuple(hint for hints in _BY_HINT for hint in hints)
"""One of these, in whatever case, is in every text that holds a secret."""

SECRETS: Mapping[str, Finder] = {
    "secret": _each(*(_hinted(Hints.of(one), pattern) for one, pattern in _BY_HINT.items()))
}
"""What is never kept."""


# ---------------------------------------------------------------- numbers

_GAP = r"[ .\-\u00a0\u2009\u2011\u2013]"
_RUN = re.compile(rf"(?<!\w)[0-9](?:{_GAP}?[0-9]){{12,}}(?!\w)")
_GROUP = re.compile(r"[0-9]+")
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|35\d{14}|6(?:011|4[4-9]\d|5\d\d|2\d\d)\d{12,15}|(?:5[06-9]|6\d)\d{14,17}"
)


def _is_card(digits: str) -> bool:
    return _CARD.fullmatch(digits) is not None and _luhn(digits)


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _cards(text: str, name: Callable[[str], str]) -> str:
    """Cards, also where other numbers stand before or behind: any row of whole groups of digits."""
    return _RUN.sub(lambda run: _cards_in(run[0], name), text)


def _cards_in(run: str, name: Callable[[str], str]) -> str:
    groups = [(group.start(), group.end()) for group in _GROUP.finditer(run)]
    kept: list[str] = []
    done = 0
    for first, (start, _) in enumerate(groups):
        end = _card_end(run, groups[first : first + 19]) if start >= done else None
        if end is not None:
            kept += [run[done:start], name(run[start:end])]
            done = end
    return "".join([*kept, run[done:]])


def _card_end(run: str, groups: Sequence[tuple[int, int]]) -> int | None:
    """Where a card ends that begins with the first of these groups of digits; None for no card."""
    digits = ""
    for start, end in groups:
        digits += run[start:end]
        if len(digits) > 19:
            return None
        if len(digits) >= 13 and _is_card(digits):
            return end
    return None


_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18"
        "FO18FR27GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IS26IT27JO30KW30KZ20LB28LI21LT20LU20LV21"
        "MC27MD24ME22MK19MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SE24SI19SK24SM27TN24"
        "TR26UA29VA22XK20",
    )
}


def _ibans(text: str, name: Callable[[str], str]) -> str:
    return _IBAN.sub(lambda found: _iban_in(found[0], name), text)


def _iban_in(run: str, name: Callable[[str], str]) -> str:
    """The run with the IBAN at its start named; how long that is, the country says."""
    length = _IBAN_LENGTHS.get(run[:2].upper(), 0)
    places = [place for place, sign in enumerate(run) if sign.isalnum()]
    if not length or len(places) < length:
        return run
    end = places[length - 1] + 1
    return name(run[:end]) + run[end:] if _is_iban(run[:end]) else run


def _is_iban(text: str) -> bool:
    signs = "".join(filter(str.isalnum, text)).upper()
    moved = signs[4:] + signs[:4]
    return int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


# ---------------------------------------------------------------- people

_EMAIL = r"(?<![\w.%+'-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,63}"
_PHONES = (
    r"(?<![\w.+])(?:\+|00)[1-9](?:[ ().\-/]{0,2}\d){6,14}(?!\d)",  # international
    r"(?<![\w.-])(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\w-])",  # North America
    r"(?<![\w.,:/-])0[1-9](?:[ .-]\d{2}){4}(?![\w-])",  # France
    r"(?<![\w.,:/-])\(?0[1-9]\d{1,3}\)?[ /-]{1,2}\d{3,8}(?:[ -]?\d{2,4}){0,3}(?![\w-])",  # trunk 0
)


def _is_trunk_call(text: str) -> bool:
    return 9 <= sum(map(str.isdigit, text)) <= 12


def _is_dni(text: str) -> bool:
    """Spain: the letter is the number modulo 23."""
    number = text.replace("-", "").upper()
    digits = number[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23] == number[-1]


def _is_nir(text: str) -> bool:
    """France: the last two digits make the number a multiple of 97; Corsica's 2A is 19, 2B 18."""
    number = text.replace(" ", "").upper().replace("2A", "19").replace("2B", "18")
    return (int(number[:13]) + int(number[13:])) % 97 == 0


def _is_tax_id(text: str) -> bool:
    """Germany: ISO 7064, MOD 11,10."""
    digits = [int(digit) for digit in text if digit.isdigit()]
    rest = 10
    for digit in digits[:10]:
        rest = ((rest + digit) % 10 or 10) * 2 % 11
    return (11 - rest) % 10 == digits[10]


_IDS = (
    _pattern(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])"),  # USA
    _pattern(
        r"(?<!\w)(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
        r" ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)"
    ),  # United Kingdom
    _pattern(r"(?<![\w-])(?:[XYZ]\d{7}|\d{8})-?[A-Z](?!\w)", _is_dni),
    _pattern(
        r"(?<!\w)[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}(?!\w)", _is_nir
    ),
    _pattern(r"(?<![\w.-])[1-9]\d ?\d{3} ?\d{3} ?\d{3}(?![\w.-])", _is_tax_id),
    _pattern(r"(?<!\w)[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z](?!\w)"),  # Italy
)

PERSONAL: Mapping[str, Finder] = {
    "email": _pattern(_EMAIL),
    "iban": _ibans,
    "card": _cards,
    "national_id": _each(*_IDS),
    "phone": _each(*map(_pattern, _PHONES[:-1]), _pattern(_PHONES[-1], _is_trunk_call)),
}
"""Personal data by kind, in the order in which they are looked for: the strictest first."""
