// The part of CUDA's driver interface that this engine uses, on a processor: the library that tests
// load in place of libcuda. Launches run the kernels on fibres (fibres.h).
//
// Kernels run at once, after the copies before them; copies as late as the interface allows, so that
// memory which is used too early holds something else. Memory is full of noise when it is new, and has guards
// on both sides which every synchronisation checks. A "module" is the path of a library made of
// the kernels, with the word SHIM before it. tacit_shim_fail makes the n-th call of a function fail.
#include "state.h"

EXPORT int cuInit(unsigned) {
    ENTER("cuInit");
    driver.initialized = true;
    return kSuccess;
}
EXPORT int cuDriverGetVersion(int *version) {
    ENTER("cuDriverGetVersion");
    *version = driver.version;
    return kSuccess;
}
EXPORT int cuDeviceGetCount(int *count) {
    ENTER("cuDeviceGetCount");
    *count = 1;
    return driver.initialized ? kSuccess : kNotInitialized;
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
    ENTER("cuDeviceGet");
    *device = ordinal;
    return ordinal == 0 ? kSuccess : kNoDevice;
}
EXPORT int cuDeviceGetName(char *name, int bytes, int) {
    ENTER("cuDeviceGetName");
    std::strncpy(name, "fibres on a processor", static_cast<size_t>(bytes));
    return kSuccess;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int) {
    ENTER("cuDeviceGetAttribute");
    switch (attribute) {
        case 16: *value = driver.multiprocessors; break;
        case 75: *value = driver.compute / 10; break;   // compute capability
        case 76: *value = driver.compute % 10; break;
        case 97: *value = 227 * 1024; break;            // shared memory of a block, opted in
        default: return kInvalidValue;
    }
    return kSuccess;
}
EXPORT int cuDevicePrimaryCtxRetain(void **context, int) {
    ENTER("cuDevicePrimaryCtxRetain");
    *context = &driver;
    return kSuccess;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
EXPORT int cuCtxSetCurrent(void *) {
    ENTER("cuCtxSetCurrent");
    return kSuccess;
}

EXPORT int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    ENTER("cuMemGetInfo_v2");
    *total = driver.limit;
    *free_bytes = driver.limit - driver.used;
    return kSuccess;
}
EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    ENTER("cuMemAlloc_v2");
    if (!bytes) return kInvalidValue;
    if (driver.used + bytes > driver.limit) return kOutOfMemory;
    auto *memory = static_cast<unsigned char *>(std::aligned_alloc(
        64, (bytes + 2 * kGuard + 63) / 64 * 64));
    if (!memory) return kOutOfMemory;
    std::memset(memory, static_cast<int>(driver.noise() & 0xff), bytes + kGuard);
    std::memset(memory, kGuardByte, kGuard);
    std::memset(memory + kGuard + bytes, kGuardByte, kGuard);
    *address = reinterpret_cast<uint64_t>(memory + kGuard);
    driver.blocks[*address] = bytes;
    driver.used += bytes;
    driver.peak = driver.used > driver.peak ? driver.used : driver.peak;
    return kSuccess;
}
EXPORT int cuMemFree_v2(uint64_t address) {
    ENTER("cuMemFree_v2");
    const auto found = driver.blocks.find(address);
    if (found == driver.blocks.end()) return kInvalidValue;
    if (const int failed = flush_all()) return failed;
    const int result = checked();
    driver.used -= found->second;
    driver.blocks.erase(found);
    std::free(reinterpret_cast<unsigned char *>(address) - kGuard);
    return result;
}
EXPORT int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
    ENTER("cuMemHostAlloc");
    *memory = std::malloc(bytes);
    return *memory ? kSuccess : kOutOfMemory;
}
EXPORT int cuMemFreeHost(void *memory) {
    const std::lock_guard<std::recursive_mutex> held(driver.lock);
    flush_all();
    std::free(memory);
    return kSuccess;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t bytes, void *stream) {
    ENTER("cuMemcpyHtoDAsync_v2");
    if (!owned(target, bytes)) return kInvalidValue;
    return copy(static_cast<Stream *>(stream), reinterpret_cast<void *>(target), source, bytes);
}
EXPORT int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t bytes, void *stream) {
    ENTER("cuMemcpyDtoHAsync_v2");
    if (!owned(source, bytes)) return kInvalidValue;
    return copy(static_cast<Stream *>(stream), target, reinterpret_cast<void *>(source), bytes);
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t target, uint64_t source, size_t bytes, void *stream) {
    ENTER("cuMemcpyDtoDAsync_v2");
    if (!owned(source, bytes) || !owned(target, bytes)) return kInvalidValue;
    return copy(static_cast<Stream *>(stream), reinterpret_cast<void *>(target),
                reinterpret_cast<void *>(source), bytes);
}

