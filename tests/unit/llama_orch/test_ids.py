"""Random ids are as good as those of uuid4."""

import os
import uuid

from llama_orch.ids import IDS_PER_DRAW, new_id


def test_ids_are_different_random_uuids():
    found = [new_id() for _number in range(3 * IDS_PER_DRAW)]
    assert len(set(found)) == len(found)
    for each in found:
        assert (each.version, each.variant) == (4, uuid.RFC_4122)
        assert uuid.UUID(str(each)) == each


def test_every_bit_that_is_not_fixed_varies():
    ones = zeros = 0
    for _number in range(IDS_PER_DRAW):
        number = new_id().int
        ones, zeros = ones | number, zeros | ~number
    fixed = uuid.UUID("00000000-0000-f000-c000-000000000000").int
    assert ones & zeros & ((1 << 128) - 1) == ((1 << 128) - 1) ^ fixed


def test_child_process_draws_ids_of_its_own():
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(str(new_id()) for _number in range(IDS_PER_DRAW)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    childs = os.read(reading, 1 << 16).decode()
    os.close(reading)
    os.close(writing)
    assert len(childs) == IDS_PER_DRAW * 36
    assert not any(str(new_id()) in childs for _number in range(IDS_PER_DRAW))
