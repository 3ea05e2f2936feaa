"""The tools and the recipe of a build, from its order and from what this machine has."""

from collections.abc import Iterator
from dataclasses import dataclass

import trio

from engine_provisioner.build import cuda, recipe, toolchain
from engine_provisioner.build.order import SourceOrder
from engine_provisioner.build.recipe import Recipe
from engine_provisioner.build.toolchain import Found
from llama_orch.packages import Tool

NINJA, MAKE = "Ninja", "Unix Makefiles"


@dataclass(frozen=True)
class Setup:
    """The tools of one build. `cuda` says why it is for CUDA, None if it is not."""

    recipe: Recipe
    cmake: str
    ccache: str | None
    cuda: str | None


@dataclass(frozen=True)
class Lacking:
    """The tools that are missing for the build; `cuda` as in Setup."""

    tools: list[Tool]
    cuda: str | None


async def set_up(order: SourceOrder) -> Setup | Lacking:
    """Look for the tools, their versions and the GPUs."""
    reason = recipe.cuda_reason(order.cmake_flags, order.gpus)
    found, missing = await trio.to_thread.run_sync(toolchain.find, list(_wanted(order, cuda=reason is not None)))
    lacking = [tool for tool in missing if tool is not toolchain.CCACHE]
    if order.generator is None and (toolchain.NINJA in found or toolchain.MAKE in found):
        lacking = [tool for tool in lacking if tool not in (toolchain.NINJA, toolchain.MAKE)]
    elif order.generator is None:
        lacking.remove(toolchain.MAKE)  # ninja is enough
    if lacking:
        return Lacking(lacking, reason)
    nvcc = _compiler(order, found, "CUDA", toolchain.CUDA_COMPILER) if reason else None
    known = recipe.flag_value(order.cmake_flags, recipe.ARCHITECTURES) is not None
    architectures = await trio.to_thread.run_sync(cuda.architectures, order.gpus) if nvcc and not known else ()
    flags = recipe.cmake_flags(order.cmake_flags, nvcc, architectures)
    generator = order.generator or (NINJA if toolchain.NINJA in found else MAKE)
    compilers = [
        _compiler(order, found, "C", toolchain.C_COMPILER),
        _compiler(order, found, "CXX", toolchain.CXX_COMPILER),
        nvcc,
    ]
    versions = tuple([await toolchain.version_of(path) for path in compilers if path])
    chosen = Recipe(flags, generator, versions)
    return Setup(chosen, found[toolchain.CMAKE], found.get(toolchain.CCACHE), reason)


def _wanted(order: SourceOrder, *, cuda: bool) -> Iterator[Tool]:
    if order.repo:
        yield toolchain.GIT
    yield toolchain.CMAKE
    if order.generator is None or order.generator.startswith(NINJA):
        yield toolchain.NINJA
    if order.generator is None or order.generator.endswith("Makefiles"):
        yield toolchain.MAKE
    languages = {"C": toolchain.C_COMPILER, "CXX": toolchain.CXX_COMPILER}
    languages |= {"CUDA": toolchain.CUDA_COMPILER} if cuda else {}
    yield from (tool for language, tool in languages.items() if _configured(order, language) is None)
    yield toolchain.CCACHE


def _compiler(order: SourceOrder, found: Found, language: str, tool: Tool) -> str | None:
    return _configured(order, language) or found.get(tool)


def _configured(order: SourceOrder, language: str) -> str | None:
    return recipe.flag_value(order.cmake_flags, f"CMAKE_{language}_COMPILER")
