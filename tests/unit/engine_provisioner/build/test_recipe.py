"""The flags of a build, its key, and how many compilers run at once."""

import pytest

from engine_provisioner.build.recipe import Recipe, cmake_flags, cuda_reason, flag_value, is_on, job_count

RECIPE = Recipe(("-DA=1",), "Ninja", ("cc 12", "c++ 12"))


def test_last_flag_of_a_name_counts_with_or_without_type() -> None:
    assert flag_value(["-DA=1", "-DA:STRING=2", "-DAB=3"], "A") == "2"
    assert flag_value(["-DAB=3"], "A") is None


@pytest.mark.parametrize(
    ("value", "on"), [("ON", True), ("1", True), ("yes", True), ("OFF", False), ("0", False), ("X-NOTFOUND", False)]
)
def test_truth_is_that_of_cmake(value: str, on: bool) -> None:
    assert is_on(value) is on


@pytest.mark.parametrize(
    ("flags", "gpus", "reason"),
    [
        (["-DGGML_CUDA=ON"], (), "GGML_CUDA in cmake_flags"),
        (["-DGGML_CUDA=OFF"], (0,), None),
        (["-DGGML_VULKAN=1"], (0,), None),
        ([], (0, 1), "GPU 0,1 of the pool"),
        ([], (), None),
    ],
)
def test_cuda_is_for_who_asks_or_has_gpus(flags: list[str], gpus: tuple[int, ...], reason: str | None) -> None:
    assert cuda_reason(flags, gpus) == reason


def test_cuda_build_is_told_compiler_and_architectures() -> None:
    flags = cmake_flags(["-DX=1"], "/opt/nvcc", ("80", "90"))
    assert flag_value(flags, "GGML_CUDA") == "ON"
    assert flag_value(flags, "CMAKE_CUDA_COMPILER") == "/opt/nvcc"
    assert flag_value(flags, "CMAKE_CUDA_ARCHITECTURES") == "80;90"


def test_configured_flags_replace_defaults() -> None:
    flags = cmake_flags(["-DBUILD_SHARED_LIBS=ON", "-DCMAKE_CUDA_ARCHITECTURES=75"], "/opt/nvcc", ("90",))
    assert [flag for flag in flags if "SHARED_LIBS" in flag] == ["-DBUILD_SHARED_LIBS=ON"]
    assert [flag for flag in flags if "ARCHITECTURES" in flag] == ["-DCMAKE_CUDA_ARCHITECTURES=75"]


def test_key_depends_on_source_flags_generator_and_compilers() -> None:
    others = (
        Recipe(("-DA=2",), "Ninja", ("cc 12", "c++ 12")),
        Recipe(("-DA=1",), "Unix Makefiles", ("cc 12", "c++ 12")),
        Recipe(("-DA=1",), "Ninja", ("cc 13", "c++ 12")),
    )
    keys = {RECIPE.key("a"), RECIPE.key("b"), *(other.key("a") for other in others)}
    assert len(keys) == 5
    assert Recipe(("-DA=1",), "Ninja", ("cc 12", "c++ 12")).key("a") == RECIPE.key("a")


@pytest.mark.parametrize(
    ("cores", "gib", "cuda", "jobs"), [(16, 64, False, 16), (16, 4, False, 4), (16, 9, True, 3), (8, 0, True, 1)]
)
def test_jobs_fit_cores_and_memory(cores: int, gib: int, cuda: bool, jobs: int) -> None:
    assert job_count(cores, gib << 30, cuda=cuda) == jobs
