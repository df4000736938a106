// What the runtime and the kernels compiled for the host share.
#pragma once
#include <cstddef>

struct HostDim {
    unsigned x, y, z;
};

struct HostThread {
    HostDim index;
    alignas(16) unsigned char brought[16];
    alignas(16) unsigned char received[32 * 16];
};

typedef void (*HostEntry)(void**);

extern HostThread* host_cuda_current;
extern HostDim host_cuda_grid, host_cuda_block, host_cuda_block_index;

extern "C" {
void host_cuda_fail(const char* what);
int host_cuda_barrier(int kind, int predicate, int line);
void host_cuda_warp_meet(unsigned mask, int kind, const void* value, size_t size, int line);
const void* host_cuda_received();
int host_cuda_lane();
void* host_cuda_static_shared(const void* site, size_t size);
void* host_cuda_dynamic_shared();
}
