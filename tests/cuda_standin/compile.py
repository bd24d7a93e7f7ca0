#!/usr/bin/env python3
"""CUDA C++ to a shared library that runs the kernel on the CPU: compile.py SOURCE LIBRARY.

What cubecl generates is compiled with cube.hpp; Kiln's own kernels with the emulator of
tests/cuda_emulation. Whatever neither has (tensor cores, TMA, other PTX) is a compile error."""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

CUBE = """#include "cube.hpp"
namespace kernel {{
{source}
}}
"""

# For each entry, after CUBE.
CUBE_ENTRY = """
static void standin_thread_{entry}(void** params) {{ standin::call(&kernel::{entry}, params); }}
static const char* standin_launch_{entry}(const standin::Shape& s, void** params, const standin::Range*, size_t) {{
    return standin::launch(s, params, standin_thread_{entry}, {meets});
}}
"""

KILN = """{source}
#include "launch.hpp"
template <class... A, size_t... I>
static std::string standin_call(const standin::Shape& s, void (*f)(A...), void** p, std::index_sequence<I...>) {{
    // Of dynamic memory up to 1,024 bytes are lost to rounding.
    const unsigned shared = !KILN_DYNAMIC_SHARED ? 232448 : s.shared < 1024 ? 0 : s.shared - 1024;
    return emu::launch({{s.grid[0], s.grid[1], s.grid[2]}}, {{s.block[0], s.block[1], s.block[2]}}, shared, f,
                       *(std::remove_cv_t<A>*)p[I]...);
}}
template <class... A>
static const char* standin_call(const standin::Shape& s, void (*f)(A...), void** p, const standin::Range* ranges,
                                size_t count) {{
    static std::string wrong;
    emu::buffers.clear();
    for (size_t i = 0; i < count; i++) emu::buffers.push_back({{(u8*)ranges[i].begin, (u8*)ranges[i].end, true}});
    wrong = standin_call(s, f, p, std::index_sequence_for<A...>{{}});
    return wrong.empty() ? nullptr : wrong.c_str();
}}
"""

KILN_ENTRY = """
static const char* standin_launch_{entry}(const standin::Shape& s, void** params, const standin::Range* ranges,
                                          size_t count) {{
    return standin_call(s, &{entry}, params, ranges, count);
}}
"""

FIND = """
extern "C" standin::Launch standin_find(const char* entry) {{
    {cases}return nullptr;
}}
template <class... A>
static size_t standin_sizes(void (*)(A...), size_t* sizes) {{
    const size_t all[] = {{sizeof(std::remove_cv_t<std::remove_reference_t<A>>)..., 0}};
    memcpy(sizes, all, sizeof all);
    return sizeof...(A);
}}
extern "C" size_t standin_arguments(const char* entry, size_t* sizes) {{
    {sizes}return 0;
}}
"""

ENTRY = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(?:__cluster_dims__\([^)]*\)\s*)?(\w+)\s*\('
)


def includes_aside(source: str) -> tuple[str, str]:
    """Headers stand before the namespace that the kernel is put into."""
    lines = source.splitlines()
    heads = [line for line in lines if line.startswith("#include")]
    return "\n".join(heads), "\n".join(line for line in lines if not line.startswith("#include"))


def of_cubecl(source: str, entries: list[str]) -> str:
    heads, source = includes_aside(source)
    # Shared memory is one buffer, of which each name is an offset.
    source = re.sub(
        r"extern\s+__shared__\s+__align__\(\d+\)\s+char\s+(\w+)\[\];",
        r"char* const \1 = standin::shared;",
        source,
    )
    source = re.sub(
        r'asm\("(min|max)\.NaN\.f32 %0, %1, %2;" : "=f"\((\w+)\) : "f"\(([^()]*)\), "f"\(([^()]*)\)\);',
        r"\2 = standin_\1_nan(\3, \4);",
        source,
    )
    source = re.sub(
        r'asm volatile\("atom\.relaxed\.add\.f32 %0, \[%1\], %2;" : "=f"\((\w+)\) : "l"\((\w+)\), "f"\((\w+)\)\s*\);',
        r"\1 = standin_atomic_add(\2, \3);",
        source,
    )
    meets = "true" if re.search(r"__sync|_sync\(", source) else "false"
    parts = [CUBE_ENTRY.format(entry=entry, meets=meets) for entry in entries]
    return heads + "\n" + CUBE.format(source=source) + "".join(parts)


def of_kiln(source: str, entries: list[str]) -> str:
    lines = source.splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip() == "#ifdef KILN_EMULATE")
    lines.insert(at + 1, '#include "emulate.hpp"')
    parts = [KILN_ENTRY.format(entry=entry) for entry in entries]
    return "#define KILN_EMULATE\n" + KILN.format(source="\n".join(lines)) + "".join(parts)


def main() -> int:
    cu, library = Path(sys.argv[1]), Path(sys.argv[2])
    source = cu.read_text()
    entries = ENTRY.findall(re.sub(r"^#.*$", "", source, flags=re.MULTILINE))
    if not entries:
        print("no kernel is found in the source")
        return 1
    kiln = "KILN_PRIMITIVES" in source
    text = (of_kiln if kiln else of_cubecl)(source, entries)
    cases = [f'if (!strcmp(entry, "{entry}")) return standin_launch_{entry};\n    ' for entry in entries]
    scope = "" if kiln else "kernel::"
    sizes = [f'if (!strcmp(entry, "{e}")) return standin_sizes(&{scope}{e}, sizes);\n    ' for e in entries]
    text += FIND.format(cases="".join(cases), sizes="".join(sizes))
    translated = cu.with_suffix(".cpp")
    translated.write_text(text)
    made = library.with_suffix(".part")
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-O2", "-march=native", "-shared", "-fPIC"]
    command += ["-fno-strict-aliasing", "-ffp-contract=off", "-w"]
    if not kiln:
        # A card faults where a vector does not lie at a multiple of its size; the emulator looks by itself.
        command += ["-fsanitize=alignment", "-fno-sanitize-recover=alignment"]
    command += ["-I", str(HERE), "-I", str(HERE / "include"), "-I", str(HERE.parent / "cuda_emulation")]
    done = subprocess.run([*command, str(translated), "-o", str(made)], check=False)
    if done.returncode == 0:
        made.replace(library)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
