// A stand-in for NVIDIA's driver, libcuda.so.1: a card that is this machine's memory and CPU. Modules
// are the shared libraries that the stand-in for NVRTC makes (nvrtc.cpp), and a launch runs them at once.
// It answers like an H100 of compute capability 9.0, or like a card of KILN_CARD_CAPABILITY. What is asked
// of it is counted; at the end of the process the counts go to stderr, and to the file $KILN_CARD_REPORT as
// JSON.
//
//   KILN_CARD_UNTIL=ENTRY:N   run nothing after the Nth launch of ENTRY; `none` runs nothing at all
//   KILN_CARD_LOG=FILE        a line a launch: seconds, entry, grid, block, shared bytes, milliseconds
//   KILN_CARD_REPORT=FILE     the counts
//   KILN_CARD_CAPABILITY=8.9  another capability; below 9.0 with the 99 KiB of shared memory of such cards
//   KILN_CARD_FAULT=ENTRY     launches of ENTRY are illegal accesses; KILN_CARD_HANG=ENTRY never end.
//                             ENTRY:BYTES means those with more than so much shared memory
//   KILN_CARD_GRAPHS=N        graphs after the Nth cannot be made; KILN_CARD_REPLAYS=N, launches of graphs
//                             after the Nth fail
//
// A process in which Kiln tries its kernels (KILN_KERNEL_TRIAL) runs them all and reports nothing.
//
// Types and numbers of the driver's interface are those of cuda.h; only what cubecl-cuda calls is here.
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "launch.hpp"

namespace {
using Clock = std::chrono::steady_clock;
const Clock::time_point kStart = Clock::now();
constexpr int kInvalid = 1, kOutOfMemory = 2, kNotFound = 500, kIllegalAddress = 700, kNotWhileCapturing = 900;
constexpr size_t kMemory = 80ull << 30;

double seconds() { return std::chrono::duration<double>(Clock::now() - kStart).count(); }
const char* environment(const char* name) {
    if (getenv("KILN_KERNEL_TRIAL")) return nullptr;
    const char* value = getenv(name);
    return value && *value ? value : nullptr;
}

// Trials are on the same card.
std::pair<int, int> capability() {
    const char* given = getenv("KILN_CARD_CAPABILITY");
    const char* point = given ? strchr(given, '.') : nullptr;
    return {given ? atoi(given) : 9, point ? atoi(point + 1) : 0};
}
int most_shared() { return capability().first < 9 ? 101376 : 232448; }

struct Function {
    std::string entry;
    standin::Launch launch;
    size_t launched = 0;
    std::vector<size_t> sizes; // of its arguments
};

// A launch with copies of its arguments, to be made later.
struct Node {
    Function* function;
    standin::Shape shape;
    std::vector<std::vector<char>> arguments;
};
using Graph = std::vector<Node>;

struct Card {
    std::mutex lock;
    std::map<uintptr_t, size_t> device, host;
    std::map<std::string, std::pair<size_t, double>> kernels; // launches and seconds an entry
    size_t in_use = 0, peak = 0, allocations = 0, frees = 0, launches = 0, modules = 0;
    Graph* recording = nullptr; // launches go there
    size_t graphs = 0, replays = 0;
    size_t waits = 0, copies_in = 0, bytes_in = 0, copies_out = 0, bytes_out = 0;
    bool running = true;
    std::string until;
    size_t until_count = 0;
    FILE* log = nullptr;

