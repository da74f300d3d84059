"""Values of personal data with right check digits, and what only looks like them, in the formats of each half.

A maker is a function of the generator of random numbers; `FORMATS[half][slot]` lists those of a slot, or of a slot in
one language: `phone zh`.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import string
import uuid
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from stdnum import iban as iban_check
from stdnum import luhn
from stdnum.br import cpf as cpf_check
from stdnum.iso7064 import mod_11_2
from stdnum.us import ssn as ssn_check

WORDS = ["amber", "river", "stone", "cloud", "maple", "north", "quiet", "copper"]
WORDS += ["lotus", "pine", "harbor", "meadow", "silver", "cedar", "willow", "falcon"]
BASE62 = string.ascii_letters + string.digits
WIDE = {ord(char): ord(char) + 0xFEE0 for char in string.digits + "()@"}

Maker = Callable[[random.Random], str]


def _digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.digits, k=count))


def _email(pattern: str, tops: str) -> Maker:
    def make(draw: random.Random) -> str:
        a, b, c = draw.sample(WORDS, 3)
        return pattern.format(a=a, b=b, c=c, A=a.title(), n=draw.randrange(10, 9999), top=draw.choice(tops.split()))

    return make


def _wide(maker: Maker) -> Maker:
    return lambda draw: maker(draw).translate(WIDE)


def _phone(region: str, how: str, mobile: bool = False) -> Maker:
    """Return a maker of valid numbers; `how`: a format of phonenumbers, or a picture with a # for each digit."""

    def make(draw: random.Random) -> str:
        kind = PhoneNumberType.MOBILE if mobile else PhoneNumberType.FIXED_LINE
        number = phonenumbers.example_number_for_type(region, kind)
        while True:
            digits = str(number.national_number)
            digits = digits[:-6] + _digits(draw, 6)
            if region in {"US", "CA"}:
                digits = f"{draw.randrange(201, 990)}{draw.randrange(201, 999)}{_digits(draw, 4)}"
            elif region == "CN":
                digits = f"1{draw.choice('35789')}{_digits(draw, 9)}" if mobile else digits
                if not mobile:
                    area = draw.choice(("10", "21", "755", "571", "20", "531"))
                    digits = f"{area}{draw.choice('5678')}{_digits(draw, 7)}"
            made = phonenumbers.parse(f"+{number.country_code}{digits}")
            if phonenumbers.is_valid_number(made):
                break
        if hasattr(PhoneNumberFormat, how):
            return phonenumbers.format_number(made, getattr(PhoneNumberFormat, how)).removeprefix("tel:")
        area = 2 if digits[:2] in {"10", "21", "20"} else 3  # of a Chinese land line
        rest = iter(digits)
        return re.sub("#", lambda _: next(rest), how.replace("A", "#" * area))

    return make


CARDS = (
    ("4", 16),
    ("51", 16),
    ("55", 16),
    ("37", 15),
    ("6011", 16),
    ("3530", 16),
    ("2223", 16),
    ("622202", 19),
    ("6217", 16),
)


def _card(lengths: tuple[int, ...], separator: str) -> Maker:
    def make(draw: random.Random) -> str:
        prefix, length = draw.choice([card for card in CARDS if card[1] in lengths])
        body = prefix + _digits(draw, length - len(prefix) - 1)
        number = body + luhn.calc_check_digit(body)
        groups = (4, 6, 5) if length == 15 else (4, 4, 4, 4, 3)
        cuts = [sum(groups[:index]) for index in range(len(groups) + 1)]
        return separator.join(filter(None, (number[low:high] for low, high in pairwise(cuts))))

    return make


LAYOUTS = {
    "DE": "n18",
    "GB": "a4n14",
    "FR": "n10c11n2",
    "NL": "a4n10",
    "AT": "n16",
    "ES": "n20",
    "CH": "n5c12",
    "IT": "a1n10c12",
    "PL": "n24",
    "SE": "n20",
    "BE": "n12",
    "AE": "n19",
    "NO": "n11",
}


def _iban(countries: str, separator: str, lower: bool = False) -> Maker:
    def make(draw: random.Random) -> str:
        country = draw.choice(countries.split())
        letters = {"n": string.digits, "a": string.ascii_uppercase, "c": string.ascii_uppercase + string.digits}
        body = "".join(
            "".join(draw.choices(letters[sort], k=int(count)))
            for sort, count in re.findall(r"([nac])(\d+)", LAYOUTS[country])
        )
        number = country + iban_check.calc_check_digits(f"{country}00{body}") + body
        number = number.lower() if lower else number
        return separator.join(number[at : at + 4] for at in range(0, len(number), 4))

    return make


