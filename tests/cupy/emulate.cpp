// The fibers of emulate.hpp.
#include "emulate.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <string>
#include <vector>

dim3 blockIdx, blockDim, gridDim, threadIdx;

namespace emulate {
constexpr size_t STACK = 64 * 1024, WARP = 32;
struct Fiber {
    ucontext_t context;  // where it begins
    jmp_buf place;       // where it goes on: switching so takes no system call
    bool begun;
    Meeting meeting;
    int line;  // of the meeting point: threads at different ones do not meet
    uint64_t offered;
};
static jmp_buf scheduler;
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static size_t current;
static void (*body)(const long long*);
static const long long* arguments;
static std::string problem;

static void run_fiber(size_t i) {
    current = i;
    threadIdx = {unsigned(i), 0, 0};
    fibers[i].meeting = Meeting::none;
    if (_setjmp(scheduler)) return;
    if (fibers[i].begun) _longjmp(fibers[i].place, 1);
    fibers[i].begun = true;
    setcontext(&fibers[i].context);
}
void meet(Meeting meeting, int line) {
    Fiber& fiber = fibers[current];
    fiber.meeting = meeting;
    fiber.line = line;
    if (!_setjmp(fiber.place)) _longjmp(scheduler, 1);
}
static void entry() {
    body(arguments);
    meet(Meeting::end, 0);
}

// Are all threads in [first, last) at one meeting point of this kind?
static bool have_met(size_t first, size_t last, Meeting meeting) {
    return std::all_of(fibers.begin() + first, fibers.begin() + last, [=](const Fiber& fiber) {
        return fiber.meeting == meeting && fiber.line == fibers[first].line;
    });
}

static void run_block(bool downwards) {
    size_t n = blockDim.x;
    if (fibers.size() < n) fibers.resize(n);
    if (stacks.size() < n * STACK) stacks.resize(n * STACK);
    for (size_t i = 0; i < n; i++) {
        fibers[i].begun = false;
        getcontext(&fibers[i].context);
        fibers[i].context.uc_stack.ss_sp = &stacks[i * STACK];
        fibers[i].context.uc_stack.ss_size = STACK;
        fibers[i].context.uc_link = nullptr;
        makecontext(&fibers[i].context, entry, 0);
    }
    auto run = [=](size_t first, size_t last) {
        for (size_t k = 0; k < last - first; k++) run_fiber(downwards ? last - 1 - k : first + k);
    };
    run(0, n);
    while (!have_met(0, n, Meeting::end)) {
        bool moved = false;
        for (size_t k = 0; k < n; k += WARP) {
            size_t first = downwards ? (n - 1 - k) / WARP * WARP : k, last = std::min(first + WARP, n);
            if (have_met(first, last, Meeting::warp)) run(first, last), moved = true;
        }
        if (have_met(0, n, Meeting::block)) run(0, n), moved = true;
        if (!moved) {
            for (size_t i = 0; i < n && problem.empty(); i++)
                if (fibers[i].line != fibers[0].line || fibers[i].meeting != fibers[0].meeting)
                    problem = "threads 0 and " + std::to_string(i) + " wait at lines " +
                              std::to_string(fibers[0].line) + " and " + std::to_string(fibers[i].line);
            return;
        }
    }
}

const char* launch(long long blocks, unsigned threads, bool meets, bool downwards, void (*kernel)(const long long*),
                   const long long* words) {
    problem.clear();
    gridDim = {unsigned(blocks)};
    blockDim = {threads};
    body = kernel;
    arguments = words;
    for (long long k = 0; k < blocks && problem.empty(); k++) {
        blockIdx = {unsigned(downwards ? blocks - 1 - k : k), 0, 0};
        if (meets) {
            run_block(downwards);
        } else {
            for (unsigned i = 0; i < threads; i++) {
                threadIdx = {downwards ? threads - 1 - i : i, 0, 0};
                body(arguments);
            }
        }
    }
    return problem.c_str();
}

uint64_t exchange_bits(uint64_t bits, int mask, int line) {
    size_t self = current;
    fibers[self].offered = bits;
    meet(Meeting::warp, line);
    bits = fibers[self / WARP * WARP + ((self % WARP) ^ mask)].offered;
    meet(Meeting::warp, -line);
    return bits;
}
}  // namespace emulate
