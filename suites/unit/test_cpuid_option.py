"""``--cpuid`` and ``cpuid=``: which features of the CPU a guest is to be without, in libxl's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stub.domain.config import DomainConfig
from stub.domain.cpuidoption import parse_cpuid
from stub.domain.guestfile.reader import read_text
from stub.errors import ConfigError
from stub.inputs import Inputs

HERE = Path("/guests/g.cfg")


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("host", ()),
        ("host,avx=0", ("avx",)),
        ("host, 3dnow = 0 ,xsave=0", ("xsave", "3dnow")),
        ("host,avx=0,avx=0", ("avx",)),
        ("host,avx=1,avx2=x,fma=k,f16c=s", ()),
    ],
)
def test_what_it_hides(text: str, without: tuple[str, ...]) -> None:
    assert parse_cpuid(text) == without


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with host"),
        ("avx=0", "begins with host"),
        ("host,avx", "'avx' is no NAME=VALUE"),
        ("host,", "'' is no NAME=VALUE"),
        ("host,avx=2", "avx is one of 0, 1, x, k, s, not '2'"),
        ("host,family=6", "'family' cannot be chosen; there are xsave, "),
    ],
)
def test_what_is_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_cpuid(text)


def test_a_file_may_name_what_is_not_known_here() -> None:
    read = read_text('kernel = "k"\ncpuid = "host,family=6,avx=0"', HERE)
    assert read.config.without == ("avx",)
    assert [str(warned)[:24] for warned in read.warnings] == ["/guests/g.cfg:2:9: cpuid"]


def test_a_files_list_of_leaves_has_no_effect() -> None:
    read = read_text("kernel = 'k'\ncpuid = ['1:ecx=0xx']", HERE)
    assert read.config.without == ()
    assert "a list of leaves has no effect" in str(read.warnings[0])


def test_a_files_mistake_has_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^/guests/g\.cfg:2:9: cpuid '7': it begins with host"):
        read_text('kernel = "k"\ncpuid = 7', HERE)


def test_a_run_that_is_made_again_is_without_the_same() -> None:
    kernel = Path("/kernel")
    written = json.dumps(Inputs(DomainConfig(kernel=kernel, without=("avx",))).as_object())
    assert Inputs.of_object(json.loads(written), kernel, None, ()).config.without == ("avx",)


def test_a_domain_cannot_be_without_what_is_not_known() -> None:
    with pytest.raises(ConfigError, match="without 'sse'"):
        DomainConfig(kernel=Path("k"), without=("sse",))