def _cn_id(separator: str) -> Maker:
    def make(draw: random.Random) -> str:
        area = draw.choice(("110101", "310104", "440305", "330106", "510107", "420106", "610113", "650102"))
        born = date(1950, 1, 1) + timedelta(days=draw.randrange(20000))
        body = f"{area}{born:%Y%m%d}{_digits(draw, 3)}"
        number = body + mod_11_2.calc_check_digit(body)
        number = number.lower() if draw.random() < 0.3 else number
        return separator.join((number[:6], number[6:14], number[14:]))

    return make


def _ssn(draw: random.Random) -> str:
    while True:
        number = f"{_digits(draw, 3)}-{_digits(draw, 2)}-{_digits(draw, 4)}"
        if ssn_check.is_valid(number):
            return number


def _nino(separator: str) -> Maker:
    def make(draw: random.Random) -> str:
        prefix = draw.choice(("AB", "CE", "JR", "PX", "SW", "LM"))
        return separator.join((prefix, _digits(draw, 2), _digits(draw, 2), _digits(draw, 2), draw.choice("ABCD")))

    return make


def _hk_id(draw: random.Random) -> str:
    letter, digits = draw.choice("ABCGKPRVYZ"), _digits(draw, 6)
    total = (
        36 * 9 + (ord(letter) - 55) * 8 + sum(int(digit) * weight for digit, weight in zip(digits, (7, 6, 5, 4, 3, 2)))
    )
    return f"{letter}{digits}({'0123456789A'[-total % 11]})"


def _cpf(draw: random.Random) -> str:
    body = _digits(draw, 9)
    number = body + cpf_check._calc_check_digits(body)
    return f"{number[:3]}.{number[3:6]}.{number[6:9]}-{number[9:]}"


def _sin(draw: random.Random) -> str:
    body = draw.choice("12345679") + _digits(draw, 7)
    number = body + luhn.calc_check_digit(body)
    return f"{number[:3]} {number[3:6]} {number[6:]}"


def _ip4(draw: random.Random) -> str:
    first = draw.choice((10, 172, 192, *range(20, 224)))
    return f"{first if first != 127 else 128}." + ".".join(str(draw.randrange(256)) for _ in range(3))


def _ip6(draw: random.Random) -> str:
    groups = [f"{draw.randrange(1, 65536):x}" for _ in range(7)]
    return "2001:" + ":".join(groups)


def _ip6_short(draw: random.Random) -> str:
    head = draw.choice(("2400:3200", "2a02:c7f", "fe80", "2606:4700"))
    made = f"{head}::{draw.randrange(16, 65536):x}:{draw.randrange(9999)}"
    return made.upper() if draw.random() < 0.3 else made


def _url(pattern: str) -> Maker:
    def make(draw: random.Random) -> str:
        secret = "".join(draw.choices(BASE62 + "-_.!%", k=draw.randrange(6, 18)))
        a, b, c = draw.sample(WORDS, 3)
        return pattern.format(
            user=a, secret=secret, host=f"{b}.{c}.net", port=draw.randrange(1024, 9999), ip=_ip4(draw)
        )

    return make


def _key(prefix: str, count: int, letters: str = BASE62) -> Maker:
    return lambda draw: prefix + "".join(draw.choices(letters, k=count - 1)) + draw.choice(string.digits)


def _password(draw: random.Random) -> str:
    body = draw.choice(WORDS).title() + _digits(draw, draw.randrange(2, 5)) + draw.choice("!#$%&*")
    return body + "".join(draw.choices(BASE62, k=draw.randrange(0, 4)))


def _pem(name: str) -> Maker:
    def make(draw: random.Random) -> str:
        body = base64.encodebytes(draw.randbytes(draw.randrange(200, 600))).decode()
        return f"-----BEGIN {name}-----\n{body}-----END {name}-----"

    return make


def _jwt(draw: random.Random) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    claims = f'{{"sub":"{_digits(draw, 8)}","name":"{draw.choice(WORDS)}"}}'
    return ".".join((part(b'{"alg":"HS256","typ":"JWT"}'), part(claims.encode()), part(draw.randbytes(32))))


def _bad_card(draw: random.Random) -> str:
    while True:
        number = draw.choice("456") + _digits(draw, 15)
        if not luhn.is_valid(number):
            return number if draw.random() < 0.5 else " ".join(re.findall("....", number))


def _bad_id(draw: random.Random) -> str:
    while True:
        number = "1101051949" + _digits(draw, 8)
        if not mod_11_2.is_valid(number):
            return number


def _date(pattern: str) -> Maker:
    return lambda draw: (date(1990, 1, 1) + timedelta(days=draw.randrange(13000))).strftime(pattern)


