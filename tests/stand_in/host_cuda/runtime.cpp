// Runs the threads of a CUDA grid on the host: a block's threads are fibers, blocks run one after the other.
//
// A fiber takes one thread after the other, so threads that never wait for each other cost a call each. A thread that has to
// wait (for its block or its warp) leaves its fiber to itself, and another fiber goes on with the threads that are left.
// Everything happens in the operating system's thread that launched the grid.
//
// A thread that waits in vain, because others went another way, is an error, as is a wait by different calls of one warp.

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unordered_map>
#include <vector>

#include "runtime.h"

HostThread* host_cuda_current = nullptr;
HostDim host_cuda_grid, host_cuda_block, host_cuda_block_index;

namespace {

enum State { UNSTARTED, RUNNING, WAITS_FOR_BLOCK, WAITS_FOR_WARP, FINISHED };

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    bool started = false;
    void* stack = nullptr;
    int thread = -1;  // which it runs, or holds while that waits
};

struct Warp {
    unsigned members = 0;
    struct Meeting {
        unsigned mask = 0, arrived = 0;
        int kind = 0, line = 0;
    };
    std::vector<Meeting> meetings;  // one for each mask that lanes wait under
};

constexpr size_t STACK = 256 * 1024;
constexpr size_t SHARED_LIMIT = 227 * 1024;

std::vector<HostThread> threads;
std::vector<State> states;
std::vector<Fiber*> holders;  // which fiber holds a thread that waits
std::vector<Warp> warps;
std::vector<Fiber*> idle, all_fibers;
std::deque<int> ready;  // threads that may go on
std::vector<int> order;
std::unordered_map<const void*, std::vector<unsigned char>> static_shared;
std::vector<unsigned char> dynamic_shared_block;
unsigned char* dynamic_shared_start = nullptr;
size_t dynamic_shared_size = 0, static_size = 0;
size_t next_unstarted = 0;
int finished = 0, at_barrier = 0, barrier_line = 0, barrier_kind = 0, barrier_votes = 0, barrier_all = 0, barrier_result = 0;
unsigned schedule_seed = 0;
HostEntry entry = nullptr;
void** arguments = nullptr;
jmp_buf scheduler;
Fiber* running = nullptr;
std::string failure;

std::string place_of(int thread) {
    const HostThread& t = threads[thread];
    char text[160];
    std::snprintf(text, sizeof text, "thread (%u, %u, %u) of block (%u, %u, %u)", t.index.x, t.index.y, t.index.z,
                  host_cuda_block_index.x, host_cuda_block_index.y, host_cuda_block_index.z);
    return text;
}

[[noreturn]] void back_to_scheduler() { _longjmp(scheduler, 1); }

void start_next_thread() {
    int t = order[next_unstarted++];
    running->thread = t;
    states[t] = RUNNING;
    host_cuda_current = &threads[t];
}

void fiber_main() {
    for (;;) {
        entry(arguments);
        states[running->thread] = FINISHED;
        ++finished;
        if (next_unstarted < threads.size()) {
            start_next_thread();
            continue;
        }
        running->thread = -1;
        Fiber* me = running;
        idle.push_back(me);
        if (_setjmp(me->place) == 0) back_to_scheduler();
        // resumed with the next thread to start
    }
}

void resume(Fiber* fiber) {
    running = fiber;
    if (fiber->started) _longjmp(fiber->place, 1);
    fiber->started = true;
    setcontext(&fiber->context);
}

Fiber* new_fiber() {
    Fiber* fiber = new Fiber;
    fiber->stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fiber->stack == MAP_FAILED) {
        std::perror("a stack for a thread of a CUDA block");
        std::abort();
    }
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, fiber_main, 0);
    all_fibers.push_back(fiber);
    return fiber;
}

void forget_fibers() {
    for (Fiber* fiber : all_fibers) {
        munmap(fiber->stack, STACK);
        delete fiber;
    }
    all_fibers.clear();
    idle.clear();
}

void wait_here(State why) {
    Fiber* me = running;
    int t = me->thread;
    states[t] = why;
    holders[t] = me;
    if (_setjmp(me->place) == 0) back_to_scheduler();
    host_cuda_current = &threads[t];
}

