// A stand-in for NVRTC, libnvrtc.so: CUDA C++ becomes a shared library for the CPU, made by
// $KILN_CARD_COMPILER SOURCE LIBRARY (compile.py), and the "PTX" names it. Libraries are kept in
// $KILN_CARD_MODULES under a hash of the source, so that each is compiled once.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "launch.hpp"

#define API extern "C" __attribute__((visibility("default"))) int

namespace {
struct Program {
    std::string source, log, image;
};
uint64_t hash(const std::string& text) {
    uint64_t h = 1469598103934665603ull;
    for (unsigned char c : text) h = (h ^ c) * 1099511628211ull;
    return h;
}
} // namespace

API nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 0, 0; }
extern "C" __attribute__((visibility("default"))) const char* nvrtcGetErrorString(int) { return "stand-in for NVRTC"; }
API nvrtcCreateProgram(Program** program, const char* source, const char*, int, const char**, const char**) {
    *program = new Program{source, "", ""};
    return 0;
}
API nvrtcDestroyProgram(Program** program) {
    delete *program;
    return *program = nullptr, 0;
}
API nvrtcCompileProgram(Program* p, int, const char**) {
    const char *compiler = getenv("KILN_CARD_COMPILER"), *folder = getenv("KILN_CARD_MODULES");
    if (!compiler || !folder) {
        p->log = "KILN_CARD_COMPILER and KILN_CARD_MODULES are not set";
        return 6;
    }
    char name[32];
    snprintf(name, sizeof name, "%016llx", (unsigned long long)hash(p->source));
    const std::string base = std::string(folder) + "/" + name, library = base + ".so", errors = base + ".log";
    if (access(library.c_str(), R_OK)) {
        std::ofstream(base + ".cu") << p->source;
        const std::string command =
            std::string("'") + compiler + "' '" + base + ".cu' '" + library + "' > '" + errors + "' 2>&1";
        if (system(command.c_str())) {
            std::stringstream text;
            text << std::ifstream(errors).rdbuf();
            p->log = text.str();
            return 6;
        }
    }
    p->image = standin::kMark + library;
    return 0;
}
API nvrtcGetPTXSize(Program* p, size_t* size) { return *size = p->image.size() + 1, 0; }
API nvrtcGetPTX(Program* p, char* out) { return memcpy(out, p->image.c_str(), p->image.size() + 1), 0; }
API nvrtcGetProgramLogSize(Program* p, size_t* size) { return *size = p->log.size() + 1, 0; }
API nvrtcGetProgramLog(Program* p, char* out) { return memcpy(out, p->log.c_str(), p->log.size() + 1), 0; }
