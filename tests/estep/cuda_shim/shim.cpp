// Runs the kernels of kernels.cu on the host. Built by the tests: g++ -DHOST_SHIM -DREAL=... -DKERNELS="...path..."
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda_shim.h"

Dim threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

enum class State { ready, at_barrier, at_shuffle, done };

struct Fibre {
    ucontext_t start;
    jmp_buf here;  // where it left off; jumping there costs no system call, unlike swapcontext
    bool started = false;
    std::vector<char> stack = std::vector<char>(64 << 10);
    Dim thread;
    State state;
    int shuffles;
    double handed[2];  // by parity: a lane may hand over its next value before all have read this one
};

static const size_t GUARD = 256;
static const unsigned char GUARD_BYTE = 0x5a, POISON = 0xff;  // 0xff... is NaN in both precisions

static jmp_buf scheduler;
static std::vector<std::unique_ptr<Fibre>> fibres;
static size_t current;
static std::vector<unsigned char> memory;
static std::function<void()> body;

unsigned char* shared() { return memory.data(); }

static void leave(State state) {
    Fibre& own = *fibres[current];
    own.state = state;
    if (_setjmp(own.here) == 0) _longjmp(scheduler, 1);
}

void barrier() { leave(State::at_barrier); }

double exchange(double value, int lanes) {
    const size_t own = current;
    const int turn = fibres[own]->shuffles++ & 1;
    fibres[own]->handed[turn] = value;
    leave(State::at_shuffle);
    return fibres[own ^ lanes]->handed[turn];
}

static void entry() {
    for (;;) {  // fibres live on from block to block
        body();
        leave(State::done);
    }
}

static void resume(size_t i) {
    Fibre& f = *fibres[i];
    current = i;
    threadIdx = f.thread;
    if (_setjmp(scheduler) != 0) return;
    if (f.started) _longjmp(f.here, 1);
    f.started = true;
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = f.stack.data();
    f.start.uc_stack.ss_size = f.stack.size();
    f.start.uc_link = nullptr;
    makecontext(&f.start, entry, 0);
    setcontext(&f.start);
}

static bool all(size_t first, size_t last, State state) {
    return std::all_of(fibres.begin() + first, fibres.begin() + last, [=](auto& f) { return f->state == state; });
}

static void release(size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) fibres[i]->state = State::ready;
}

// Runs a warp as far ahead of the others as its barriers let it.
static bool run_warp(size_t warp, size_t threads, const std::vector<size_t>& order) {
    const size_t first = 32 * warp, last = first + 32;
    bool moved = false;
    for (bool released = true; released;) {
        for (size_t i : order) {
            if (i / 32 != warp || fibres[i]->state != State::ready) continue;
            resume(i);
            moved = true;
        }
        released = last <= threads && all(first, last, State::at_shuffle);
        if (released) release(first, last);
    }
    return moved;
}

static void run_block(size_t threads, size_t shared_bytes, std::vector<size_t>& order, std::mt19937* shuffle) {
    while (fibres.size() < threads) fibres.push_back(std::make_unique<Fibre>());
    memory.assign(shared_bytes + GUARD, POISON);
    std::fill(memory.end() - GUARD, memory.end(), GUARD_BYTE);
    for (size_t i = 0; i < threads; ++i) {
        Fibre& f = *fibres[i];
        f.thread = {unsigned(i), 0, 0};
        f.state = State::ready;
        f.shuffles = 0;
    }
    std::vector<size_t> warps((threads + 31) / 32);
    std::iota(warps.begin(), warps.end(), 0);
    if (order.front() != 0) std::reverse(warps.begin(), warps.end());
    while (!all(0, threads, State::done)) {
        if (shuffle) std::shuffle(order.begin(), order.end(), *shuffle), std::shuffle(warps.begin(), warps.end(), *shuffle);
        bool moved = false;
        for (size_t warp : warps) moved |= run_warp(warp, threads, order);
        if (all(0, threads, State::at_barrier)) release(0, threads), moved = true;
        if (!moved) throw std::runtime_error("threads wait for a barrier or shuffle that the others never reach");
    }
    if (std::any_of(memory.end() - GUARD, memory.end(), [](unsigned char c) { return c != GUARD_BYTE; }))
        throw std::runtime_error("the kernel wrote beyond the shared memory it asked for");
}

using Call = std::function<void(void**)>;
struct Kernel {
    Call call;
    size_t arguments;
};

template <typename... A, size_t... I>
static Call unpack(void (*kernel)(A...), std::index_sequence<I...>) {
    return [kernel](void** a) { kernel(*static_cast<std::decay_t<A>*>(a[I])...); };
}

template <typename... A>
static Kernel wrap(void (*kernel)(A...)) {
    return {unpack(kernel, std::index_sequence_for<A...>()), sizeof...(A)};
}

}  // namespace shim

#include KERNELS

static const std::map<std::string, shim::Kernel> registry = {
#define KERNEL(name) {#name, shim::wrap(name)}
    KERNEL(amplitude_odds),    KERNEL(amplitude_weights),
    KERNEL(correlate_spectra), KERNEL(backproject_spectra), KERNEL(patch_posterior),   KERNEL(window_odds),
    KERNEL(slide_log_sum),     KERNEL(window_normaliser),   KERNEL(window_weights), KERNEL(patch_direct),
    KERNEL(cut_windows),       KERNEL(row_log_sums),        KERNEL(row_shares),
    KERNEL(patch_rows),        KERNEL(patch_frames),
    KERNEL(correlate_lines_512),  KERNEL(odds_lines_512),  KERNEL(weigh_lines_512),  KERNEL(backproject_lines_512),
    KERNEL(correlate_lines_1024), KERNEL(odds_lines_1024), KERNEL(weigh_lines_1024), KERNEL(backproject_lines_1024),
    KERNEL(patch_fused_32_1),  KERNEL(patch_fused_32_2),    KERNEL(patch_fused_64_1),  KERNEL(patch_fused_64_2),
    KERNEL(patch_small_3),     KERNEL(patch_small_4),       KERNEL(patch_small_5),
};

static std::string message;

// order: 0 threads and blocks ascending, 1 descending, other: seed of a shuffle at every step. Returns null or an error.
extern "C" const char* shim_launch(const char* name, const unsigned* grid, unsigned threads, size_t shared_bytes,
                                   void** arguments, size_t count, unsigned order) {
    try {
        const auto found = registry.find(name);
        if (found == registry.end()) throw std::runtime_error("no such kernel");
        if (found->second.arguments != count) throw std::runtime_error("wrong number of arguments");
        shim::body = [&] { found->second.call(arguments); };
        gridDim = {grid[0], grid[1], grid[2]};
        blockDim = {threads, 1, 1};
        std::mt19937 random(order);
        std::vector<size_t> blocks(size_t(grid[0]) * grid[1] * grid[2]), lanes(threads);
        std::iota(blocks.begin(), blocks.end(), 0);
        std::iota(lanes.begin(), lanes.end(), 0);
        if (order == 1) std::reverse(blocks.begin(), blocks.end()), std::reverse(lanes.begin(), lanes.end());
        if (order > 1) std::shuffle(blocks.begin(), blocks.end(), random);
        for (size_t b : blocks) {
            blockIdx = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
            shim::run_block(threads, shared_bytes, lanes, order > 1 ? &random : nullptr);
        }
        return nullptr;
    } catch (const std::exception& error) {
        shim::fibres.clear();  // some are stuck halfway
        message = std::string(name) + ": " + error.what();
        return message.c_str();
    }
}