def _time(draw: random.Random) -> str:
    hour, minute, second = draw.randrange(24), draw.randrange(60), draw.randrange(60)
    return f"{_date('%Y-%m-%d')(draw)}T{hour:02d}:{minute:02d}:{second:02d}.{_digits(draw, 3)}Z"


def _version(draw: random.Random) -> str:
    parts = [str(draw.randrange(0, 40)) for _ in range(draw.choice((2, 3)))]
    return "v" + ".".join(parts) + draw.choice(("", "-rc1", "+build.20240311", ".dev0"))


def _isbn(draw: random.Random) -> str:
    return f"978-{draw.choice('0137')}-{_digits(draw, 3)}-{_digits(draw, 5)}-{_digits(draw, 1)}"


def _number(draw: random.Random) -> str:
    made = (
        f"{draw.random() * 10:.8f}e{draw.randrange(10, 30)}",
        f"{draw.randrange(10**6, 10**9):,}",
        f"{draw.random() * 100:.14f}",
        f"{draw.randrange(100, 999)} {draw.randrange(100, 999)} {draw.randrange(100, 999)}",
        f"{draw.randrange(2, 99)} x {draw.randrange(10**4, 10**6)} - {draw.randrange(10**3)}",
    )
    return draw.choice(made)


def _doi(draw: random.Random) -> str:
    return f"10.{_digits(draw, 4)}/j.{draw.choice(WORDS)}.{_digits(draw, 4)}.{_digits(draw, 2)}.{_digits(draw, 3)}"


def _small_ip(draw: random.Random) -> str:
    return ".".join(str(draw.randrange(1, high)) for high in (120, 10, 5000, 200))