    Card() {
        if (const char* text = environment("KILN_CARD_UNTIL")) {
            until = text;
            const size_t colon = until.find(':');
            if (colon != std::string::npos) {
                until_count = strtoul(until.c_str() + colon + 1, nullptr, 10);
                until.resize(colon);
            }
            running = until != "none";
        }
        if (const char* file = environment("KILN_CARD_LOG")) {
            log = fopen(file, "w");
            if (log) setvbuf(log, nullptr, _IOLBF, 0);
        }
    }
    ~Card() {
        fprintf(stderr,
                "stand-in card: %zu modules, %zu launches, %zu waits; device memory at most %.3f GiB in %zu "
                "allocations, %zu freed; %zu copies in (%.3f GiB), %zu out; %zu graphs, launched %zu times\n",
                modules, launches, waits, (double)peak / (1 << 30), allocations, frees, copies_in,
                (double)bytes_in / (1 << 30), copies_out, graphs, replays);
        const char* file = environment("KILN_CARD_REPORT");
        FILE* out = file ? fopen(file, "w") : nullptr;
        if (!out) return;
        fprintf(out,
                "{\"modules\": %zu, \"launches\": %zu, \"waits\": %zu, \"peak_bytes\": %zu, \"allocations\": %zu, "
                "\"frees\": %zu, \"copies_in\": %zu, \"bytes_in\": %zu, \"copies_out\": %zu, \"graphs\": %zu, "
                "\"replays\": %zu, \"kernels\": {",
                modules, launches, waits, peak, allocations, frees, copies_in, bytes_in, copies_out, graphs, replays);
        const char* comma = "";
        for (const auto& [entry, counts] : kernels) {
            fprintf(out, "%s\n  \"%s\": [%zu, %.6f]", comma, entry.c_str(), counts.first, counts.second);
            comma = ",";
        }
        fprintf(out, "}}\n");
        fclose(out);
    }
};
Card& card() {
    static Card* const one = new Card;
    return *one;
}
__attribute__((destructor)) void at_exit() { delete &card(); }

// Device memory is uninitialised: NaN in every float type, so that nothing that reads it goes unnoticed.
// Zeros where kernels stop running before the program does, which would end at a loss that is no number.
int reserve(std::map<uintptr_t, size_t>& from, bool counted, void** at, size_t bytes) {
    Card& c = card();
    std::lock_guard<std::mutex> held(c.lock);
    if (!bytes) return kInvalid;
    if (counted && c.recording) return kNotWhileCapturing;
    if (counted && c.in_use + bytes > kMemory) return kOutOfMemory;
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return kOutOfMemory;
    if (c.until.empty()) memset(p, 0xff, bytes);
    from[(uintptr_t)p] = bytes;
    if (counted) {
        c.allocations++;
        c.in_use += bytes;
        if (c.in_use > c.peak) c.peak = c.in_use;
        if (c.log) fprintf(c.log, "%.6f alloc %zu %zu\n", seconds(), bytes, c.in_use);
    }
    *at = p;
    return 0;
}
int release(std::map<uintptr_t, size_t>& from, bool counted, uintptr_t at) {
    Card& c = card();
    std::lock_guard<std::mutex> held(c.lock);
    const auto it = from.find(at);
    if (it == from.end()) return kInvalid;
    munmap((void*)at, it->second);
    if (counted) {
        c.frees++;
        c.in_use -= it->second;
        if (c.log) fprintf(c.log, "%.6f free %zu %zu\n", seconds(), it->second, c.in_use);
    }
    from.erase(it);
    return 0;
}

// Whether all of it lies in one allocation of the device.
bool on_device(uint64_t at, size_t bytes) {
    Card& c = card();
    auto it = c.device.upper_bound(at);
    if (it == c.device.begin()) return false;
    --it;
    return at + bytes <= it->first + it->second;
}
int copy(uint64_t device, size_t bytes, void* to, const void* from, bool in) {
    Card& c = card();
    std::lock_guard<std::mutex> held(c.lock);
    if (c.recording) return kNotWhileCapturing;
    if (!on_device(device, bytes)) {
        fprintf(stderr, "stand-in card: a copy of %zu bytes outside of device memory\n", bytes);
        return kIllegalAddress;
    }
    // Where nothing runs there are no results.
    if (in || c.running) memmove(to, from, bytes);
    else memset(to, 0, bytes);
    (in ? c.copies_in : c.copies_out)++;
    (in ? c.bytes_in : c.bytes_out) += bytes;
    return 0;
}
int waited() {
    Card& c = card();
    std::lock_guard<std::mutex> held(c.lock);
    if (c.recording) return kNotWhileCapturing;
    c.waits++;
    return 0;
}

struct Event {
    Clock::time_point at;
};
} // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cuInit(unsigned) { return 0; }
API cuDriverGetVersion(int* version) { return *version = 13000, 0; }
API cuDeviceGetCount(int* count) { return *count = 1, 0; }
API cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal ? 101 : 0; }
API cuDeviceGetName(char* name, int bytes, int) {
    const auto [major, minor] = capability();
    snprintf(name, (size_t)bytes, "NVIDIA card of capability %d.%d (stand-in on the CPU)", major, minor);
    return 0;
}
API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = kMemory, 0; }
API cuDeviceGetPCIBusId(char* id, int bytes, int) {
    snprintf(id, (size_t)bytes, "0000:01:00.0");
    return 0;
}
API cuDeviceGetUuid_v2(char* uuid, int) {
    memset(uuid, 1, 16);
    return 0;
}
API cuDeviceGetUuid(char* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }
API cuDeviceGetAttribute(int* value, int attribute, int) {
    const auto [major, minor] = capability();
    const bool small = major < 9;
    static const std::map<int, int> known = {
        {1, 1024},      // threads of a block
        {2, 1024},      {3, 1024},   {4, 64},      // its sides
        {5, 2147483647}, {6, 65535}, {7, 65535},   // sides of a grid
        {8, 49152},     // shared memory of a block
        {10, 32},       // warp
        {12, 65536},    // registers of a block
        {16, 132},      // multiprocessors
        {39, 2048},     // threads of one
        {75, major},    {76, minor}, // compute capability
        // Shared memory and registers of a multiprocessor; most of a block.
        {81, small ? 102400 : 233472}, {82, 65536}, {97, most_shared()},
    };
    const auto it = known.find(attribute);
    return *value = it == known.end() ? 1 : it->second, 0;
}
API cuDevicePrimaryCtxRetain(void** context, int) { return *context = &card(), 0; }
API cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API cuCtxGetCurrent(void** context) { return *context = &card(), 0; }
API cuCtxSetCurrent(void*) { return 0; }
API cuCtxSynchronize(void) { return waited(); }
API cuCtxGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, 0; }

