// The fibers of emulate.hpp.
#include "emulate.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <string>
#include <vector>

dim3 blockIdx, blockDim, gridDim, threadIdx;

namespace emulate {
constexpr size_t STACK = 64 * 1024, WARP = 32, ALIGNMENT = 128;
struct Copy {
    void* target;
    const void* source;  // null for zeros
    unsigned size;
    void perform() const { source ? memcpy(target, source, size) : memset(target, 0, size); }
};
struct Fiber {
    ucontext_t context;  // where it begins
    jmp_buf place;       // where it goes on: switching so takes no system call
    bool begun;
    Meeting meeting;
    int line;  // of the meeting point: threads at different ones do not meet
    unsigned lanes;  // of its warp: those it meets at a meeting point of a warp
    uint64_t offered;
    std::vector<std::vector<Copy>> copies;  // sets that are under way; the last one is not ended yet
};
static jmp_buf scheduler;
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static size_t current;
static void (*body)(const long long*);
static const long long* arguments;
static std::string problem;
static std::vector<unsigned char> shared;  // what the launch asks for, and a margin that nobody may write to
constexpr size_t MARGIN = 4096;
constexpr unsigned char UNSET = 0xff;  // NaN as a float and as halves

static void run_fiber(size_t i) {
    current = i;
    threadIdx = {unsigned(i), 0, 0};
    fibers[i].meeting = Meeting::none;
    if (_setjmp(scheduler)) return;
    if (fibers[i].begun) _longjmp(fibers[i].place, 1);
    fibers[i].begun = true;
    setcontext(&fibers[i].context);
}
void meet(Meeting meeting, int line, unsigned lanes) {
    Fiber& fiber = fibers[current];
    fiber.meeting = meeting;
    fiber.line = line;
    fiber.lanes = lanes;
    if (meeting == Meeting::warp && !(lanes >> current % WARP & 1)) problem = "a thread does not meet itself";
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

// The threads of a warp that all wait at a meeting point which names just them; the first such set, if there is one.
static std::vector<size_t> met_lanes(size_t first, size_t last) {
    for (size_t i = first; i < last; i++) {
        const Fiber& some = fibers[i];
        if (some.meeting != Meeting::warp) continue;
        std::vector<size_t> members;
        bool all = true;
        for (size_t lane = 0; lane < WARP && all; lane++) {
            if (!(some.lanes >> lane & 1)) continue;
            members.push_back(first + lane);
            all = first + lane < last && fibers[first + lane].meeting == Meeting::warp &&
                  fibers[first + lane].line == some.line && fibers[first + lane].lanes == some.lanes;
        }
        if (all) return members;
    }
    return {};
}

static void run_block(bool downwards) {
    size_t n = blockDim.x;
    if (fibers.size() < n) fibers.resize(n);
    if (stacks.size() < n * STACK) stacks.resize(n * STACK);
    for (size_t i = 0; i < n; i++) {
        fibers[i].begun = false;
        fibers[i].copies.assign(1, {});
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
            std::vector<size_t> members = met_lanes(first, last);
            if (downwards) std::reverse(members.begin(), members.end());
            for (size_t member : members) run_fiber(member), moved = true;
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

const char* launch(long long blocks, unsigned threads, unsigned bytes, bool meets, bool downwards,
                   void (*kernel)(const long long*), const long long* words) {
    problem.clear();
    gridDim = {unsigned(blocks)};
    blockDim = {threads};
    body = kernel;
    arguments = words;
    for (long long k = 0; k < blocks && problem.empty(); k++) {
        blockIdx = {unsigned(downwards ? blocks - 1 - k : k), 0, 0};
        if (bytes) shared.assign(bytes + MARGIN + ALIGNMENT, UNSET);
        if (meets) {
            run_block(downwards);
        } else {
            for (unsigned i = 0; i < threads; i++) {
                threadIdx = {downwards ? threads - 1 - i : i, 0, 0};
                body(arguments);
            }
        }
        unsigned char* end = bytes ? shared_bytes() + bytes : nullptr;
        if (bytes && problem.empty() && std::count(end, end + MARGIN, UNSET) != MARGIN)
            problem = "the block writes behind its shared memory";
    }
    return problem.c_str();
}

unsigned char* shared_bytes() {
    return shared.data() + (ALIGNMENT - (uintptr_t)shared.data() % ALIGNMENT) % ALIGNMENT;
}

void copy_later(void* target, const void* source, unsigned size) {
    if ((uintptr_t)target % size || (uintptr_t)source % size) problem = "a copy to shared memory is not aligned";
    const Copy copy{target, source, size};
    if (current / WARP % 2) return copy.perform();  // as early as possible, and in the other warps as late
    fibers[current].copies.back().push_back(copy);
}
void end_copies() { fibers[current].copies.emplace_back(); }
void wait_for_copies(int left) {
    auto& sets = fibers[current].copies;
    while ((int)sets.size() - 1 > left) {
        for (const Copy& copy : sets.front()) copy.perform();
        sets.erase(sets.begin());
    }
}

// What another thread of the warp offers, between two meetings of all.
template <class T> static const T* offered(size_t lane) {
    return (const T*)fibers[current / WARP * WARP + lane].offered;
}

void load_matrices(unsigned (&to)[4], const void* row, bool turned, int line) {
    if ((uintptr_t)row % 16) problem = "a row of a matrix is not aligned";
    fibers[current].offered = (uint64_t)row;
    meet(Meeting::warp, line);
    size_t lane = current % WARP;
    for (size_t i = 0; i < 4; i++) {
        uint16_t halves[2];
        if (turned)
            for (size_t j = 0; j < 2; j++) halves[j] = offered<uint16_t>(8 * i + lane % 4 * 2 + j)[lane / 4];
        else
            memcpy(halves, offered<uint16_t>(8 * i + lane / 4) + lane % 4 * 2, 4);
        memcpy(&to[i], halves, 4);
    }
    meet(Meeting::warp, -line);
}

struct Fragments {
    const unsigned* a;
    unsigned b[2];
    float* sum;
    bool done;
};

// The first lane that goes on computes the whole product.
void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Operand type, int line) {
    Fragments own{a, {b0, b1}, sum, false};
    fibers[current].offered = (uint64_t)&own;
    meet(Meeting::warp, line);
    auto lane = [](size_t i) -> Fragments& { return *const_cast<Fragments*>(offered<Fragments>(i)); };
    if (!lane(0).done) {
        lane(0).done = true;
        auto number = [=](unsigned word, size_t half) {
            if (type == Operand::tf32) return __int_as_float((int)(word & ~0x1fffu));
            unsigned short bits = (unsigned short)(word >> 16 * half);
            return type == Operand::float16 ? from_float16(bits) : __int_as_float(bits << 16);
        };
        size_t each = type == Operand::tf32 ? 1 : 2;
        double left[16][16], right[16][8];  // word k % 4 of the first or second half of the inner axis
        for (size_t i = 0; i < WARP; i++)
            for (size_t half = 0; half < each; half++) {
                for (size_t e = 0; e < 4; e++)
                    left[i / 4 + e % 2 * 8][(i % 4 + e / 2 * 4) * each + half] = number(lane(i).a[e], half);
                for (size_t e = 0; e < 2; e++)
                    right[(i % 4 + e * 4) * each + half][i / 4] = number(lane(i).b[e], half);
            }
        for (size_t i = 0; i < WARP; i++)
            for (size_t e = 0; e < 4; e++) {
                double total = lane(i).sum[e];
                for (size_t k = 0; k < 8 * each; k++)
                    total += left[i / 4 + e / 2 * 8][k] * right[k][i % 4 * 2 + e % 2];
                lane(i).sum[e] = (float)total;
            }
    }
    meet(Meeting::warp, -line);
}

uint64_t exchange_bits(unsigned lanes, uint64_t bits, int mask, int line) {
    size_t self = current;
    fibers[self].offered = bits;
    meet(Meeting::warp, line, lanes);
    bits = fibers[self / WARP * WARP + ((self % WARP) ^ mask)].offered;
    meet(Meeting::warp, -line, lanes);
    return bits;
}
}  // namespace emulate