MAIN = "{a}.{b}@{c}.{top}"
FORMATS: dict[str, dict[str, list[Maker]]] = {
    "tune": {
        "email": [
            _email(MAIN, "com org"),
            _email("{a}_{b}{n}@mail.{c}.{top}", "net com.cn"),
            _email("{A}+x@{c}.{top}", "de io"),
        ],
        "email zh": [_email(MAIN, "com cn"), _email("{a}{n}@qq.{top}", "com"), _wide(_email("{a}@{c}.{top}", "cn"))],
        "phone": [
            _phone("US", "(###) ###-####"),
            _phone("US", "###-###-####"),
            _phone("US", "+1 ### ### ####"),
            *(_phone(region, "INTERNATIONAL") for region in ("GB", "DE", "JP")),
        ],
        "phone zh": [
            _phone("CN", "###########", True),
            _phone("CN", "###-####-####", True),
            _phone("CN", "+86 ### #### ####", True),
            _phone("CN", "0A-########"),
            _wide(_phone("CN", "###########", True)),
        ],
        "card": [_card((16,), " "), _card((15, 16), "")],
        "card zh": [_card((16,), " "), _card((16, 19), ""), _wide(_card((16,), " "))],
        "iban": [_iban("DE GB FR NL AT", " "), _iban("DE GB FR NL AT", "")],
        "cn_id": [_cn_id("")],
        "nino": [_nino(""), _nino(" ")],
        "ip": [_ip4, _ip4, _ip6],
        "url": [_url("https://{user}:{secret}@{host}"), _url("postgresql://{user}:{secret}@{host}:{port}")],
        "key": [
            _key("AKIA", 16, string.ascii_uppercase + string.digits),
            _key("ghp_", 36),
            _key("sk-", 48),
            _key("xoxb-", 24),
        ],
        "random": [_key("", 32), _key("", 40, "0123456789abcdef")],
        "pem": [_pem("RSA PRIVATE KEY")],
        "no_date": [_date("%Y-%m-%d"), _date("%d/%m/%Y"), _date("%Y%m%d")],
        "no_order": [lambda draw: _digits(draw, 12), lambda draw: f"SO-{_digits(draw, 8)}"],
    },
    "score": {
        "email": [
            _email("{a}-{b}@{c}.{top}", "co.uk edu"),
            _email("{a}{n}@{b}-{c}.{top}", "info dev"),
            _email("{a}.{n}@x.{b}.{c}.{top}", "eu org"),
            _email("{a} [at] {c} [dot] {top}", "com org"),
            _email("{a}.{b}(at){c}.{top}", "com"),
        ],
        "email zh": [
            _email("{a}-{b}@{c}.{top}", "com.cn net"),
            _email("{n}9876@163.{top}", "com"),
            _email("{a}_{b}@vip.{c}.{top}", "cn"),
            _wide(_email("{a}{n}@{b}-{c}.{top}", "com")),
        ],
        "phone": [
            _phone("US", "###.###.####"),
            _phone("US", "1-###-###-####"),
            _phone("CA", "E164"),
            _phone("CA", "+1 (###) ###-####"),
            _phone("US", "(###)###-####"),
            _phone("GB", "NATIONAL"),
            _phone("GB", "RFC3966"),
            *(_phone(region, "INTERNATIONAL") for region in ("AU", "IN", "FR", "CN", "BR")),
        ],
        "phone zh": [
            _phone("CN", "### #### ####", True),
            _phone("CN", "+86-###-####-####", True),
            _phone("CN", "0086###########", True),
            _phone("CN", "+86###########", True),
            _phone("CN", "(0A) ########"),
            _wide(_phone("CN", "(0A)########")),
            _phone("CN", "0A-########转802"),
            _phone("CN", "0A #### ####"),
            _phone("CN", "###########", True),
            _wide(_phone("CN", "###-####-####", True)),
            _phone("HK", "INTERNATIONAL"),
            _phone("TW", "E164"),
        ],
        "card": [_card((16,), "-"), _card((15,), " "), _card((16,), ""), _card((16,), "\u00a0"), _card((19,), " ")],
        "card zh": [
            _card((16,), "-"),
            _card((19,), " "),
            _card((16, 19), ""),
            _wide(_card((19,), "")),
            _card((16,), " "),
        ],
        "iban": [
            _iban("ES CH IT PL SE BE AE NO", " "),
            _iban("ES CH IT PL SE BE AE NO", ""),
            _iban("ES CH PL SE", "-"),
            _iban("ES IT BE", "", True),
        ],
        "cn_id": [_cn_id(""), _cn_id(""), _cn_id(" "), _wide(_cn_id("")), _cn_id("-")],
        "nino": [_nino(""), _nino(" "), _nino("-")],
        "ip": [_ip4, _ip4, _ip6, _ip6_short],
        "url": [
            _url("redis://:{secret}@{host}:{port}"),
            _url("mongodb+srv://{user}:{secret}@{host}"),
            _url("ftp://{user}:{secret}@{ip}"),
            _url("http://{user}:{secret}@{ip}:{port}"),
        ],
        "key": [
            _key("ASIA", 16, string.ascii_uppercase + string.digits),
            _key("github_pat_", 82),
            _key("sk-proj-", 56),
            _key("xoxp-", 40),
            _key("glpat-", 20),
            _key("hf_", 34),
            _key("AIza", 35),
            _key("sk_live_", 24),
        ],
        "random": [
            _key("", 28),
            _key("", 64, "0123456789abcdef"),
            _key("", 44, BASE62 + "+/"),
            _key("", 24, BASE62 + "-_"),
        ],
        "pem": [_pem("PRIVATE KEY"), _pem("EC PRIVATE KEY"), _pem("OPENSSH PRIVATE KEY")],
        "no_date": [_date("%Y/%m/%d"), _date("%d.%m.%Y"), _date("%B %d, %Y"), _date("%Y-%m-%d %H:%M:%S")],
        "no_date zh": [_date("%Y年%m月%d日"), _date("%Y.%m.%d"), _date("%Y-%m-%d %H:%M:%S")],
        "no_order": [
            lambda draw: _digits(draw, 10),
            lambda draw: f"{_date('%Y%m%d')(draw)}{_digits(draw, 10)}",
            lambda draw: f"#{_digits(draw, 3)}-{_digits(draw, 7)}-{_digits(draw, 7)}",
        ],
    },
    "both": {
        "ssn": [_ssn],
        "hk_id": [_hk_id],
        "cpf": [_cpf],
        "sin": [_sin],
        "password": [_password],
        "jwt": [_jwt],
        "no_price": [
            lambda draw: f"${draw.randrange(1, 10**6):,}.{_digits(draw, 2)}",
            lambda draw: f"¥{draw.randrange(10**6)}.00",
        ],
        "no_time": [_time],
        "no_version": [_version],
        "no_ip": [_small_ip],
        "no_uuid": [lambda draw: str(uuid.UUID(bytes=draw.randbytes(16)))],
        "no_commit": [lambda draw: draw.randbytes(20).hex(), lambda draw: draw.randbytes(4).hex()[:7]],
        "no_hash": [lambda draw: hashlib.sha256(draw.randbytes(8)).hexdigest(), lambda draw: draw.randbytes(16).hex()],
        "no_isbn": [_isbn, lambda draw: f"978{_digits(draw, 10)}"],
        "no_doi": [_doi],
        "no_number": [_number],
        "no_section": [lambda draw: ".".join(str(draw.randrange(1, 9)) for _ in range(draw.choice((1, 2, 3, 4))))],
        "no_badcard": [_bad_card],
        "no_badid": [_bad_id],
    },
}