API cuStreamCreate(void** stream, unsigned) { return *stream = new char, 0; }
API cuStreamCreateWithPriority(void** stream, unsigned, int) { return *stream = new char, 0; }
API cuStreamDestroy_v2(void* stream) { return delete (char*)stream, 0; }
API cuStreamSynchronize(void*) { return waited(); }
// What would become part of a graph, or end its recording, on a card. Nothing recorded should need it.
static int not_while_recording() {
    std::lock_guard<std::mutex> held(card().lock);
    return card().recording ? kNotWhileCapturing : 0;
}
// Whether as many were counted as this variable of the environment allows.
static bool exhausted(const char* limit, size_t counted) {
    const char* most = environment(limit);
    return most && counted >= strtoull(most, nullptr, 10);
}
API cuStreamQuery(void*) { return not_while_recording(); }
API cuStreamWaitEvent(void*, void*, unsigned) { return not_while_recording(); }
API cuStreamIsCapturing(void*, int* status) { return *status = card().recording != nullptr, 0; }

API cuEventCreate(void** event, unsigned) { return *event = new Event{Clock::now()}, 0; }
API cuEventDestroy_v2(void* event) { return delete (Event*)event, 0; }
API cuEventRecord(void* event, void*) {
    ((Event*)event)->at = Clock::now();
    return not_while_recording();
}
API cuEventSynchronize(void*) { return waited(); }
API cuEventQuery(void*) { return not_while_recording(); }
API cuEventElapsedTime_v2(float* ms, void* from, void* to) {
    return *ms = std::chrono::duration<float, std::milli>(((Event*)to)->at - ((Event*)from)->at).count(), 0;
}
API cuEventElapsedTime(float* ms, void* from, void* to) { return cuEventElapsedTime_v2(ms, from, to); }

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    std::lock_guard<std::mutex> held(card().lock);
    return *free = kMemory - card().in_use, *total = kMemory, 0;
}
API cuMemAlloc_v2(void** at, size_t bytes) { return reserve(card().device, true, at, bytes); }
API cuMemAllocAsync(void** at, size_t bytes, void*) { return reserve(card().device, true, at, bytes); }
API cuMemFree_v2(uint64_t at) {
    const int error = not_while_recording();
    return error ? error : release(card().device, true, at);
}
API cuMemFreeAsync(uint64_t at, void*) { return cuMemFree_v2(at); }
API cuMemAllocHost_v2(void** at, size_t bytes) {
    const int error = not_while_recording();
    return error ? error : reserve(card().host, false, at, bytes);
}
API cuMemHostAlloc(void** at, size_t bytes, unsigned) { return cuMemAllocHost_v2(at, bytes); }
API cuMemFreeHost(void* at) {
    const int error = not_while_recording();
    return error ? error : release(card().host, false, (uintptr_t)at);
}

