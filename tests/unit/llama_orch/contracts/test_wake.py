"""Hardware addresses from the network are valid, few, and of one interface each."""

import pytest
from pydantic import ValidationError

from llama_orch.contracts.wake import MACS_MAX, Wake

MAC = "52:54:00:12:34:56"
NO_MACS = ["", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "52:54:00:12:34", f"{MAC}\n", "x" * 17]


@pytest.mark.parametrize("text", [MAC, "52-54-00-12-34-56", "AA:54:00:12:34:56"])
def test_usual_forms_of_a_mac_are_accepted(text: str) -> None:
    assert Wake(macs=[text]).macs == [text.lower().replace("-", ":")]


@pytest.mark.parametrize("text", NO_MACS)
def test_other_text_is_no_mac(text: str) -> None:
    with pytest.raises(ValidationError):
        Wake(macs=[text])


@pytest.mark.parametrize("count", [0, MACS_MAX + 1])
def test_number_of_macs_is_limited(count: int) -> None:
    with pytest.raises(ValidationError):
        Wake(macs=[f"52:54:00:00:00:{number:02x}" for number in range(count)])


@pytest.mark.parametrize("text", ["queen.lan", "300.0.0.1", "::1", "192.0.2.255:9"])
def test_broadcast_is_an_ipv4_address(text: str) -> None:
    with pytest.raises(ValidationError):
        Wake(macs=[MAC], broadcast=text)