EXPORT int cuStreamCreate(void **stream, unsigned) {
    ENTER("cuStreamCreate");
    auto *made = new Stream;
    driver.streams.insert(made);
    *stream = made;
    return kSuccess;
}
EXPORT int cuStreamDestroy_v2(void *stream) {
    const std::lock_guard<std::recursive_mutex> held(driver.lock);
    driver.streams.erase(static_cast<Stream *>(stream));
    delete static_cast<Stream *>(stream);
    return kSuccess;
}
EXPORT int cuStreamSynchronize(void *stream) {
    ENTER("cuStreamSynchronize");
    auto *waited = static_cast<Stream *>(stream);
    if (waited->capturing) return kCaptureInvalid;
    if (const int failed = flush(waited)) return failed;
    return checked();
}
EXPORT int cuEventCreate(void **event, unsigned) {
    ENTER("cuEventCreate");
    *event = new Event;
    return kSuccess;
}
EXPORT int cuEventRecord(void *event, void *) {
    ENTER("cuEventRecord");
    static_cast<Event *>(event)->at = std::chrono::steady_clock::now();
    return kSuccess;
}
EXPORT int cuEventSynchronize(void *) {
    ENTER("cuEventSynchronize");
    if (const int failed = flush_all()) return failed;
    return checked();
}
EXPORT int cuEventElapsedTime(float *ms, void *first, void *last) {
    ENTER("cuEventElapsedTime");
    const auto passed = static_cast<Event *>(last)->at - static_cast<Event *>(first)->at;
    *ms = std::chrono::duration<float, std::milli>(passed).count();
    return kSuccess;
}
EXPORT int cuEventElapsedTime_v2(float *ms, void *first, void *last) {
    return cuEventElapsedTime(ms, first, last);
}
EXPORT int cuEventDestroy_v2(void *event) {
    delete static_cast<Event *>(event);
    return kSuccess;
}

EXPORT int cuModuleLoadData(void **module, const void *image) {
    ENTER("cuModuleLoadData");
    const char *text = static_cast<const char *>(image);
    if (std::strncmp(text, "SHIM", 4)) return kInvalidImage;
    auto made = std::make_unique<Module>();
    made->library = dlopen(text + 4, RTLD_NOW | RTLD_LOCAL);
    if (!made->library) return kInvalidImage;
    made->launch = reinterpret_cast<decltype(made->launch)>(
        dlsym(made->library, "tacit_shim_launch"));
    made->size = reinterpret_cast<decltype(made->size)>(dlsym(made->library, "tacit_shim_size"));
    if (!made->launch || !made->size) return kInvalidImage;
    *module = made.release();
    return kSuccess;
}
EXPORT int cuModuleUnload(void *module) {
    delete static_cast<Module *>(module);
    return kSuccess;
}
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
    ENTER("cuModuleGetFunction");
    if (!static_cast<Module *>(module)->size(name)) return kNotFound;
    *function = new Function{static_cast<Module *>(module), name};
    return kSuccess;
}
EXPORT int cuFuncSetAttribute(void *function, int attribute, int value) {
    ENTER("cuFuncSetAttribute");
    if (attribute != 8 || value > 227 * 1024) return kInvalidValue;
    static_cast<Function *>(function)->shared_limit = static_cast<size_t>(value);
    return kSuccess;
}
EXPORT int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                          unsigned by, unsigned bz, unsigned shared_bytes, void *stream,
                          void **parameters, void **extra) {
    ENTER("cuLaunchKernel");
    auto *kernel = static_cast<Function *>(function);
    const bool sound = gx && gy && gz && gy < 65536 && gz < 65536 && bx && by == 1 && bz == 1 &&
                       bx <= 1024 && shared_bytes <= kernel->shared_limit && !parameters && extra;
    if (!sound) return kInvalidValue;
    // extra: {1, buffer, 2, &bytes, 0}
    const auto *buffer = static_cast<const unsigned char *>(extra[1]);
    const size_t bytes = *static_cast<const size_t *>(extra[3]);
    if (bytes > 4096 || bytes != kernel->module->size(kernel->name.c_str())) return kInvalidValue;
    auto kept = std::make_shared<std::vector<uint64_t>>((bytes + 7) / 8 + 2);
    std::memcpy(aligned(*kept), buffer, bytes);
    return perform(static_cast<Stream *>(stream), [=] {
        const unsigned grid[3] = {gx, gy, gz}, size[3] = {bx, by, bz};
        ++driver.launches;
        const int failed = kernel->module->launch(kernel->name.c_str(), aligned(*kept), grid, size,
                                                  shared_bytes, driver.seed + driver.launches);
        if (failed) driver.sticky = kLaunchFailed;
        return failed ? int(kLaunchFailed) : int(kSuccess);
    });
}