API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t n, void*) { return copy(to, n, (void*)to, from, true); }
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t n, void*) { return copy(from, n, to, (void*)from, false); }
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void*) {
    return on_device(from, n) ? copy(to, n, (void*)to, (void*)from, true) : kIllegalAddress;
}
API cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t n) { return copy(to, n, (void*)to, from, true); }
API cuMemcpyDtoH_v2(void* to, uint64_t from, size_t n) { return copy(from, n, to, (void*)from, false); }
API cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void*) {
    if (const int error = not_while_recording()) return error;
    if (!on_device(at, bytes)) return kIllegalAddress;
    memset((void*)at, value, bytes);
    return 0;
}

// CUDA_MEMCPY2D: in bytes; memory type 1 is the host, 2 the device.
struct Copy2d {
    size_t from_x, from_y;
    unsigned from_type;
    const char* from_host;
    uint64_t from_device;
    void* from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    unsigned to_type;
    char* to_host;
    uint64_t to_device;
    void* to_array;
    size_t to_pitch, width, height;
};
API cuMemcpy2DAsync_v2(const Copy2d* c, void*) {
    const char* from = c->from_type == 1 ? c->from_host : (const char*)c->from_device;
    char* to = c->to_type == 1 ? c->to_host : (char*)c->to_device;
    for (size_t row = 0; row < c->height; row++) {
        char* const at = to + (row + c->to_y) * c->to_pitch + c->to_x;
        const char* const of = from + (row + c->from_y) * c->from_pitch + c->from_x;
        const bool in = c->to_type != 1;
        if (const int error = copy((uint64_t)(in ? at : of), c->width, at, of, in)) return error;
    }
    return 0;
}