void release_block(int last) {
    barrier_result = barrier_kind == 1 ? barrier_votes : barrier_kind == 2 ? barrier_votes > 0 : barrier_kind == 3 ? barrier_all : 0;
    at_barrier = 0;
    for (size_t i = 0; i < threads.size(); ++i)
        if (states[i] == WAITS_FOR_BLOCK && int(i) != last) {
            states[i] = RUNNING;
            ready.push_back(int(i));
        }
}

std::string why_stuck() {
    int waiting_block = 0, waiting_warp = 0, a_block = -1, a_warp = -1;
    for (size_t i = 0; i < threads.size(); ++i) {
        if (states[i] == WAITS_FOR_BLOCK) ++waiting_block, a_block = int(i);
        if (states[i] == WAITS_FOR_WARP) ++waiting_warp, a_warp = int(i);
    }
    char text[600];
    std::string what = "divergent barrier: ";
    if (waiting_block) {
        std::snprintf(text, sizeof text, "%d of %zu threads wait at __syncthreads (line %d; %s is one), %d have returned. ", waiting_block,
                      threads.size(), barrier_line, place_of(a_block).c_str(), finished);
        what += text;
    }
    if (waiting_warp) {
        const Warp& warp = warps[a_warp / 32];
        for (const auto& m : warp.meetings)
            if (m.arrived) {
                std::snprintf(text, sizeof text, "lanes %08x of mask %08x wait in a warp's call (line %d; %s is one). ", m.arrived, m.mask, m.line,
                              place_of(a_warp).c_str());
                what += text;
            }
    }
    return what;
}

void fail(const std::string& what) {
    failure = what;
    back_to_scheduler();
}

void shuffle_order() {
    size_t n = order.size();
    for (size_t i = 0; i < n; ++i) order[i] = int(i);
    if (schedule_seed == 1)
        for (size_t i = 0; i < n / 2; ++i) std::swap(order[i], order[n - 1 - i]);
    else if (schedule_seed > 1) {
        unsigned long long state = schedule_seed;
        for (size_t i = n; i > 1; --i) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            std::swap(order[i - 1], order[(state >> 33) % i]);
        }
    }
}

void run_block() {
    size_t n = threads.size();
    states.assign(n, UNSTARTED);
    holders.assign(n, nullptr);
    for (Warp& warp : warps) warp.meetings.clear();
    ready.clear();
    next_unstarted = 0;
    finished = at_barrier = 0;
    for (auto& item : static_shared) std::memset(item.second.data(), 0xFF, item.second.size());
    if (dynamic_shared_size) std::memset(dynamic_shared_start, 0xFF, dynamic_shared_size);
    shuffle_order();
    // every return to here is by longjmp, so what must outlive it is not in local variables
    _setjmp(scheduler);
    if (!failure.empty()) return;
    if (next_unstarted < threads.size()) {  // first all begin: a warp's lanes mostly wait for each other
        Fiber* fiber;
        if (idle.empty()) {
            fiber = new_fiber();
        } else {
            fiber = idle.back();
            idle.pop_back();
        }
        running = fiber;
        start_next_thread();
        resume(fiber);
    }
    if (!ready.empty()) {
        int t = schedule_seed == 1 ? ready.back() : ready.front();
        schedule_seed == 1 ? ready.pop_back() : ready.pop_front();
        resume(holders[t]);
    }
    if (finished != int(threads.size())) failure = why_stuck();
}

}  // namespace