EXPORT int cuStreamBeginCapture_v2(void *stream, int) {
    ENTER("cuStreamBeginCapture_v2");
    auto *into = static_cast<Stream *>(stream);
    if (into->capturing) return kCaptureInvalid;
    into->capturing = true;
    into->captured.clear();
    return kSuccess;
}
EXPORT int cuStreamEndCapture(void *stream, void **graph) {
    ENTER("cuStreamEndCapture");
    auto *from = static_cast<Stream *>(stream);
    if (!from->capturing) return kCaptureInvalid;
    from->capturing = false;
    *graph = new Graph{std::move(from->captured)};
    return kSuccess;
}
EXPORT int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long) {
    ENTER("cuGraphInstantiateWithFlags");
    *executable = new Graph(*static_cast<Graph *>(graph));
    return kSuccess;
}
EXPORT int cuGraphLaunch(void *executable, void *stream) {
    ENTER("cuGraphLaunch");
    if (const int failed = flush(static_cast<Stream *>(stream))) return failed;
    ++driver.graph_launches;
    for (const Work &work : static_cast<Graph *>(executable)->work)
        if (const int failed = work()) return failed;
    return kSuccess;
}
EXPORT int cuGraphDestroy(void *graph) {
    delete static_cast<Graph *>(graph);
    return kSuccess;
}
EXPORT int cuGraphExecDestroy(void *executable) {
    delete static_cast<Graph *>(executable);
    return kSuccess;
}
EXPORT int cuGetErrorName(int code, const char **name) {
    static const std::map<int, const char *> names = {
        {kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
        {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
        {kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED"},
        {kNoDevice, "CUDA_ERROR_NO_DEVICE"},
        {kInvalidImage, "CUDA_ERROR_INVALID_IMAGE"},
        {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE"},
        {kNotFound, "CUDA_ERROR_NOT_FOUND"},
        {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
        {kCaptureInvalid, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    };
    const auto found = names.find(code);
    if (found == names.end()) return kInvalidValue;
    *name = found->second;
    return kSuccess;
}

// For tests.
EXPORT void tacit_shim_fail(const char *function, long count, int result) {
    driver.failing = function;
    driver.countdown = count;
    driver.failure = result;
}
EXPORT void tacit_shim_reset(uint64_t seed) {
    for (const auto &[address, bytes] : driver.blocks) {
        std::memset(reinterpret_cast<char *>(address) - kGuard, kGuardByte, kGuard);
        std::memset(reinterpret_cast<char *>(address) + bytes, kGuardByte, kGuard);
    }
    driver.sticky = 0;
    driver.failing.clear();
    driver.seed = seed;
}
// Take memory of others for device memory (0 bytes: no longer), as that of another library is.
EXPORT void tacit_shim_foreign(uint64_t address, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> held(driver.lock);
    if (bytes)
        driver.foreign[address] = bytes;
    else
        driver.foreign.erase(address);
}
EXPORT void tacit_shim_limit(size_t bytes) { driver.limit = bytes; }
EXPORT void tacit_shim_device(int compute, int version, int multiprocessors) {
    driver.compute = compute;
    driver.version = version;
    driver.multiprocessors = multiprocessors;
}
EXPORT void tacit_shim_counts(uint64_t *counts) {
    counts[0] = driver.launches;
    counts[1] = driver.graph_launches;
    counts[2] = driver.used;
    counts[3] = driver.blocks.size();
}