API cuModuleLoadData(void** module, const void* image) {
    if (const int error = not_while_recording()) return error;
    const char* text = (const char*)image;
    if (strncmp(text, standin::kMark, strlen(standin::kMark))) {
        fprintf(stderr, "stand-in card: a module that the stand-in for NVRTC did not make\n");
        return 200;
    }
    *module = dlopen(text + strlen(standin::kMark), RTLD_NOW | RTLD_LOCAL);
    if (!*module) {
        fprintf(stderr, "stand-in card: %s\n", dlerror());
        return 200;
    }
    std::lock_guard<std::mutex> held(card().lock);
    card().modules++;
    return 0;
}
API cuModuleGetFunction(void** function, void* module, const char* name) {
    const auto find = (standin::Find)dlsym(module, "standin_find");
    const auto launch = find ? find(name) : nullptr;
    if (!launch) return kNotFound;
    size_t sizes[standin::kMostArguments];
    const auto arguments = (standin::Arguments)dlsym(module, "standin_arguments");
    const size_t count = arguments ? arguments(name, sizes) : 0;
    *function = new Function{name, launch, 0, {sizes, sizes + count}};
    return 0;
}
API cuFuncSetAttribute(void*, int, int) { return 0; }
// With the card's lock held.
static int launch(Card& c, Function& f, const standin::Shape& shape, void** params) {
    const auto [gx, gy, gz] = shape.grid;
    const auto [bx, by, bz] = shape.block;
    const unsigned shared = shape.shared;
    c.launches++;
    f.launched++;
    const double began = seconds();
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || (size_t)bx * by * bz > 1024 ||
        shared > (unsigned)most_shared()) {
        fprintf(stderr, "stand-in card: %s: no such grid: %u %u %u of %u %u %u, %u bytes\n", f.entry.c_str(), gx, gy,
                gz, bx, by, bz, shared);
        return kInvalid;
    }
    for (const char* way : {"KILN_CARD_FAULT", "KILN_CARD_HANG"}) {
        const char* given = getenv(way);
        if (!given) continue;
        const std::string named = given;
        const size_t colon = named.find(':');
        if (f.entry != named.substr(0, colon)) continue;
        if (colon != named.npos && shared <= std::stoul(named.substr(colon + 1))) continue;
        if (way[10] == 'F') return kIllegalAddress;
        for (;;) pause();
    }
    if (c.running) {
        std::vector<standin::Range> ranges;
        for (const auto& [at, bytes] : c.device) ranges.push_back({at, at + bytes});
        if (const char* wrong = f.launch(shape, params, ranges.data(), ranges.size())) {
            fprintf(stderr, "stand-in card: %s: %s\n", f.entry.c_str(), wrong);
            return kIllegalAddress;
        }
    }
    const double took = seconds() - began;
    auto& [count, sum] = c.kernels[f.entry];
    count++;
    sum += took;
    if (c.log)
        fprintf(c.log, "%.6f %s %u,%u,%u %u,%u,%u %u %.3f\n", began, f.entry.c_str(), gx, gy, gz, bx, by, bz, shared,
                1e3 * took);
    if (c.running && f.entry == c.until && count >= c.until_count) {
        c.running = false;
        fprintf(stderr, "stand-in card: from here on nothing runs (%zu launches)\n", c.launches);
    }
    return 0;
}
API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void*, void** params, void**) {
    Card& c = card();
    Function& f = *(Function*)function;
    const standin::Shape shape{{gx, gy, gz}, {bx, by, bz}, shared};
    std::lock_guard<std::mutex> held(c.lock);
    if (!c.recording) return launch(c, f, shape, params);
    Node node{&f, shape, {}};
    for (size_t i = 0; i < f.sizes.size(); i++)
        node.arguments.emplace_back((char*)params[i], (char*)params[i] + f.sizes[i]);
    c.recording->push_back(std::move(node));
    return 0;
}

// Graphs: what is launched while a stream captures is kept, and made when the graph is launched. There is
// one stream here.
API cuStreamBeginCapture_v2(void*, int) {
    Card& c = card();
    std::lock_guard<std::mutex> held(c.lock);
    if (c.recording) return kNotWhileCapturing;
    return c.recording = new Graph, 0;
}
API cuStreamEndCapture(void*, void** graph) {
    Card& c = card();
    std::lock_guard<std::mutex> held(c.lock);
    *graph = c.recording;
    c.recording = nullptr;
    return !*graph || exhausted("KILN_CARD_GRAPHS", c.graphs) ? kInvalid : 0;
}
API cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    card().graphs++;
    return *executable = new Graph(*(Graph*)graph), 0;
}
API cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
    Graph& all = *(Graph*)graph;
    for (size_t i = 0; nodes && i < *count && i < all.size(); i++) nodes[i] = &all[i];
    return *count = all.size(), 0;
}
API cuGraphNodeGetType(void*, int* type) { return *type = 0, 0; } // a kernel
API cuGraphUpload(void*, void*) { return 0; }
API cuGraphDestroy(void* graph) { return delete (Graph*)graph, 0; }
API cuGraphExecDestroy(void* executable) { return delete (Graph*)executable, 0; }
API cuGraphLaunch(void* executable, void*) {
    Card& c = card();
    std::lock_guard<std::mutex> held(c.lock);
    if (c.recording) return kNotWhileCapturing;
    if (exhausted("KILN_CARD_REPLAYS", c.replays)) return kIllegalAddress;
    c.replays++;
    const size_t before = c.launches;
    for (Node& node : *(Graph*)executable) {
        std::vector<void*> params;
        for (auto& argument : node.arguments) params.push_back(argument.data());
        if (const int error = launch(c, *node.function, node.shape, params.data())) return error;
    }
    c.launches = before + 1;
    return 0;
}
API cuGetErrorString(int error, const char** text) {
    static thread_local std::string said;
    said = "error " + std::to_string(error) + " of the stand-in card";
    return *text = said.c_str(), 0;
}
API cuGetErrorName(int error, const char** text) { return cuGetErrorString(error, text); }