extern "C" {

void host_cuda_fail(const char* what) { fail(std::string(what) + " (" + place_of(running->thread) + ")"); }

int host_cuda_barrier(int kind, int predicate, int line) {
    if (at_barrier == 0) {
        barrier_kind = kind, barrier_line = line, barrier_votes = 0, barrier_all = 1;
    } else if (barrier_kind != kind || barrier_line != line) {
        char text[200];
        std::snprintf(text, sizeof text, "divergent barrier: threads of a block meet at the __syncthreads of lines %d and %d", barrier_line, line);
        host_cuda_fail(text);
    }
    barrier_votes += predicate != 0;
    barrier_all = barrier_all && predicate;
    if (++at_barrier == int(threads.size()))
        release_block(running->thread);
    else
        wait_here(WAITS_FOR_BLOCK);
    return barrier_result;
}

// All lanes of the mask meet; what each of them brought is received by all, in the order of lanes.
void host_cuda_warp_meet(unsigned mask, int kind, const void* value, size_t size, int line) {
    int t = running->thread;
    HostThread& me = threads[t];
    Warp& warp = warps[t / 32];
    unsigned lane = 1u << (t % 32);
    char text[240];
    if (!(mask & lane)) {
        std::snprintf(text, sizeof text, "line %d: a lane calls a warp function whose mask %08x does not name it", line, mask);
        host_cuda_fail(text);
    }
    if (mask & ~warp.members) {
        std::snprintf(text, sizeof text, "line %d: mask %08x names lanes that the block does not have (it has %08x)", line, mask, warp.members);
        host_cuda_fail(text);
    }
    if (size > sizeof me.brought) host_cuda_fail("a value of more than 16 bytes in a warp function");
    std::memcpy(me.brought, value, size);
    Warp::Meeting* meeting = nullptr;
    for (auto& m : warp.meetings)
        if (m.arrived && m.mask == mask) meeting = &m;
    if (meeting == nullptr)
        for (auto& m : warp.meetings)
            if (!m.arrived) meeting = &m;
    if (meeting == nullptr) {
        warp.meetings.push_back({});
        meeting = &warp.meetings.back();
    }
    if (!meeting->arrived) {
        meeting->mask = mask, meeting->kind = kind, meeting->line = line;
    } else if (meeting->kind != kind || meeting->line != line) {
        std::snprintf(text, sizeof text, "lanes of a warp meet in different calls, of lines %d and %d", meeting->line, line);
        host_cuda_fail(text);
    }
    meeting->arrived |= lane;
    if (meeting->arrived != mask) {
        wait_here(WAITS_FOR_WARP);
        return;
    }
    meeting->arrived = 0;
    // each lane gets a copy of all, since others may meet again, without it, before it goes on
    unsigned char all[sizeof me.received];
    int first = t / 32 * 32;
    for (int i = 0; i < 32; ++i)
        if (mask >> i & 1) std::memcpy(all + i * size, threads[first + i].brought, size);
    for (int i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        std::memcpy(threads[first + i].received, all, 32 * size);
        if (first + i != t) {
            states[first + i] = RUNNING;
            ready.push_back(first + i);
        }
    }
}

const void* host_cuda_received() { return threads[running->thread].received; }

int host_cuda_lane() { return running->thread % 32; }

void* host_cuda_static_shared(const void* site, size_t size) {
    auto& memory = static_shared[site];
    if (memory.empty()) {
        memory.resize(size + 16, 0xFF);
        static_size += size;
    }
    if (static_size + dynamic_shared_size > SHARED_LIMIT || static_size > 48 * 1024) host_cuda_fail("more static shared memory than a block may have");
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 15) & ~uintptr_t(15));
}

void* host_cuda_dynamic_shared() { return dynamic_shared_start; }

// Returns null, or what went wrong.
const char* host_cuda_launch(HostEntry function, void** args, const unsigned* grid, const unsigned* block, size_t shared, unsigned seed) {
    failure.clear();
    entry = function, arguments = args, schedule_seed = seed;
    host_cuda_grid = {grid[0], grid[1], grid[2]};
    host_cuda_block = {block[0], block[1], block[2]};
    static_shared.clear();
    static_size = 0;
    dynamic_shared_size = shared;
    dynamic_shared_block.assign(shared + 16, 0xFF);
    dynamic_shared_start =
        reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(dynamic_shared_block.data()) + 15) & ~uintptr_t(15));
    size_t n = size_t(block[0]) * block[1] * block[2];
    threads.assign(n, HostThread{});
    order.resize(n);
    warps.assign((n + 31) / 32, Warp{});
    for (size_t i = 0; i < n; ++i) {
        threads[i].index = {unsigned(i % block[0]), unsigned(i / block[0] % block[1]), unsigned(i / block[0] / block[1])};
        warps[i / 32].members |= 1u << (i % 32);
    }
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                host_cuda_block_index = {x, y, z};
                run_block();
                if (!failure.empty()) {
                    forget_fibers();
                    return failure.c_str();
                }
            }
    return nullptr;
}
}
